"""QPLEX: duplex dueling mixing (Wang et al. 2021, arXiv 2008.01062).

With V_i = max_a Q_i(a) over the available actions and Q'_i = w_i Q_i + b_i, V'_i = w_i V_i + b_i,
w_i > 0:

    Q_tot = sum_i V'_i + sum_i lambda_i (Q'_i - V'_i),   lambda_i(s, a) > 0               (sec. 3.2)

As every Q'_i - V'_i <= 0 and is 0 for the greedy action, the best joint action is everybody's best
action, for any weights lambda of the joint action: QPLEX can represent what QMIX cannot. For
mixer=dmaq w and b come from the state, and lambda_i = sum_k |key_k(s)| sigmoid(agents_k(s)_i)
sigmoid(actions_k(s, a)_i). For mixer=qatten w is an attention over the agents' parts of the state
(Yang et al. 2020, arXiv 2002.03939), with a penalty on its logits in the loss:

    attention_penalty * mean over steps of sum_h mean_i l_hi^2

Training uses the equal form sum_i Q'_i + sum_i (lambda_i - 1) sg(Q'_i - V'_i): dQ_tot/dQ_i = w_i
(which is also what DIFFER shares the reward by), V_i passes no gradient, and lambda learns from
delta sg(Q'_i - V'_i) alone.

Departures: code: w, b and lambda read the state where the paper writes the joint history; lambda is
as above. ours: the penalty is a mean over real steps (code: padding too) and trains the mixer only,
also where nonlinear=true makes the logits read the utilities. With nonlinear=true (code) w changes
with the actions, so that nothing says any more that everybody's best action is the best joint
action. code: with double_q=false, which none of its files has, the target's maximum is over all
actions, available or not; ours: over the available ones.
Not done: `is_minus_one=false` (not the paper's Q_tot), `weighted_head=false` of the code's dmaq
(w = 1, b = 0), and `mask_dead`, which cannot run in the code: it reads actions where none are
passed. The options `is_stop_gradient` and `is_adv_attention` have no effect in the code.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxshare.algos.qplex.mixer import (
    AttentionWeights,
    HyperWeights,
    Importance,
    qplex_mixer,
    transformation,
)
from jaxshare.learners.learner import Learner
from jaxshare.learners.packed import packable
from jaxshare.learners.records import Loss, View
from jaxshare.learners.utilities import num_choices
from jaxshare.learners.value import value_learner
from jaxshare.learners.value_losses import team_td_loss
from jaxshare.learners.value_settings import ValueConfig, ValueHParams
from jaxshare.ops.masking import masked_argmax, masked_mean
from jaxshare.settings.fields import UNITS, default, flag, nested, size, static, swept
from jaxshare.settings.shared import MixerWidth
from jaxshare.types import Array, EnvSpec, Metrics, RefusedError

MIXERS = ("dmaq", "qatten")

CODE = "code: QPLEX"


@dataclass(frozen=True)
class HParams(ValueHParams):
    """Swept scalars of the value family, and the penalty's."""

    attention_penalty: float = swept(
        1e-3,
        least=0,
        help="weight of the penalty on the attention's scores; only with mixer=qatten",
        source="code: QPLEX's attend_reg_coef",
    )


@dataclass(frozen=True)
class Config(MixerWidth, ValueConfig):
    """Settings of the value family, and the mixer's. code: qplex_sc2.yaml (dmaq),
    qplex_qatten_sc2.yaml (qatten).
    """

    mixer: str = static(
        "dmaq",
        choices=MIXERS,
        help="what makes the weights of the utilities: networks (dmaq), or attention (qatten)",
        source="code: qplex_sc2.yaml; for SMAC qatten",
    )
    hypernet_dim: int = size(
        64,
        help="hidden units of w and b, or of the attention's queries",
        source=CODE,
    )
    num_kernels: int = size(
        4,
        help="kernels of lambda",
        source="code: QPLEX; 10 in its matrix games",
    )
    importance_layers: int = static(
        1,
        choices=(1, 2, 3),
        help="layers of lambda's networks",
        source="code: QPLEX; 3 in its matrix games",
    )
    importance_dim: int = size(
        64,
        help="units between the layers of lambda's networks",
        source=CODE,
    )
    num_heads: int = size(4, help="heads of the attention; only with mixer=qatten", source=CODE)
    embed_dim: int = default(32, CODE, help="units of queries and keys; only with mixer=qatten")
    unit_dim: int = static(
        0,
        least=0,
        most=UNITS,
        help="numbers of each agent at the start of the state, for mixer=qatten; SMAX's 3m: 10",
        source="ours: none, as it depends on the environment",
    )
    weighted_head: bool = flag(
        False,
        help="heads have weights; only with mixer=qatten",
        source="code: QPLEX; true for 3s5z_vs_3s6z and MMM2",
    )
    nonlinear: bool = flag(
        False,
        help="not linear in the utilities; only with mixer=qatten",
        source="code: QPLEX; true for MMM2",
    )
    hparams: HParams = nested(HParams)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mixer == "dmaq":
            self._refuse_what_only_qatten_reads()

    def _refuse_what_only_qatten_reads(self) -> None:
        for key in ("weighted_head", "nonlinear", "unit_dim"):
            if getattr(self, key):
                raise RefusedError(
                    f"algo.{key}={getattr(self, key)} needs algo.mixer=qatten; dmaq does not read "
                    "it."
                )


def make(config: Config, spec: EnvSpec) -> Learner:
    """The duplex mixer, one team loss, and the penalty of mixer=qatten."""
    weights = _weights(config, spec)
    importance = Importance(
        config.num_kernels,
        config.importance_layers,
        config.importance_dim,
        num_choices("qplex", spec),
    )
    mixer = qplex_mixer(spec.num_agents, spec.state_dim, weights, importance)
    learner = value_learner("qplex", config, spec, mixer=mixer, loss=team_td_loss)
    learner = learner.extend(aux=_greedy_rate)
    if isinstance(weights, AttentionWeights):
        return learner.extend(aux=_penalty(weights))
    return learner


def _weights(config: Config, spec: EnvSpec) -> HyperWeights | AttentionWeights:
    if config.mixer == "dmaq":
        return HyperWeights(config.hypernet_dim)

    # attention reads the agents' parts of the state
    if config.unit_dim == 0:
        raise RefusedError(
            "algo.mixer=qatten needs algo.unit_dim: how many numbers each agent has at the start "
            "of the state, one agent after the other (10 for SMAX's 3m). For states that are not "
            "laid out so use algo.mixer=dmaq."
        )
    if config.unit_dim * spec.num_agents > spec.state_dim:
        raise RefusedError(
            f"algo.unit_dim={config.unit_dim} times {spec.num_agents} agents is more than the "
            f"{spec.state_dim} numbers of the state of env={spec.name}: use a smaller "
            "algo.unit_dim, or algo.mixer=dmaq."
        )
    return AttentionWeights(
        heads=config.num_heads,
        embed_dim=config.embed_dim,
        hypernet_dim=config.hypernet_dim,
        unit_dim=config.unit_dim,
        weighted_head=config.weighted_head,
        nonlinear=config.nonlinear,
    )


def _penalty(weights: AttentionWeights) -> Loss:
    @packable
    def penalty(view: View) -> tuple[Array, Metrics]:
        batch = view.batch
        q = jax.lax.stop_gradient(view.values.q_taken)
        logits = transformation(weights, view.params["mixer"], q, batch.state[:-1])[2]
        size = masked_mean(logits, batch.mask)
        return view.hparams["attention_penalty"] * size, {"loss/attention": size}

    return penalty


@packable
def _greedy_rate(view: View) -> tuple[Array, Metrics]:
    """No loss: the share of taken actions that are greedy now."""
    batch = view.batch
    greedy = masked_argmax(view.values.q[:-1], batch.avail[:-1]) == batch.action
    rate = masked_mean(greedy.mean(-1), batch.mask)
    return jnp.zeros_like(rate), {"q/greedy_rate": rate}

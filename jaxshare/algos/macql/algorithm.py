"""MACQL: conservative Q-learning of a team, as SIT's baseline (Tian et al. 2023, arXiv 2211.15612).

    Q(tau, a) = sum_i w_i(s) Q_i(tau_i, a_i) + b(s),   w_i >= 0
    y = R + discount Q'(tau', argmax Q_i(tau_i', .))
    L = mean[(y - Q)^2] / 2 + beta mean[P - Q(tau, a)]                                      (eq. 13)

over valid steps, with one of three P (`penalty`), sums over available actions only:

    joint           log sum over joint actions of e^Q  =  sum_i log sum_a e^(w_i Q_i(a)) + b
    printed         sum_i log sum_a e^(w_i Q_i(a) + b)  =  joint + (N - 1) b
    counterfactual  (1 / N) sum_i log sum_a e^Q(a, a_-i): agent i's action varies, the others' are
                    the data's (Shao et al. 2023, CFCQL, https://arxiv.org/abs/2309.12696, with
                    equal lambda_i)

Of a linear mixer counterfactual - Q is (joint - Q) / N; it is another penalty with mixer=qmix,
CFCQL's own.

Departures. paper: as printed b is counted N times, and the loss falls without end in its direction
but for the TD error; ours: joint. paper: y is an n-step estimate, "e.g. Tree Backup", and no more
is said; ours: one step of double Q-learning, or target=td_lambda on the same values (code: CFCQL).
paper: the mixer is ICQ's, whose code divides w by its sum and leaves out b; ours: divided, with b.
Continuous actions: continuous.py. code: OG-MARL's sums include actions that are not available; its
QMIX+CQL samples joint actions. Not done: CFCQL's lambda_i by how far each agent is from the data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax

from jaxshare.algos.macql import continuous
from jaxshare.algos.macql.penalty import mixed, penalty
from jaxshare.learners import action_utilities as utilities
from jaxshare.learners import offline as family
from jaxshare.learners.learner import Learner
from jaxshare.learners.offline import SIT, OfflineHParams, TeamConfig, offline_learner
from jaxshare.learners.packed import packable
from jaxshare.learners.records import Net, Step, View
from jaxshare.models.mixers import qmix_mixer
from jaxshare.models.offline import linear_mixer
from jaxshare.ops import td
from jaxshare.ops.masking import masked_mean, masked_mean_square, take_last
from jaxshare.settings.fields import UNITS, default, nested, size, static, swept
from jaxshare.settings.shared import Lambda, PolicyWidth
from jaxshare.types import Array, Box, EnvSpec, Metrics, RefusedError

# paper: Table 11; the evaluations are ours
RUN = {"total_updates": 15_000, "eval": {"every": 1_000}}


@dataclass(frozen=True)
class HParams(PolicyWidth, Lambda, OfflineHParams):
    """Swept scalars."""

    beta: float = swept(2.0, least=0, help="weight of the penalty", source=SIT)
    action_std: float = default(
        0.2,
        "code: OG-MARL, CFCQL",
        help="standard deviation of drawn continuous actions, where the box is [-1, 1]",
    )
    td_lambda: float = default(
        0.8,
        "code: CFCQL has this target",
        help="lambda of the lambda-returns; only with target=td_lambda",
    )


@dataclass(frozen=True)
class Config(TeamConfig):
    """Settings of the family, and the penalty."""

    penalty: str = static(
        "joint",
        choices=("joint", "printed", "counterfactual"),
        help="what the penalty is over: joint actions, as printed, or each agent's alone",
        source="ours: joint; paper: SIT has printed; CFCQL has counterfactual",
    )
    target: str = static(
        "one_step",
        choices=("one_step", "td_lambda"),
        help="targets: of one step, or lambda-returns",
        source="ours: one_step; code: CFCQL has td_lambda",
    )
    mixer: str = static(
        "linear",
        choices=("linear", "qmix"),
        help="how utilities are mixed: linearly, or by QMIX, which needs penalty=counterfactual",
        source="paper: SIT; code: CFCQL has qmix",
    )
    hypernet_dim: int = size(
        64,
        help="hidden units of the networks that make the mixer's weights; only with mixer=qmix",
        source="code: PyMARL",
    )
    action_samples: int = static(
        10,
        least=1,
        most=UNITS,
        help="continuous actions of each of three distributions, of which an integral is made",
        source="code: OG-MARL, CFCQL",
    )
    hparams: HParams = nested(HParams)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mixer == "qmix" and self.penalty != "counterfactual":
            raise RefusedError(
                f"algo.penalty={self.penalty}: with algo.mixer=qmix a sum over joint actions is no "
                "product of sums over each agent's. Use algo.penalty=counterfactual, or "
                "algo.mixer=linear."
            )


def make(config: Config, spec: EnvSpec) -> Learner:
    """Utilities and a mixer, and actors of continuous actions.

    Raises RefusedError for continuous actions without bounds.
    """
    mixer: Net = linear_mixer(spec.num_agents, spec.state_dim, config.embed_dim, bias=True)
    if config.mixer == "qmix":
        mixer = qmix_mixer(
            spec.num_agents,
            spec.state_dim,
            config.embed_dim,
            config.hypernet_dim,
            hypernet_layers=2,
        )

    if isinstance(spec.action, Box):
        return _continuous_learner(config, spec, mixer)

    # one step of all, and targets for all
    agent = family.policy_network("macql", config, spec)
    networks: dict[str, Net] = {"agent": agent, "mixer": mixer}
    steps = {"joint": Step(loss, {"joint": ("agent", "mixer")})}
    learner = offline_learner("macql", config, spec, networks, steps)
    return replace(
        learner,
        policy=family.acting_by(family.best, "agent"),
        targets=family.slow(config, "agent", "mixer"),
        inspect=(family.taken_utilities,),
    )


def _continuous_learner(config: Config, spec: EnvSpec, mixer: Net) -> Learner:
    """Utilities that read actions, and actors, which follow them."""
    networks: dict[str, Net] = {
        **utilities.networks("macql", config, spec),
        "actor": family.policy_network("macql", config, spec),
        "mixer": mixer,
    }

    # the actors learn from the new utilities
    judges = ("agent", "utility", "mixer")
    steps = {
        "joint": Step(continuous.loss, {"joint": judges}),
        "actor": Step(continuous.actor_loss, {"actor": ("actor",)}),
    }
    learner = offline_learner("macql", config, spec, networks, steps)
    return replace(
        learner,
        targets=family.slow(config, *judges, "actor"),
        inspect=(utilities.taken_utilities,),
    )


@packable
def loss(view: View) -> tuple[Array, Metrics]:
    """Eq. 13."""
    batch = view.batch
    q = family.unrolled(view, "agent", view.params)
    slow_q = jax.lax.stop_gradient(family.unrolled(view, "agent", view.target_params))
    next_q = td.next_q(jax.lax.stop_gradient(q), slow_q, batch.avail, double=True)
    next_value = mixed(view, view.target_params, next_q, batch.state[1:])

    # what it learns towards, and the price of what the data do not have
    target_of = family.one_step_target
    if view.config.target == "td_lambda":
        target_of = family.lambda_target
    y = target_of(view, next_value)

    q_taken = take_last(q[:-1], batch.action)
    q_tot = mixed(view, view.params, q_taken, batch.state[:-1])
    price = masked_mean(penalty(view, q[:-1], q_taken, q_tot), batch.mask)
    error = masked_mean_square(y - q_tot, batch.mask)
    total = 0.5 * error + view.hparams["beta"] * price
    metrics = family.td_metrics(view, y, q_tot, q_taken)
    return total, {"loss/td": error, "loss/conservative": price, **metrics}

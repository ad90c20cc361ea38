"""COMA: counterfactual policy gradients (Foerster et al. 2018, arXiv 1705.08926).

    Q(z_i, .): one value for each action of agent i; z_i = [state, actions of the others, index]
    b_i = sum_a pi_i(a | h_i) Q(z_i, a),   A_i = sg(Q(z_i, a_i) - b_i)                       (eq. 4)
    L_i = -mean[A_i log pi_i(a_i | h_i)] - c_e mean[H(pi_i)]
          + c_v mean[(y_i - Q(z_i, a_i))^2]                                         (eqs. 3 and 8)
    y_i = G_t^lambda                                                            (TD(lambda), sec. 4)
    G_t = r_t + discount_t {(1 - lambda) Q'(z_i', a_i') + lambda G_{t+1}}

Q' is a copy of the critic, made anew every 200 updates; A uses the critic before its step. The
reward must be common. a' is the next joint action of the episode; where the time limit cuts it, one
of the present policy.

Settings are EPyMARL's (Papoudakis et al. 2021) with the returns of the paper; returns=n_step
n_step=10 are EPyMARL's. The authors' code, PyMARL's (Samvelyan et al. 2019), is
preset=differ/fig13_coma. There

    critic_steps=slices: the critic makes an optimiser step for each time step of the batch, from
        the last to the first, each with the mean over the episodes that are still on. Targets are
        those of before; A takes what the critic said of a time step just before it learned from it.
        The target is copied after a batch if 200 (target_update_period) critic steps have been made
        since it last was: they are counted, not the batches;
    mask_before_softmax=false: exploration, (1 - eps) pi + eps / A, is over all actions, of which
        those that are available are left and normalised; ours, true: pi and uniform play are over
        the available ones;
    optimizer=rmsprop, critic_dim=128, and a critic that also reads agent i's observation and all
        last actions.

Departures. code: EPyMARL's critic loss is the sum over agents, here their mean; it does not
bootstrap where the time limit cuts an episode (neither do the authors), and its n-step return takes
a value for the last reward.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax.numpy as jnp

from jaxshare.algos.coma.slices import Steps, copied, fit
from jaxshare.algos.coma.values import action_values, before, explore, played
from jaxshare.learners import actor_critic_losses as family
from jaxshare.learners import actor_critic_streams as streams
from jaxshare.learners import central
from jaxshare.learners.actor_critic import actor_critic
from jaxshare.learners.actor_critic_losses import Aims
from jaxshare.learners.actor_critic_settings import (
    EPYMARL_RUN,
    CentralConfig,
    EpymarlConfig,
    EpymarlHParams,
)
from jaxshare.learners.central import central_critic
from jaxshare.learners.learner import Learner
from jaxshare.learners.records import Step, View
from jaxshare.ops import coma as ops
from jaxshare.ops import returns
from jaxshare.ops.masking import take_last
from jaxshare.settings.fields import default, flag, nested, static
from jaxshare.settings.shared import PYMARL, Epsilon, Lambda, Optimizer, RMSprop
from jaxshare.types import Array, EnvSpec, Metrics, RefusedError

RUN = EPYMARL_RUN

CODE = "code: EPyMARL's coma.yaml"


@dataclass(frozen=True)
class HParams(RMSprop, Epsilon, Lambda, EpymarlHParams):
    """Swept scalars. code: EPyMARL's coma.yaml."""

    lr: float = default(3e-4, CODE)
    critic_lr: float = default(3e-4, CODE)
    td_lambda: float = default(
        0.8,
        "paper: COMA",
        help="lambda of the lambda-returns; only with returns=td_lambda",
    )
    epsilon_start: float = default(0.0, "code: EPyMARL has none; the authors' 0.5")
    epsilon_end: float = default(0.0, "code: EPyMARL has none; the authors' 0.01")
    epsilon_anneal_steps: float = default(100_000.0, "code: the authors'")
    rms_decay: float = default(0.99, PYMARL)


@dataclass(frozen=True)
class Config(Optimizer, EpymarlConfig, CentralConfig):
    """Static settings. code: EPyMARL's coma.yaml."""

    returns: str = static(
        "td_lambda",
        choices=("td_lambda", "n_step"),
        help="targets of the critic: lambda-returns, or n-step returns",
        source="paper: COMA; EPyMARL has n_step",
    )
    n_step: int = default(10, CODE, help="steps of a return; only with returns=n_step")
    hidden_dim: int = default(64, CODE)
    target_update: str = default("hard", CODE)
    critic_steps: str = static(
        "batch",
        choices=("batch", "slices"),
        help="steps of the critic's optimiser: one for all (batch), or one for each time step",
        source="code: EPyMARL; the authors' has slices",
    )
    mask_before_softmax: bool = flag(
        True,
        help="unavailable actions are left out before the softmax; false: after it",
        source="code: EPyMARL; the authors' has false",
    )
    optimizer: str = default("adam", CODE)
    hparams: HParams = nested(HParams)

    def __post_init__(self) -> None:
        super().__post_init__()
        central.check("coma", self)
        if self.critic_steps == "slices":
            self._check_slices()

    def _check_slices(self) -> None:
        for key, only in {"optimizers": "separate", "rollout": "episodes"}.items():
            if getattr(self, key) != only:
                raise RefusedError(
                    f"algo.critic_steps=slices with algo.{key}={getattr(self, key)}: the critic "
                    f"steps alone, through whole episodes. Use algo.{key}={only}, or "
                    "algo.critic_steps=batch."
                )


def make(config: Config, spec: EnvSpec) -> Learner:
    """Agents with one critic of joint actions. Raises RefusedError without a common reward."""
    actions = central.num_choices("coma", spec)
    if not spec.common_reward:
        raise RefusedError(
            f"algo=coma needs a common reward; env={spec.name} pays each agent its own. Use "
            "env.reward=sum (mpe: env.local_ratio=0, jaxmarl: env.common_reward=true) where the "
            "environment has it, or algo=maa2c."
        )
    critic = central_critic(config, spec, out_dim=actions, extra_dim=spec.num_agents * actions)
    learner = actor_critic("coma", config, spec, prepare, loss, critic)
    policy = replace(learner.policy, explore=partial(explore, config))
    learner = replace(learner, policy=policy, inspect=(baseline,))
    return learner if config.critic_steps == "batch" else _in_slices(config, learner)


def _in_slices(config: Config, learner: Learner) -> Learner:
    """The critic steps by itself, for each time step, before the actors do."""
    phase = learner.phases[0]
    main = replace(phase.steps[learner.main], optimizer_groups={"actor": ("actor",)})
    critic = Step(loss=None, optimizer_groups={"critic": ("critic",)}, advance=fit)
    phase = replace(phase, steps={"critic": critic, learner.main: main})
    targets = learner.targets
    if config.target_update == "hard":
        targets = replace(targets, follow=copied)
    learner = replace(learner, phases=(phase,), targets=targets)
    return learner.extend(stats={"coma": Steps.none()})


def prepare(view: View) -> Aims:
    """TD(lambda) targets of the target critic, advantages of the critic."""
    segment = view.batch
    then = view.replace(ctx=before(view))
    q = action_values(view, view.params["critic"], streams.critic_here(view), segment.action)
    advantage, value = ops.counterfactual(q, played(view).probs, segment.action)

    # what the target critic expects of what all do next
    action = central.next_actions(then)
    slow = central.slow_critic(view)
    following = action_values(view, slow, streams.critic_beyond(view), action)
    target = returns_of(view, take_last(following, action))
    log_prob = jnp.zeros_like(value)
    return Aims(returns=target, advantage=advantage, log_prob=log_prob, value=value)


def returns_of(view: View, next_value: Array) -> Array:
    """The critic's targets, [T, B, N]."""
    if view.config.returns == "n_step":
        return family.returns_of(view, next_value)
    segment = view.batch
    end = family.over_agents(segment.end, segment)
    discount = family.discounts(view)
    decay = view.hparams["td_lambda"]
    return returns.td_lambda(segment.reward, discount, next_value, end, decay)


def loss(view: View) -> tuple[Array, Metrics]:
    """L, the mean (or sum) over agents of L_i; with critic_steps=slices not the critic's part."""
    h = view.hparams
    segment = view.batch
    aims: Aims = view.targets
    policy = played(view)
    mean = partial(family.agent_means, view)

    # the policies that played, and with them the critic unless it steps alone
    actor = mean(-aims.advantage * policy.log_prob(segment.action))
    entropy = mean(policy.entropy())
    losses = {"actor": actor, "entropy": entropy}
    critic = jnp.float32(0.0)
    if view.config.critic_steps == "batch":
        q = action_values(view, view.params["critic"], streams.critic_here(view), segment.action)
        critic = mean(jnp.square(aims.returns - take_last(q, segment.action)))
        losses["critic"] = critic
    total = actor + h["value_coef"] * critic - h["entropy_coef"] * entropy
    return total, family.report(view, aims, **losses)


def baseline(view: View) -> dict[str, Any]:
    """b of every step, [T, B, N], for inspection: of the policy without exploration."""
    q = action_values(view, view.params["critic"], streams.critic_here(view), view.batch.action)
    probs = streams.policies(view).probs
    return {"value": ops.counterfactual(q, probs, view.batch.action)[1]}

"""Pareto actor-critic, PAC (Christianos et al. 2023, arXiv 2209.14344).

Christianos, Papoudakis and Albrecht.

For games in which all agents prefer the same joint policies (no conflict): each learns as if the
others did what is best for it.

    Q_i+(z, a_i) = max over a_-i of Q_i(z, a_i, a_-i)
    L_i = -mean[sg(Q_i+(z, a_i) - V_i(z)) log pi_i(a_i | h_i)] - c_e mean[H(pi_i)]
          + c_v {mean[(y_i - Q_i(z, a_i, a_-i))^2] + mean[(y_i - V_i(z))^2]}
    y_i = 10-step return along r_i, then gamma^10 max over a_-i of Q'_i(z', a_i', a_-i)
    c_e falls evenly from 20 to 0.01 over the first 80 % of the run's environment steps

Q' follows Q slowly; Q+ and V in the advantage are those before the critics' step. The maximum is
over actions that are available. Where the others have more than 4096 joint actions (`enumerate`) it
is over `samples` of them: the ones they took, and even draws among the available ones.

With `values=pareto` and n_step=1 both critics are those of the lecture, Q and V of pi+, under which
the others always do what is best for agent i:

    Q(z, a)  aims at  r_i + gamma (1 - d) Q_i+'(z', a_i'),   V(z)  aims at  Q_i+'(z, a_i)

with own actions a_i, a_i' of pi_i, so that V_i(z) = sum over a_i of pi_i(a_i) Q_i+(z, a_i).

Departures. code: EPyMARL, which the default follows (values=played), has the rewards of what the
others did until the bootstrap, so that V is the mean of what happens. It is a baseline only: it
changes the variance of the gradient, not its mean. code: its maximum includes actions that are not
available, a time limit ends an episode, and with shared parameters the critics do not know which
agent they speak of. Its other way beyond 4096, pairwise payoff graphs, is not here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp

from jaxshare.algos.pac.optimism import Asked, both, enumerates, optimistic
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
from jaxshare.learners.records import View
from jaxshare.models.streams import StreamNetwork
from jaxshare.ops import pareto
from jaxshare.ops.masking import take_last
from jaxshare.ops.schedules import linear
from jaxshare.settings.fields import UNITS, default, nested, static, swept
from jaxshare.types import Array, EnvSpec, Metrics, RefusedError

RUN = EPYMARL_RUN
CODE = "code: EPyMARL's pac_ns.yaml"


@dataclass(frozen=True)
class HParams(EpymarlHParams):
    """Swept scalars. code: EPyMARL's pac_ns.yaml."""

    lr: float = default(3e-4, CODE)
    critic_lr: float = default(3e-4, CODE)
    entropy_coef: float = default(20.0, CODE, help="weight of the policies' entropy at the start")
    entropy_end: float = swept(
        0.01,
        least=0,
        help="weight of the policies' entropy once it has fallen",
        source=CODE,
    )
    entropy_share: float = swept(
        0.8,
        least=0,
        most=1,
        help="share of total_env_steps until entropy_end is reached",
        source=CODE,
    )


@dataclass(frozen=True)
class Config(EpymarlConfig, CentralConfig):
    """Static settings. code: EPyMARL's pac_ns.yaml."""

    enumerate: str = static(
        "auto",
        choices=("auto", "all", "sample"),
        help="joint actions of the others in a maximum; auto: all if there are at most 4096",
        source="ours: what fits in memory",
    )
    samples: int = static(
        256,
        least=1,
        most=UNITS,
        help="joint actions in a maximum where they are not enumerated",
        source="ours: what fits in memory",
    )
    values: str = static(
        "played",
        choices=("played", "pareto"),
        help="what critics are of: play as it was until the bootstrap (played), or pi+ (pareto)",
        source="code: EPyMARL; lecture: pareto",
    )
    n_step: int = default(10, CODE)
    hidden_dim: int = default(64, CODE)
    recurrent: bool = default(False, CODE)
    share_params: str = default("none", CODE)
    obs_agent_id: bool = default(False, CODE)
    critic_agent_id: bool = default(
        True,
        "ours; code: EPyMARL never",
        help="critics read the agent's index where agents share parameters, and only there",
    )
    hparams: HParams = nested(HParams)

    def __post_init__(self) -> None:
        super().__post_init__()
        central.check("pac", self)
        if self.returns != "n_step":
            raise RefusedError(
                f"algo.returns={self.returns}: pac has returns=n_step only; its V is not the value "
                "of y."
            )
        if self.values == "pareto" and self.n_step != 1:
            raise RefusedError(
                f"algo.values=pareto with algo.n_step={self.n_step}: rewards of later steps are of "
                "what the others did, not of what is best. Use algo.n_step=1."
            )


class Hopes(Aims):
    """What both critics aim at; `returns` is Q's."""

    value_returns: Array  # [T, B, N]


def make(config: Config, spec: EnvSpec) -> Learner:
    """Agents with two critics each.

    Raises RefusedError for more joint actions than can be enumerated.
    """
    actions = central.num_choices("pac", spec)
    told = config.critic_agent_id and config.share_params != "none"
    config = replace(config, critic_agent_id=told)
    enumerates(config, spec)

    # Q reads everybody's actions as well; V is the family's critic
    critic = central_critic(config, spec, out_dim=actions, extra_dim=spec.num_agents * actions)
    joint = actor_critic("pac", config, spec, lambda view: None, family.a2c_loss, critic)
    q = joint.networks["critic"]
    learner = actor_critic(
        "pac", config, spec, partial(prepare, q), partial(loss, q), central_critic(config, spec)
    )
    return learner.with_network("critic", both(learner.networks["critic"], q))


def prepare(joint: StreamNetwork, view: View) -> Hopes:
    """Targets of the target critics, optimistic advantages of the critics."""
    segment = view.batch
    next_key, here_key, beyond_key = jax.random.split(view.key, 3)
    action = central.next_actions(view.replace(key=next_key))

    # the best that could come next, by the slow critic, and the best that could have come now
    slow = central.slow_critic(view)["joint"]
    beyond = Asked(streams.critic_beyond(view), action, segment.next_avail)
    following = optimistic(joint, view.replace(key=beyond_key), slow, beyond)
    online = view.params["critic"]
    here = Asked(streams.critic_here(view), segment.action, segment.avail)
    hoped = optimistic(joint, view.replace(key=here_key), online["joint"], here)

    value, _ = streams.values(view, online, after=False)
    target = family.returns_of(view, following)
    value_target = target
    if view.config.values == "pareto":
        value_target = optimistic(joint, view.replace(key=here_key), slow, here)
    return Hopes(
        returns=target,
        advantage=hoped - value,
        log_prob=jnp.zeros_like(value),
        value=value,
        value_returns=value_target,
    )


def entropy_coefficient(view: View) -> Array:
    """c_e at this moment, []."""
    h = view.hparams
    duration = h["entropy_share"] * view.ctx.total_env_steps
    return linear(h["entropy_coef"], h["entropy_end"], view.env_steps, duration)


def loss(joint: StreamNetwork, view: View) -> tuple[Array, Metrics]:
    """L, the mean (or sum) over agents of L_i."""
    segment = view.batch
    aims: Hopes = view.targets
    params = view.params["critic"]
    policy = streams.policies(view)
    mean = partial(family.agent_means, view)
    actor = mean(-aims.advantage * policy.log_prob(segment.action))
    entropy = mean(policy.entropy())

    # both critics
    others = pareto.others_only(segment.action, central.num_choices("pac", view.spec))
    q = central.ask(joint, params["joint"], streams.critic_here(view), others)
    value, _ = streams.values(view, params, after=False)
    q_error = mean(jnp.square(aims.returns - take_last(q, segment.action)))
    critic = q_error + mean(jnp.square(aims.value_returns - value))

    coefficient = entropy_coefficient(view)
    total = actor + view.hparams["value_coef"] * critic - coefficient * entropy
    metrics = family.report(view, aims, actor=actor, critic=critic, entropy=entropy)
    return total, {**metrics, "policy/entropy_coef": coefficient}

"""Pareto actor-critic, PAC (Christianos, Papoudakis and Albrecht 2023, https://arxiv.org/abs/2209.14344).

For games in which all agents prefer the same joint policies (no conflict): each learns as if the others did what is
best for it.

    Q_i+(z, a_i) = max over a_-i of Q_i(z, a_i, a_-i)
    L_i = -mean[sg(Q_i+(z, a_i) - V_i(z)) log pi_i(a_i | h_i)] - c_e mean[H(pi_i)]
          + c_v {mean[(y_i - Q_i(z, a_i, a_-i))^2] + mean[(y_i - V_i(z))^2]}
    y_i = 10-step return along r_i, then gamma^10 max over a_-i of Q'_i(z', a_i', a_-i)
    c_e falls evenly from 20 to 0.01 over the first 80 % of the run's environment steps

Q' follows Q slowly; Q+ and V in the advantage are those before the critics' step. The maximum is over actions that are
available. Where the others have more than 4096 joint actions (`enumerate`) it is over `samples` of them: the ones they
took, and even draws among the available ones.

Departures. paper, lecture: Q and V belong to pi+, where the others always do what is best for agent i; code: EPyMARL,
which this follows, has the rewards of what they did until the bootstrap, so that V is the mean of what happens. It is
a baseline only: it changes the variance of the gradient, not its mean. code: its maximum includes actions that are not
available, a time limit ends an episode, and with shared parameters the critics do not know which agent they speak of.
Its other way beyond 4096, pairwise payoff graphs, is not here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxshare.algos import _actor_critic as family
from jaxshare.algos import _central as central
from jaxshare.algos._actor_critic import ActorCritic, CentralConfig, Targets, central_actor_critic
from jaxshare.models.streams import StreamNetwork
from jaxshare.ops import pareto
from jaxshare.ops.masking import take_last
from jaxshare.ops.schedules import linear
from jaxshare.settings.fields import UNITS, default, nested, static, swept
from jaxshare.types import Array, Context, EnvSpec, LearnerState, Metrics, RefusedError, Segment

RUN = family.EPYMARL_RUN
MOST = 4096  # joint actions of the others to enumerate; ours: five agents with eight actions, six with five
ROWS = 2**16  # inputs of the critic at a time in a maximum; ours: some tens of MB

CODE = "code: EPyMARL's pac_ns.yaml"


@dataclass(frozen=True)
class HParams(family.EpymarlHParams):
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
class Config(family.EpymarlConfig, CentralConfig):
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
                f"algo.returns={self.returns}: pac has returns=n_step only; its V is not the value of y."
            )


def make(config: Config, spec: EnvSpec) -> ActorCritic:
    """Agents with two critics each. Raises RefusedError for more joint actions than can be enumerated."""
    actions = central.num_choices("pac", spec)
    config = replace(
        config, critic_agent_id=config.critic_agent_id and config.share_params != "none"
    )
    enumerates(config, spec)
    build = partial(central_actor_critic, "pac", config, spec, prepare, loss)
    joint = build(critic_dim=actions, more=spec.num_agents * actions).critic
    parts = build()
    return replace(
        parts,
        critic=both(parts.critic, joint),
        prepare=partial(prepare, joint),
        loss=partial(loss, joint),
    )


def enumerates(config: Config, spec: EnvSpec) -> bool:
    """Whether all joint actions of the others are looked at. Raises RefusedError if there are too many."""
    actions, others = central.num_choices("pac", spec), spec.num_agents - 1
    if config.enumerate == "all" and actions**others > MOST:
        raise RefusedError(
            f"algo.enumerate=all: {others} others with {actions} actions have {actions**others} joint actions, more "
            f"than {MOST}. Use algo.enumerate=sample, which looks at algo.samples={config.samples} of them."
        )
    return config.enumerate != "sample" and actions**others <= MOST


def both(value: StreamNetwork, joint: StreamNetwork) -> StreamNetwork:
    """V to the family, with the parameters of Q beside its own: {"value", "joint"}."""

    def init(key: Array) -> dict[str, Any]:
        value_key, joint_key = jax.random.split(key)
        return {"value": value.init(value_key), "joint": joint.init(joint_key)}

    return replace(
        value,
        init=init,
        unroll=lambda params, carry, stream: value.unroll(params["value"], carry, stream),
        every=lambda params, carry, stream: value.every(params["value"], carry, stream),
    )


def optimistic(
    joint: StreamNetwork,
    parts: ActorCritic,
    params: Any,
    z: Array,
    action: Array,
    avail: Array,
    key: Array,
) -> Array:
    """Q+ of the actions taken, [T, B, N]: z [T, B, N, D], action [T, B, N], avail [T, B, N, A], params of Q."""
    config, spec = parts.config, parts.spec
    assert isinstance(config, Config)
    actions, agents, batch = central.num_choices("pac", spec), spec.num_agents, z.shape[1]
    everything = pareto.all_joint_actions(actions, agents) if enumerates(config, spec) else None
    count = config.samples if everything is None else len(everything)

    def at(step: tuple[Array, Array, Array, Array]) -> Array:
        z, action, avail, key = step
        if everything is None:
            others = pareto.others_only(
                pareto.drawn_joint_actions(key, action, avail, count), actions
            )
        else:
            others = pareto.without_own(jnp.asarray(everything), actions)[:, None]
            others = jnp.broadcast_to(others, (count, batch, *others.shape[2:]))
        seen = jnp.broadcast_to(z[None], (count, *z.shape))
        fold = lambda x: x.reshape(1, count * batch, *x.shape[2:])  # noqa: E731
        q = central.ask(joint, params, fold(seen), fold(others)).reshape(
            count, batch, agents, actions
        )
        own = take_last(q, jnp.broadcast_to(action[None], (count, *action.shape)))
        return pareto.best(own, pareto.possible(others, avail))

    steps = max(1, ROWS // (count * batch * agents))
    return jax.lax.map(
        at, (z, action, avail, jax.random.split(key, len(z))), batch_size=min(steps, len(z))
    )


def prepare(
    joint: StreamNetwork,
    parts: ActorCritic,
    learner: LearnerState,
    segment: Segment,
    ctx: Context,
    key: Array,
) -> Targets:
    """Targets of the target critics, optimistic advantages of the critics."""
    next_key, here_key, beyond_key = jax.random.split(key, 3)
    look = partial(optimistic, joint, parts)
    action = central.next_actions(parts, learner, segment, ctx, next_key)
    slow = central.slow_critic(parts, learner)["joint"]
    following = look(slow, central.beyond(parts, segment), action, segment.next_avail, beyond_key)
    online = learner.params["critic"]
    hoped = look(
        online["joint"], central.here(parts, segment), segment.action, segment.avail, here_key
    )
    value, _ = family.values(parts, online, segment, after=False)
    target = family.returns_of(parts, segment, following, ctx)
    return Targets(
        returns=target, advantage=hoped - value, log_prob=jnp.zeros_like(value), value=value
    )


def entropy_coefficient(ctx: Context) -> Array:
    """c_e at this moment, []."""
    h = ctx.hparams
    return linear(
        h["entropy_coef"], h["entropy_end"], ctx.env_steps, h["entropy_share"] * ctx.total_env_steps
    )


def loss(
    joint: StreamNetwork, parts: ActorCritic, params: dict[str, Any], segment: Segment, targets: Targets, ctx: Context,
    key: Array,
) -> tuple[Array, Metrics]:  # fmt: skip
    """L, the mean (or sum) over agents of L_i."""
    policy = family.policies(parts, params, segment)
    others = pareto.others_only(segment.action, central.num_choices("pac", parts.spec))
    q = central.ask(joint, params["critic"]["joint"], central.here(parts, segment), others)
    value, _ = family.values(parts, params["critic"], segment, after=False)
    mean, square = partial(family.agent_means, parts, mask=segment.mask), jnp.square
    actor, entropy = (
        mean(-targets.advantage * policy.log_prob(segment.action)),
        mean(policy.entropy()),
    )
    critic = mean(square(targets.returns - take_last(q, segment.action))) + mean(
        square(targets.returns - value)
    )
    coefficient = entropy_coefficient(ctx)
    total = actor + ctx.hparams["value_coef"] * critic - coefficient * entropy
    metrics = family.report(parts, segment, targets, actor=actor, critic=critic, entropy=entropy)
    return total, {**metrics, "policy/entropy_coef": coefficient}

"""The on-policy actor-critic family: one record of parts, and the only place where they meet.

An algorithm of this family (iac, seac, maa2c, ppo, ...) is an `ActorCritic`. It learns from the `Segment` that was just
collected: pieces of streams of episodes (rollout=segments), or whole episodes (rollout=episodes). `prepare` makes the
targets with the parameters before the update, `loss` is what is minimised, once or over epochs and minibatches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxshare.algos._parts import (
    agents_modules,
    claimed,
    extended,
    followed,
    observing,
    optimised,
    preparing,
    relabelled,
    torch_rmsprop,
)
from jaxshare.models import distributions, inputs
from jaxshare.models.base import sharing_groups
from jaxshare.models.streams import ACTIVATIONS, INITS, Shape, Stream, StreamNetwork, stream_network
from jaxshare.ops import returns
from jaxshare.ops.masking import masked_mean
from jaxshare.settings.fields import (
    STEPS,
    UNITS,
    default,
    flag,
    nested,
    static,
    swept,
    swept_values,
)
from jaxshare.settings.shared import (
    SWEPT,
    Adam,
    Agents,
    Averaging,
    CriticRate,
    Learning,
    TargetPeriod,
)
from jaxshare.settings.validate import check_record
from jaxshare.types import (
    Algorithm,
    Array,
    Box,
    Clock,
    Context,
    EnvSpec,
    Episode,
    LearnerState,
    Metrics,
    RefusedError,
    Segment,
    TimeStep,
)

SEAC = "paper: SEAC Table 2; code: SEAC"
IA2C = "code: EPyMARL's ia2c.yaml"


@dataclass(frozen=True)
class HParams(Averaging, Adam, CriticRate, Learning):
    """Swept scalars. paper: SEAC Table 2, which is also its code's."""

    lr: float = default(3e-4, SEAC)
    critic_lr: float = default(
        3e-4,
        SEAC,
        help="learning rate of the critics; only with optimizers=separate",
    )
    gamma: float = default(0.99, SEAC)
    entropy_coef: float = swept(0.01, least=0, help="weight of the policies' entropy", source=SEAC)
    value_coef: float = swept(
        0.5,
        least=0,
        help="weight of the critics' loss (R - V)^2, without a half",
        source=SEAC,
    )
    grad_clip: float = default(
        0.5,
        SEAC,
        help="largest L2 norm of a gradient, over what algo.clip says",
    )
    adam_eps: float = default(1e-3, SEAC)
    gae_lambda: float = swept(
        0.95,
        least=0,
        most=1,
        help="lambda of generalised advantages; only with returns=gae",
        source="code: SEAC, off there",
    )
    lr_anneal: float = swept(
        0.0,
        least=0,
        most=1,
        help="share of both learning rates that is gone, evenly, by total_env_steps",
        source="code: SEAC, EPyMARL",
    )


@dataclass(frozen=True)
class ActorCriticConfig(TargetPeriod, Agents):
    """Static settings. The defaults are SEAC's (paper: Table 2; code: the same); EPyMARL's are in `EpymarlConfig`."""

    hidden_dim: int = default(64, SEAC)
    recurrent: bool = default(False, SEAC, help="a GRU in the actors")
    critic_recurrent: bool = flag(False, help="a GRU in the critics", source=SEAC)
    share_params: str = default("none", SEAC)
    obs_last_action: bool = default(False, SEAC)
    obs_agent_id: bool = default(False, SEAC)
    rollout: str = static(
        "segments",
        choices=("segments", "episodes"),
        help="what is learned from: pieces of streams of episodes (segments), or whole ones",
        source="code: SEAC; EPyMARL has episodes",
    )
    segment_length: int = static(
        5,
        least=1,
        most=STEPS,
        help="steps of a piece",
        source="paper: SEAC's n",
    )
    returns: str = static(
        "n_step",
        choices=("n_step", "gae"),
        help="targets of the critics: n-step returns, or of generalised advantages",
        source=SEAC,
    )
    n_step: int = static(
        0,
        least=0,
        most=STEPS,
        help="steps of a return before it bootstraps; 0: to the end of the piece",
        source="code: SEAC",
    )
    body: bool = flag(
        True,
        help="a second layer, after the GRU where there is one",
        source="code: SEAC, JaxMARL; EPyMARL has none",
    )
    activation: str = static(
        "relu",
        choices=tuple(ACTIVATIONS),
        help="the function between layers",
        source="code: SEAC",
    )
    init: str = static(
        "orthogonal",
        choices=INITS,
        help="how weights are drawn at first: orthogonal, or as torch does",
        source="code: SEAC; EPyMARL has torch",
    )
    body_gain: float = static(
        2**0.5,
        above=0,
        help="gain of the second hidden layer; only with init=orthogonal",
        source="code: SEAC",
    )
    value_gain: float = static(
        2**0.5,
        above=0,
        help="gain of the value head; only with init=orthogonal",
        source="code: SEAC, as of hidden layers",
    )
    optimizers: str = static(
        "joint",
        choices=("joint", "separate"),
        help="one optimiser over actor and critic (joint), or two",
        source="code: SEAC",
    )
    clip: str = static(
        "set",
        choices=("set", "all"),
        help="over what gradients are clipped: each parameter set alone, or all of them",
        source="code: SEAC, where every agent has its optimiser",
    )
    over_agents: str = static(
        "sum",
        choices=("sum", "mean"),
        help="what is minimised: the sum of the agents' losses, or their mean",
        source="paper: SNAC; EPyMARL has mean",
    )
    target_update: str = static(
        "none",
        choices=("none", "soft", "hard"),
        help="target networks of the critics: none, slow ones by tau (soft), or copies (hard)",
        source="code: SEAC",
    )
    target_update_period: int = default(
        200,
        "code: EPyMARL's COMA",
        help="updates between copies of the critics; only with target_update=hard",
    )
    standardise_advantage: bool = flag(
        False,
        help="advantages with mean 0 and deviation 1",
        source="code: neither SEAC nor EPyMARL",
    )
    epochs: int = static(
        1,
        least=1,
        most=UNITS,
        help="passes over what was collected",
        source="code: SEAC",
    )
    minibatches: int = static(
        1,
        least=1,
        most=UNITS,
        help="parts of what was collected, in each pass",
        source="code: SEAC",
    )
    critic_dim: int = static(
        0,
        least=0,
        most=UNITS,
        help="units of the critics' layers; 0: hidden_dim",
        source="code: SEAC, EPyMARL",
    )
    hparams: HParams = nested(HParams, help=SWEPT)

    def __post_init__(self) -> None:
        check_record(self, "algo.")


@dataclass(frozen=True)
class EpymarlHParams(HParams):
    """Swept scalars as EPyMARL has them. code: its ia2c.yaml."""

    lr: float = default(5e-4, IA2C)
    critic_lr: float = default(5e-4, IA2C)
    entropy_coef: float = default(0.001, IA2C)
    value_coef: float = default(1.0, IA2C)
    grad_clip: float = default(10.0, IA2C)
    adam_eps: float = default(1e-8, "code: EPyMARL, torch's")


@dataclass(frozen=True)
class EpymarlConfig(ActorCriticConfig):
    """Static settings as EPyMARL has them (Papoudakis et al. 2021). code: its ia2c.yaml and default.yaml."""

    rollout: str = default("episodes", IA2C)
    n_step: int = default(5, IA2C)
    hidden_dim: int = default(128, IA2C)
    recurrent: bool = default(True, IA2C)
    body: bool = default(False, IA2C)
    init: str = default("torch", IA2C)
    share_params: str = default("all", IA2C)
    obs_agent_id: bool = default(True, IA2C)
    optimizers: str = default("separate", IA2C)
    clip: str = default("all", IA2C)
    over_agents: str = default("mean", IA2C)
    target_update: str = default("soft", IA2C)
    hparams: HParams = nested(EpymarlHParams)


EPYMARL_RUN = {"num_envs": 10}  # code: EPyMARL's batch_size_run


@struct.dataclass
class Memory:
    """What acting carries from step to step."""

    actor: Array  # [B, N, H]; H = 0 without memory
    critic: Array  # [B, N, H]
    previous: Array  # [B, N, A or U] encoded previous action


@struct.dataclass
class Targets:
    """What an update aims at; made with the parameters before it."""

    returns: Array  # [T, B, N]
    advantage: Array  # [T, B, N]
    log_prob: Array  # [T, B, N] of the action taken
    value: Array  # [T, B, N]


Prepare = Callable[..., Any]
Loss = Callable[..., tuple[Array, Metrics]]
Fit = Callable[..., tuple[LearnerState, Any, Metrics]]
CriticInput = Callable[[Array, Array, Array], Array]


@dataclass(frozen=True)
class ActorCritic:
    """The parts of an on-policy actor-critic.

    actor: y are logits, or means and log standard deviations; critic: y [..., 1] is a value as a rule;
    critic_input: (obs [T, B, N, O], state [T, B, G], encoded previous action [T, B, N, A]) -> [T, B, N, D];
    prepare: (parts, LearnerState, Segment, ctx, key) -> a tree of [T, B, ...], without gradients;
    loss: (parts, params, Segment, what `prepare` gave, ctx, key) -> (scalar, metrics);
    modules: further trainables by parameter name; stats: running statistics by name, with their first values;
    relabel: (Segment, stats, ctx) -> (Segment, stats);
    after_update: (learner, Segment, ctx, key) -> (learner, metrics);
    observe: (stats, Segment just collected, clock) -> stats;
    before_update: (learner, play, ctx, key) -> learner, see `Algorithm`;
    fit: (parts, learner, Segment, what `prepare` gave, ctx) -> (learner, the same changed, metrics): trains the critic
    before the step of all else, which then leaves it alone; None: the critic is trained by `loss`, as all else;
    follow: (learner) -> learner with new target parameters; None: as the settings say;
    explore: (y, avail, ctx) -> y of the policy that plays while learning; None: the policy itself;
    value: (parts, learner, Segment) -> [T, B, N], what `inspect` shows as value; None: what the critics say;
    inspect: (parts, learner, Segment, ctx) -> {name: [T, B, N]}.
    """

    name: str
    config: ActorCriticConfig
    spec: EnvSpec
    actor: StreamNetwork
    critic: StreamNetwork
    critic_input: CriticInput
    prepare: Prepare
    loss: Loss
    modules: dict[str, Any] = field(
        default_factory=dict
    )  # Network, or what agents have, such as a StreamNetwork
    stats: dict[str, Any] = field(default_factory=dict)
    relabel: tuple[Callable[..., tuple[Segment, dict[str, Any]]], ...] = ()
    after_update: tuple[Callable[..., tuple[LearnerState, Metrics]], ...] = ()
    observe: tuple[Callable[[dict[str, Any], Segment, Clock], dict[str, Any]], ...] = ()
    before_update: tuple[Callable[..., LearnerState], ...] = ()
    fit: Fit | None = None
    follow: Callable[[LearnerState], LearnerState] | None = None
    explore: Callable[[Array, Array, Context], Array] | None = None
    value: Callable[[ActorCritic, LearnerState, Segment], Array] | None = None
    inspect: tuple[Callable[..., dict[str, Array]], ...] = ()
    hparams: dict[str, float] = field(default_factory=dict)  # of the modifiers, as "a_pps.x"
    owners: dict[str, str] = field(default_factory=dict)
    yields: tuple[
        str, ...
    ] = ()  # parts of its own that a modifier may replace all the same: ("loss",)

    @property
    def networks(self) -> dict[str, StreamNetwork]:
        """The agents' networks, by their names among the parts and the parameters."""
        return {"actor": self.actor, "critic": self.critic, **agents_modules(self.modules)}

    def claim(self, owner: str, wraps: tuple[str, ...] = (), **parts: Any) -> ActorCritic:
        """Replace single-owner parts. Raises RefusedError naming both owners if one is taken.

        wraps: names of those that the new ones keep within them.
        """
        return claimed(self, owner, (a2c_loss,), wraps, **parts)

    def extend(self, **parts: Any) -> ActorCritic:
        """Add to additive parts: an entry to those that are tuples, entries to those that are dicts (`modules`, …)."""
        return extended(self, **parts)

    def assemble(self) -> Algorithm:
        """The finished algorithm."""
        return assemble(self)


def actor_critic(
    name: str,
    config: ActorCriticConfig,
    spec: EnvSpec,
    prepare: Prepare,
    loss: Loss,
    critic_dim: int = 1,
    critic_input: CriticInput | None = None,
    critic_input_dim: int | None = None,
) -> ActorCritic:
    """A learner with the family's networks; the critic reads what the actor reads unless it is told otherwise."""
    groups = sharing_groups(config.share_params, spec.groups)
    input_dim = inputs.input_dim(spec, config.obs_last_action, config.obs_agent_id)
    out_dim, log_std = distributions.output_dim(spec)
    common: dict[str, Any] = {
        "hidden_dim": config.hidden_dim, "activation": config.activation, "init": config.init, "body": config.body,
        "body_gain": config.body_gain,
    }  # fmt: skip
    actor = Shape(
        **common, recurrent=config.recurrent, out_dim=out_dim, head_gain=0.01, log_std=log_std
    )
    critic_common = {**common, "hidden_dim": config.critic_dim or config.hidden_dim}
    critic = Shape(
        **critic_common,
        recurrent=config.critic_recurrent,
        out_dim=critic_dim,
        head_gain=config.value_gain,
    )
    return ActorCritic(
        name=name,
        config=config,
        spec=spec,
        actor=stream_network(actor, input_dim, groups),
        critic=stream_network(critic, critic_input_dim or input_dim, groups),
        critic_input=critic_input or partial(local_input, config, spec),
        prepare=prepare,
        loss=loss,
    )


def local_input(
    config: ActorCriticConfig, spec: EnvSpec, obs: Array, state: Array, previous: Array
) -> Array:
    """What an agent sees itself."""
    return inputs.build(obs, previous, spec, config.obs_last_action, config.obs_agent_id)


@dataclass(frozen=True)
class CentralConfig(ActorCriticConfig):
    """Static settings of learners whose critics read what no agent sees."""

    critic_obs: bool = flag(
        False,
        help="critics read the agent's own observation as well",
        source="code: EPyMARL; lecture: V(h_i, z) has it",
    )
    critic_last_actions: bool = flag(
        False,
        help="critics read everybody's last action as well",
        source="code: EPyMARL",
    )
    critic_agent_id: bool = flag(
        True,
        help="critics read the agent's index, one-hot",
        source="code: EPyMARL",
    )


def central_input(
    config: CentralConfig, spec: EnvSpec, obs: Array, state: Array, previous: Array
) -> Array:
    """z = [state (everybody's observation where there is none), own obs, last actions, index]: [T, B, N, D]."""
    agents = spec.num_agents

    def for_all(x: Array) -> Array:  # [T, B, F] -> [T, B, N, F]
        return jnp.broadcast_to(x[:, :, None], (*x.shape[:2], agents, x.shape[-1]))

    def joined(x: Array) -> Array:  # [T, B, N, F] -> [T, B, N * F]
        return x.reshape(*x.shape[:2], -1)

    parts = [for_all(state if spec.state_dim else joined(obs))]
    if config.critic_obs:
        parts.append(obs)
    if config.critic_last_actions:
        parts.append(for_all(joined(previous)))
    if config.critic_agent_id:
        parts.append(jnp.broadcast_to(jnp.eye(agents), (*obs.shape[:3], agents)))
    return jnp.concatenate(parts, axis=-1)


def central_input_dim(config: CentralConfig, spec: EnvSpec) -> int:
    """D of `central_input`."""
    agents, last = spec.num_agents, spec.num_agents * inputs.action_dim(spec)
    world = spec.state_dim or agents * spec.obs_dim
    flags = (config.critic_obs, config.critic_last_actions, config.critic_agent_id)
    return world + sum(
        d for used, d in zip(flags, (spec.obs_dim, last, agents), strict=True) if used
    )


def central_actor_critic(
    name: str,
    config: CentralConfig,
    spec: EnvSpec,
    prepare: Prepare,
    loss: Loss,
    critic_dim: int = 1,
    more: int = 0,
) -> ActorCritic:
    """A learner whose critics read `central_input`, and `more` numbers if it feeds them itself."""
    return actor_critic(
        name, config, spec, prepare, loss, critic_dim,
        critic_input=partial(central_input, config, spec),
        critic_input_dim=central_input_dim(config, spec) + more,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------ what parts use


def previous_actions(segment: Segment, spec: EnvSpec) -> Array:
    """Encoded previous action of each step, zeros at the first of an episode: [T, B, N, A or U]."""
    encoded = inputs.encode(segment.action, spec)
    shifted = jnp.concatenate([segment.carry.previous[None], encoded[:-1]])
    return jnp.where(segment.first[..., None, None], 0.0, shifted)


def actor_stream(parts: ActorCritic, segment: Segment) -> Stream:
    """What the actors read at every step."""
    config, spec = parts.config, parts.spec
    x = inputs.build(
        segment.obs,
        previous_actions(segment, spec),
        spec,
        config.obs_last_action,
        config.obs_agent_id,
    )
    return Stream(x=x, keep=_keep(segment, spec) if config.recurrent else None)


def critic_stream(parts: ActorCritic, segment: Segment, after: bool) -> Stream:
    """What the critics read at every step, and with `after` at its true successor."""
    spec = parts.spec
    x = parts.critic_input(segment.obs, segment.state, previous_actions(segment, spec))
    later = None
    if after:
        later = parts.critic_input(
            segment.next_obs, segment.next_state, inputs.encode(segment.action, spec)
        )
    return Stream(
        x=x, keep=_keep(segment, spec) if parts.config.critic_recurrent else None, after=later
    )


def _keep(segment: Segment, spec: EnvSpec) -> Array:
    keep = 1.0 - segment.first.astype(jnp.float32)
    return jnp.broadcast_to(keep[..., None, None], (*keep.shape, spec.num_agents, 1))


def policies(parts: ActorCritic, params: dict[str, Any], segment: Segment) -> Any:
    """The policy of every agent at every step: a distribution of batch shape [T, B, N]."""
    _, read = parts.actor.unroll(params["actor"], segment.carry.actor, actor_stream(parts, segment))
    return distributions.policy(read.y, segment.avail, parts.spec)


def taken(segment: Segment) -> Array:
    """The action as the policy drew it: a continuous one before it was cut to its bounds. [T, B, N(, U)]"""
    return segment.extras.get("drawn", segment.action)


def values(
    parts: ActorCritic, params: Any, segment: Segment, after: bool = True
) -> tuple[Array, Array]:
    """Values of every step and of its true successor, [T, B, N] each (zeros without `after`). params: the critics'."""
    _, read = parts.critic.unroll(
        params, segment.carry.critic, critic_stream(parts, segment, after)
    )
    value = read.y[..., 0]
    return value, jnp.zeros_like(value) if read.after is None else read.after[..., 0]


def discounts(parts: ActorCritic, segment: Segment, ctx: Context) -> Array:
    """gamma * (1 - terminated), [T, B, N]."""
    discount = ctx.hparams["gamma"] * (1.0 - segment.terminated.astype(jnp.float32))
    return jnp.broadcast_to(discount[..., None], segment.reward.shape)


def over_agents(x: Array, segment: Segment) -> Array:
    """A field of steps for every agent: [T, B] -> [T, B, N]."""
    return jnp.broadcast_to(x[..., None], (*x.shape, segment.reward.shape[-1]))


def returns_of(parts: ActorCritic, segment: Segment, next_value: Array, ctx: Context) -> Array:
    """n-step returns along every agent's rewards, [T, B, N]."""
    n = parts.config.n_step or segment.mask.shape[0]
    end = over_agents(segment.end, segment)
    return returns.n_step(segment.reward, discounts(parts, segment, ctx), next_value, end, n)


def agent_means(parts: ActorCritic, x: Array, mask: Array) -> Array:
    """Mean over valid steps of each agent, then the sum or the mean over agents: [T, B, N], [T, B] -> []."""
    each = jnp.where(mask[..., None] > 0, x, 0.0).sum((0, 1)) / jnp.maximum(mask.sum(), 1.0)
    return each.sum() if parts.config.over_agents == "sum" else each.mean()


def prepare_own(
    parts: ActorCritic, learner: LearnerState, segment: Segment, ctx: Context, key: Array
) -> Targets:
    """Targets of every agent from its own rewards and its own critic (the target critic, if there is one)."""
    value, next_value = values(parts, learner.params["critic"], segment)
    if parts.config.target_update != "none":
        _, next_value = values(parts, learner.target_params["critic"], segment)
    if parts.config.returns == "gae":
        discount, end = discounts(parts, segment, ctx), over_agents(segment.end, segment)
        advantage = returns.gae(
            segment.reward, discount, value, next_value, end, ctx.hparams["gae_lambda"]
        )
        target = advantage + value
    else:
        target = returns_of(parts, segment, next_value, ctx)
        advantage = target - value
    if parts.config.standardise_advantage:
        mask = over_agents(segment.mask, segment)
        mean = masked_mean(advantage, mask)
        std = jnp.sqrt(masked_mean(jnp.square(advantage - mean), mask))
        advantage = (advantage - mean) / (std + 1e-8)
    log_prob = jnp.zeros_like(value)
    if parts.config.epochs * parts.config.minibatches > 1:
        log_prob = policies(parts, learner.params, segment).log_prob(taken(segment))
    return Targets(returns=target, advantage=advantage, log_prob=log_prob, value=value)


def a2c_loss(
    parts: ActorCritic,
    params: dict[str, Any],
    segment: Segment,
    targets: Targets,
    ctx: Context,
    key: Array,
) -> tuple[Array, Metrics]:
    """sum_i {-mean[sg(A_i) log pi_i(a_i)] + c_v mean[(R_i - V_i)^2] - c_e mean[H(pi_i)]} (Mnih et al. 2016, sec. 4.3).

    The lecture's slides leave the minus sign of the first term out.
    """
    policy = policies(parts, params, segment)
    value, _ = values(parts, params["critic"], segment, after=False)
    mean = partial(agent_means, parts, mask=segment.mask)
    actor = mean(-targets.advantage * policy.log_prob(taken(segment)))
    critic, entropy = mean(jnp.square(targets.returns - value)), mean(policy.entropy())
    loss = actor + ctx.hparams["value_coef"] * critic - ctx.hparams["entropy_coef"] * entropy
    return loss, report(parts, segment, targets, actor=actor, critic=critic, entropy=entropy)


def report(parts: ActorCritic, segment: Segment, targets: Targets, **losses: Array) -> Metrics:
    """The metrics that all losses of the family have."""
    mask = over_agents(segment.mask, segment)
    names = {"actor": "loss/actor", "critic": "loss/critic", "entropy": "policy/entropy"}
    scale = 1.0 / parts.spec.num_agents if parts.config.over_agents == "sum" else 1.0
    return {
        **{names[name]: value * scale for name, value in losses.items()},
        "value/mean": masked_mean(targets.value, mask),
        "value/target_mean": masked_mean(targets.returns, mask),
        "advantage/abs_mean": masked_mean(jnp.abs(targets.advantage), mask),
    }


# -------------------------------------------------------------------------------------------------------- assembly


def assemble(parts: ActorCritic) -> Algorithm:
    """Where the parts meet: parts -> Algorithm."""
    config = parts.config
    segments = config.rollout == "segments"
    return Algorithm(
        name=parts.name,
        spec=parts.spec,
        hparams={**swept_values(config.hparams), **parts.hparams},
        init=lambda key: _init(parts, key),
        initial_carry=lambda batch: _initial_carry(parts, batch),
        act=lambda *args: _act(parts, *args),
        sample=None,
        update=lambda *args: _update(parts, *args),
        inspect=lambda *args: _inspect(parts, *args),
        observe=observing(parts),
        before_update=preparing(parts),
        experience="segment" if segments else "episode",
        segment_length=config.segment_length if segments else 0,
        updates_per_batch=config.epochs * config.minibatches,
        minibatches=config.minibatches,
    )


def groups(parts: ActorCritic) -> dict[str, tuple[str, ...]]:
    """Optimiser groups: parameter names of each."""
    if parts.config.optimizers == "joint":
        return {"joint": ("actor", "critic", *parts.modules)}
    rest = {"modules": tuple(parts.modules)} if parts.modules else {}
    return {"actor": ("actor",), "critic": ("critic",), **rest}


def _init(parts: ActorCritic, key: Array) -> LearnerState:
    inits = {
        "actor": parts.actor.init,
        "critic": parts.critic.init,
        **{n: m.init for n, m in parts.modules.items()},
    }
    keys = jax.random.split(key, len(inits))
    params = {name: init(k) for (name, init), k in zip(inits.items(), keys, strict=True)}
    h = {name: jnp.float32(value) for name, value in swept_values(parts.config.hparams).items()}
    opt_state = {
        group: _per_set(parts, names, _optimizer(parts.config, group, h).init)(
            {n: params[n] for n in names}
        )
        for group, names in groups(parts).items()
    }
    target = {} if parts.config.target_update == "none" else {"critic": params["critic"]}
    return LearnerState(params=params, target_params=target, opt_state=opt_state, stats=parts.stats)


def _optimizer(
    config: ActorCriticConfig, group: str, h: dict[str, Array]
) -> optax.GradientTransformation:
    rate = "critic_lr" if group == "critic" else "lr"
    if getattr(config, "optimizer", "adam") == "rmsprop":
        return torch_rmsprop(h, rate)
    return optax.chain(
        optax.clip_by_global_norm(h["grad_clip"]),
        optax.scale_by_adam(eps=h["adam_eps"]),
        optax.scale_by_learning_rate(h[rate]),
    )


def _per_set(
    parts: ActorCritic, names: tuple[str, ...], fn: Callable[..., Any]
) -> Callable[..., Any]:
    """`fn` on each parameter set alone, if every network of the group has the same number of sets, more than one."""
    networks = {"actor": parts.actor, "critic": parts.critic}
    sets = {max(networks[name].groups) + 1 if name in networks else 1 for name in names}
    return jax.vmap(fn) if parts.config.clip == "set" and len(sets) == 1 and max(sets) > 1 else fn


def update_of(
    parts: ActorCritic, ctx: Context, group: str, names: tuple[str, ...]
) -> Callable[..., Any]:
    """(gradients, state) -> (updates, state) of an optimiser group."""
    return _per_set(parts, names, _optimizer(parts.config, group, ctx.hparams).update)


def _initial_carry(parts: ActorCritic, batch: int) -> Memory:
    previous = jnp.zeros((batch, parts.spec.num_agents, inputs.action_dim(parts.spec)))
    return Memory(
        actor=parts.actor.initial_carry(batch),
        critic=parts.critic.initial_carry(batch),
        previous=previous,
    )


def _act(
    parts: ActorCritic,
    params: dict[str, Any],
    carry: Memory,
    timestep: TimeStep,
    ctx: Context,
    key: Array,
    explore: bool,
) -> tuple[Memory, Array, dict[str, Array]]:
    config, spec = parts.config, parts.spec
    previous = carry.previous[None]
    x = inputs.build(
        timestep.obs[None], previous, spec, config.obs_last_action, config.obs_agent_id
    )
    hidden, read = parts.actor.unroll(params["actor"], carry.actor, Stream(x=x))
    y = parts.explore(read.y[0], timestep.avail, ctx) if explore and parts.explore else read.y[0]
    policy = distributions.policy(y, timestep.avail, spec)
    action = policy.sample(seed=key) if explore else policy.mode()
    critic = carry.critic
    if config.critic_recurrent and explore:  # its memory at the start of the next piece
        seen = parts.critic_input(timestep.obs[None], timestep.state[None], previous)
        critic, _ = parts.critic.unroll(params["critic"], critic, Stream(x=seen))
    extras = {}
    if isinstance(spec.action, Box):
        low, high = distributions.action_bounds(spec.action, action)
        extras, action = {"drawn": action}, jnp.clip(inputs.decode(action, spec.action), low, high)
    return Memory(actor=hidden, critic=critic, previous=inputs.encode(action, spec)), action, extras


def _update(
    parts: ActorCritic, learner: LearnerState, segment: Segment, ctx: Context, key: Array
) -> tuple[LearnerState, Metrics]:
    segment, learner = relabelled(parts, learner, segment, ctx)
    ctx = annealed(ctx, segment)
    prepare_key, order_key, step_key = jax.random.split(key, 3)
    targets = jax.lax.stop_gradient(parts.prepare(parts, learner, segment, ctx, prepare_key))
    count = parts.config.epochs * parts.config.minibatches
    if count == 1:
        learner, metrics = _step(parts, learner, segment, targets, ctx, step_key)
        return learner, jax.tree.map(lambda x: x[None], metrics)

    def step(carry: tuple[LearnerState, Clock], at: tuple[Array, Array]) -> Any:
        learner, clock = carry
        rows, i = at
        part = jax.tree.map(lambda x: x[:, rows], (segment.replace(carry=None), targets))  # type: ignore[attr-defined]
        memory = jax.tree.map(lambda x: x[rows], segment.carry)
        now = ctx.replace(clock=clock)  # type: ignore[attr-defined]
        own_key = jax.random.fold_in(step_key, i)
        learner, metrics = _step(
            parts, learner, part[0].replace(carry=memory), part[1], now, own_key
        )
        return (learner, clock._replace(updates=clock.updates + 1)), metrics

    rows = minibatches(
        order_key, segment.mask.shape[1], parts.config.epochs, parts.config.minibatches
    )
    (learner, _), metrics = jax.lax.scan(step, (learner, ctx.clock), (rows, jnp.arange(count)))
    return learner, metrics


def annealed(ctx: Context, segment: Segment) -> Context:
    """The context with the learning rates of this batch: a line from the first batch on, as in JaxMARL's PPO."""
    h, before = ctx.hparams, ctx.env_steps - segment.mask.sum().astype(jnp.int32)
    left = 1.0 - h["lr_anneal"] * jnp.clip(before / ctx.total_env_steps, 0.0, 1.0)
    rates = {name: h[name] * left for name in ("lr", "critic_lr")}
    return ctx.replace(hparams={**h, **rates})  # type: ignore[attr-defined]


def minibatches(key: Array, num_envs: int, epochs: int, minibatches: int) -> Array:
    """Streams of each optimiser step, a new order in every epoch: [epochs * minibatches, num_envs / minibatches] i32.

    Raises RefusedError if they cannot be cut evenly.
    """
    if num_envs % minibatches:
        raise RefusedError(
            f"algo.minibatches={minibatches} does not divide num_envs={num_envs}: whole streams are dealt out. Use a "
            "multiple of it."
        )
    orders = jax.vmap(lambda k: jax.random.permutation(k, num_envs))(jax.random.split(key, epochs))
    return orders.reshape(epochs * minibatches, num_envs // minibatches)


def _step(
    parts: ActorCritic,
    learner: LearnerState,
    segment: Segment,
    targets: Any,
    ctx: Context,
    key: Array,
) -> tuple[LearnerState, Metrics]:
    """One optimiser step."""
    loss_key, *keys = jax.random.split(key, 1 + len(parts.after_update))
    fitted: Metrics = {}
    if parts.fit:
        learner, targets, fitted = parts.fit(parts, learner, segment, targets, ctx)
    loss_fn = lambda params: parts.loss(parts, params, segment, targets, ctx, loss_key)  # noqa: E731
    grads, metrics = jax.grad(loss_fn, has_aux=True)(learner.params)
    rest = {
        group: names
        for group, names in groups(parts).items()
        if not (parts.fit and group == "critic")
    }
    learner, norms = optimised(partial(update_of, parts, ctx), rest, learner, grads)
    metrics = {**metrics, **norms, **fitted}
    for hook, own_key in zip(parts.after_update, keys, strict=True):
        learner, more = hook(learner, segment, ctx, own_key)
        metrics = {**metrics, **more}
    return parts.follow(learner) if parts.follow else followed(learner, parts.config, ctx), metrics


def _inspect(
    parts: ActorCritic, learner: LearnerState, episode: Episode, ctx: Context
) -> dict[str, Array]:
    from jaxshare.rollout import as_segment

    segment = as_segment(episode, _initial_carry(parts, episode.mask.shape[1]))
    if parts.value:
        found = {"value": parts.value(parts, learner, segment)}
    else:
        found = {"value": values(parts, learner.params["critic"], segment, after=False)[0]}
    for part in parts.inspect:
        found.update(part(parts, learner, segment, ctx))
    return found

"""The value family: one record of parts, and the only place where they meet.

An algorithm of this family (iql, vdn, qmix, ...) is a `ValueLearner`; a modifier (differ, pps, ...) is a function from
a `ValueLearner` to a `ValueLearner` that replaces or extends parts; `assemble` makes the `Algorithm`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxshare.algos._parts import (
    agents_modules,
    claimed,
    clip_each,
    extended,
    followed,
    observing,
    optimised,
    preparing,
    relabelled,
    team_reward,
    torch_rmsprop,
)
from jaxshare.models import inputs
from jaxshare.models.agents import AgentNetwork, q_network
from jaxshare.models.base import sharing_groups
from jaxshare.models.mixers import Mixer, MixerInputs
from jaxshare.ops import td
from jaxshare.ops.masking import (
    masked_argmax,
    masked_max,
    masked_mean,
    masked_mean_square,
    take_last,
)
from jaxshare.ops.policy import epsilon_greedy
from jaxshare.ops.schedules import exploration_rate
from jaxshare.replay import uniform_without_replacement
from jaxshare.settings.fields import default, flag, nested, swept_values
from jaxshare.settings.shared import (
    PYMARL,
    SWEPT,
    Adam,
    Agents,
    Averaging,
    Epsilon,
    Learning,
    Optimizer,
    RMSprop,
    TargetNetworks,
)
from jaxshare.settings.validate import check_record
from jaxshare.types import (
    Algorithm,
    Array,
    Clock,
    Context,
    Discrete,
    EnvSpec,
    Episode,
    LearnerState,
    Metrics,
    RefusedError,
    TimeStep,
)

DIFFER = "paper: DIFFER appendix B; code: PyMARL's default.yaml"


@dataclass(frozen=True)
class ValueHParams(Averaging, Adam, RMSprop, Epsilon, Learning):
    """Swept scalars of the value family. paper: DIFFER appendix B; code: PyMARL's default.yaml."""

    lr: float = default(5e-4, DIFFER)
    gamma: float = default(0.99, DIFFER)
    epsilon_start: float = default(1.0, DIFFER)
    epsilon_end: float = default(0.05, DIFFER)
    epsilon_anneal_steps: float = default(50_000.0, DIFFER)


@dataclass(frozen=True)
class ValueConfig(Optimizer, TargetNetworks, Agents):
    """Static settings of the value family."""

    hidden_dim: int = default(64, DIFFER)
    double_q: bool = flag(True, help="the online networks choose the next actions", source=PYMARL)
    hparams: ValueHParams = nested(ValueHParams, help=SWEPT)

    def __post_init__(self) -> None:
        check_record(self, "algo.")


@struct.dataclass
class Values:
    """What a loss may look at. `mix` maps taken utilities [T, B, N] to q_tot [T, B] with the online mixer."""

    q: Array  # [T+1, B, N, A] online utilities
    q_taken: Array  # [T, B, N]
    next_q: Array  # [T, B, N] target utilities of the next greedy actions
    q_tot: Array  # [T, B]; zeros where there is no mixer
    next_q_tot: Array  # [T, B]
    discount: Array  # [T, B] gamma * (1 - end)
    team_reward: Array  # [T, B]
    params: dict[str, Any]  # online
    mix: Callable[[Array], Array] = struct.field(pytree_node=False)
    target_q: Array | None = None  # [T+1, B, N, A] utilities of the target networks
    target_params: dict[str, Any] = struct.field(default_factory=dict)
    features: Array | None = (
        None  # [T+1, B, N, E] what the agent network gives besides utilities; E = 0 as a rule
    )
    extras: dict[str, Array] = struct.field(
        default_factory=dict
    )  # what a `shaping` leaves for the losses


@struct.dataclass
class Utilities:
    """What the agents' networks say about a batch. Fields that `Values` has too mean the same there."""

    q: Array  # [T+1, B, N, A]; [T+1, B, N, 0] for continuous actions
    q_taken: Array  # [T, B, N]
    next_q: Array  # [T, B, N]
    target_q: Array  # [T+1, B, N, A]; [T+1, B, N, 0] for continuous actions
    features: Array  # [T+1, B, N, E]
    q_max: Array  # [T, B, N] best available online utility, a constant
    next_q_max: Array  # [T, B, N] best available target utility of the next slot
    next_action: Array  # [T, B, N(, U)] next greedy actions, whose utilities are next_q


LossFn = Callable[[Values, Episode, Context, Array], tuple[Array, Metrics]]


def greedy_choice(
    parts: ValueLearner,
    params: dict[str, Any],
    hidden: Array,
    x: Array,
    timestep: TimeStep,
    ctx: Context,
    key: Array,
    explore: bool,
) -> tuple[Array, Array]:
    """Discrete actions: epsilon-greedy on the utilities of all. x [1, B, N, D] -> (hidden, action [B, N])."""
    hidden, q = parts.agent.unroll(params["agent"], hidden, x)
    q, _ = _split(parts, q)
    epsilon = exploration_rate(ctx.hparams, ctx.env_steps, ctx.total_env_steps)
    return hidden, epsilon_greedy(
        key, q[0], timestep.avail, epsilon if explore else jnp.float32(0.0)
    )


def all_utilities(
    parts: ValueLearner,
    params: dict[str, Any],
    target: dict[str, Any],
    x: Array,
    batch: Episode,
    key: Array | None,
) -> Utilities:
    """Discrete actions: one unroll gives the utilities of all, x [T+1, B, N, D]."""
    start = parts.agent.initial_carry(x.shape[1])
    x, target_x = _twice(parts, x, key)
    q, features = _split(parts, parts.agent.unroll(params["agent"], start, x)[1])
    # code: the target network is unrolled from t = 0 as well; starting it at t = 1 gives it another history
    target_q, _ = _split(
        parts, jax.lax.stop_gradient(parts.agent.unroll(target["agent"], start, target_x)[1])
    )
    frozen_q = jax.lax.stop_gradient(q)
    return Utilities(
        q=q,
        q_taken=take_last(q[:-1], batch.action),
        next_q=td.next_q(frozen_q, target_q, batch.avail, parts.config.double_q),
        target_q=target_q,
        features=features,
        q_max=masked_max(frozen_q[:-1], batch.avail[:-1]),
        next_q_max=masked_max(target_q[1:], batch.avail[1:]),
        next_action=masked_argmax(
            (frozen_q if parts.config.double_q else target_q)[1:], batch.avail[1:]
        ),
    )


@dataclass(frozen=True)
class ValueLearner:
    """The parts of a value-based learner.

    Single-owner parts (`loss`, `groups`) may be claimed by one modifier only; additive parts are tuples and compose.

    choose, evaluate: all that depends on the kind of actions, with the signatures of `greedy_choice` and
    `all_utilities`, which are for discrete ones (the other pair is in comix.py);
    agent: `unroll` may give columns after the A utilities, `Values.features`; noise_dim: so many standard normals are
    appended to each of its inputs (zeros where somebody only looks, see `inspect`);
    shaping: (Values, Episode, ctx) -> Values before any loss, such as a reward added to `team_reward`;
    modules: further trainables by parameter name; stats: running statistics by name, with their first values;
    sample: as in `Algorithm`; relabel: (batch, stats, ctx) -> (batch, stats);
    loss, aux: (Values, Episode, ctx, key) -> (scalar, metrics); groups: optimiser group -> parameter names (each with
    its own optimiser state and clip; modules that no group names are a group of their own);
    after_update: (learner, batch, ctx, key) -> (learner, metrics);
    observe: (stats, Episode just collected, clock) -> stats;
    before_update: (learner, play, ctx, key) -> learner, see `Algorithm`;
    inspect: (Values, Episode, ctx) -> {name: [T, B, N]}.
    """

    name: str
    config: ValueConfig
    spec: EnvSpec
    agent: AgentNetwork
    mixer: Mixer | None
    loss: LossFn
    choose: Callable[..., tuple[Array, Array]] = greedy_choice
    evaluate: Callable[..., Utilities] = all_utilities
    modules: dict[str, Any] = field(
        default_factory=dict
    )  # Network, or what agents have, such as an AgentNetwork
    stats: dict[str, Any] = field(default_factory=dict)
    sample: Callable[[Array, Array, int, int, Context], Array] = uniform_without_replacement
    relabel: tuple[Callable[..., tuple[Episode, dict[str, Any]]], ...] = ()
    noise_dim: int = 0
    shaping: tuple[Callable[[Values, Episode, Context], Values], ...] = ()
    aux: tuple[LossFn, ...] = ()
    groups: dict[str, tuple[str, ...]] | None = None  # None: one group of everything
    after_update: tuple[Callable[..., tuple[LearnerState, Metrics]], ...] = ()
    observe: tuple[Callable[[dict[str, Any], Episode, Clock], dict[str, Any]], ...] = ()
    before_update: tuple[Callable[..., LearnerState], ...] = ()
    inspect: tuple[Callable[..., dict[str, Array]], ...] = ()
    hparams: dict[str, float] = field(default_factory=dict)  # of the modifiers, as "differ.alpha"
    owners: dict[str, str] = field(default_factory=dict)
    yields: tuple[
        str, ...
    ] = ()  # parts of its own that a modifier may replace all the same: ("loss",)

    @property
    def networks(self) -> dict[str, AgentNetwork]:
        """The agents' networks, by their names among the parts and the parameters."""
        return {"agent": self.agent, **agents_modules(self.modules)}

    def claim(self, owner: str, wraps: tuple[str, ...] = (), **parts: Any) -> ValueLearner:
        """Replace single-owner parts. Raises RefusedError naming both owners if one is taken.

        wraps: names of those that the new ones keep within them.
        """
        return claimed(self, owner, (team_td_loss, individual_td_loss), wraps, **parts)

    def extend(self, **parts: Any) -> ValueLearner:
        """Add to additive parts: an entry to those that are tuples, entries to those that are dicts (`modules`, …)."""
        return extended(self, **parts)

    def assemble(self) -> Algorithm:
        """The finished algorithm."""
        return assemble(self)


def value_learner(
    name: str, config: ValueConfig, spec: EnvSpec, mixer: Mixer | None, loss: LossFn
) -> ValueLearner:
    """A learner with the family's agent network. Raises RefusedError for continuous actions."""
    if not isinstance(spec.action, Discrete):
        raise RefusedError(
            f"algo={name} needs discrete actions; env={spec.name} has continuous ones (use algo=comix)."
        )
    agent = q_network(
        input_dim=inputs.input_dim(spec, config.obs_last_action, config.obs_agent_id),
        num_actions=spec.action.num_actions,
        hidden_dim=config.hidden_dim,
        recurrent=config.recurrent,
        groups=sharing_groups(config.share_params, spec.groups),
    )
    return ValueLearner(name=name, config=config, spec=spec, agent=agent, mixer=mixer, loss=loss)


# ---------------------------------------------------------------------------------------------------------- losses


def team_td_loss(values: Values, batch: Episode, ctx: Context, key: Array) -> tuple[Array, Metrics]:
    """sum m delta^2 / sum m with delta = R + discount * Q_tot' - Q_tot (Rashid et al. 2018, eq. 6, as a mean)."""
    delta = td.td_error(values.team_reward, values.discount, values.next_q_tot, values.q_tot)
    loss = masked_mean_square(delta, batch.mask)
    return loss, {
        "loss/td": loss,
        "td_error/abs_mean": masked_mean(jnp.abs(delta), batch.mask),
        "q/tot_mean": masked_mean(values.q_tot, batch.mask),
        "q/target_mean": masked_mean(
            values.team_reward + values.discount * values.next_q_tot, batch.mask
        ),
    }


def individual_td_loss(
    values: Values, batch: Episode, ctx: Context, key: Array
) -> tuple[Array, Metrics]:
    """sum m (Q_i - y_i)^2 / (N sum m): every agent alone, on its own reward (the team's, if rewards are common)."""
    shape = values.q_taken.shape
    discount = jnp.broadcast_to(values.discount[..., None], shape)
    mask = jnp.broadcast_to(batch.mask[..., None], shape)
    delta = td.td_error(batch.reward, discount, values.next_q, values.q_taken)
    loss = masked_mean_square(delta, mask)
    return loss, {
        "loss/td": loss,
        "td_error/abs_mean": masked_mean(jnp.abs(delta), mask),
        "q/target_mean": masked_mean(batch.reward + discount * values.next_q, mask),
    }


# -------------------------------------------------------------------------------------------------------- assembly


def assemble(parts: ValueLearner) -> Algorithm:
    """Where the parts meet: parts -> Algorithm."""
    modules = _modules(parts)
    groups = _groups(parts, modules)
    return Algorithm(
        name=parts.name,
        spec=parts.spec,
        hparams={**swept_values(parts.config.hparams), **parts.hparams},
        init=lambda key: _init(parts, modules, groups, key),
        initial_carry=lambda batch: _initial_carry(parts, batch),
        act=lambda *args: _act(parts, *args),
        sample=parts.sample,
        update=lambda *args: _update(parts, groups, *args),
        inspect=lambda *args: _inspect(parts, *args),
        observe=observing(parts),
        before_update=preparing(parts),
    )


def _modules(parts: ValueLearner) -> dict[str, Callable[[Array], Any]]:
    inits: dict[str, Callable[[Array], Any]] = {"agent": parts.agent.init}
    if parts.mixer is not None:
        inits["mixer"] = parts.mixer.init
    return {**inits, **{name: network.init for name, network in parts.modules.items()}}


def _groups(parts: ValueLearner, modules: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    if parts.groups is None:
        return {"joint": tuple(modules)}
    listed = [name for names in parts.groups.values() for name in names]
    if len(listed) != len(set(listed)) or not set(listed) <= set(modules):
        raise ValueError(
            f"{parts.name}: optimiser groups {parts.groups} must name each of {sorted(modules)} once"
        )
    rest = tuple(name for name in modules if name not in listed)
    return {**parts.groups, "modules": rest} if rest else parts.groups


def _init(
    parts: ValueLearner, modules: dict[str, Any], groups: dict[str, tuple[str, ...]], key: Array
) -> LearnerState:
    keys = jax.random.split(key, len(modules))
    params = {name: init(k) for (name, init), k in zip(modules.items(), keys, strict=True)}
    hparams = {
        name: jnp.float32(value) for name, value in swept_values(parts.config.hparams).items()
    }
    optimizer = _optimizer(parts.config, hparams, _clip(parts, hparams))
    opt_state = {
        group: optimizer.init({n: params[n] for n in names}) for group, names in groups.items()
    }
    return LearnerState(params=params, target_params=params, opt_state=opt_state, stats=parts.stats)


def _clip(parts: ValueLearner, h: dict[str, Array]) -> optax.GradientTransformation:
    if getattr(parts.config, "clip", "all") == "all":
        return optax.clip_by_global_norm(h["grad_clip"])
    # the loss is the mean over agents, and the limit is of the loss of each
    return clip_each(h["grad_clip"] / parts.spec.num_agents, {"agent": parts.agent.groups})


def _optimizer(
    config: ValueConfig, h: dict[str, Array], clip: optax.GradientTransformation | None = None
) -> optax.GradientTransformation:
    if config.optimizer == "rmsprop":
        return torch_rmsprop(h, clip=clip)
    scale, clip = (
        optax.scale_by_adam(eps=h["adam_eps"]),
        clip or optax.clip_by_global_norm(h["grad_clip"]),
    )
    return optax.chain(clip, scale, optax.scale_by_learning_rate(h["lr"]))


def _initial_carry(parts: ValueLearner, batch: int) -> tuple[Array, Array]:
    previous = jnp.zeros((batch, parts.spec.num_agents, inputs.action_dim(parts.spec)))
    return parts.agent.initial_carry(batch), previous


def _act(
    parts: ValueLearner,
    params: dict[str, Any],
    carry: tuple[Array, Array],
    timestep: TimeStep,
    ctx: Context,
    key: Array,
    explore: bool,
) -> tuple[tuple[Array, Array], Array, dict[str, Array]]:
    config, spec = parts.config, parts.spec
    hidden, previous = carry
    x = inputs.build(
        timestep.obs[None], previous[None], spec, config.obs_last_action, config.obs_agent_id
    )
    if parts.noise_dim:
        x = _with_noise(
            parts, x, jax.random.fold_in(key, 2)
        )  # splitting a key in two folds in 0 and 1
    hidden, action = parts.choose(parts, params, hidden, x, timestep, ctx, key, explore)
    return (hidden, inputs.encode(action, spec)), action, {}


def _with_noise(parts: ValueLearner, x: Array, key: Array | None) -> Array:
    """x [T, B, N, D] and `noise_dim` standard normals, or zeros without a key."""
    shape = (*x.shape[1:-1], parts.noise_dim)
    if key is None:
        return jnp.concatenate([x, jnp.zeros((x.shape[0], *shape), x.dtype)], axis=-1)
    keys = jax.vmap(lambda t: jax.random.fold_in(key, t))(
        jnp.arange(x.shape[0])
    )  # cropping a batch keeps its draws
    return jnp.concatenate(
        [x, jax.vmap(lambda k: jax.random.normal(k, shape, x.dtype))(keys)], axis=-1
    )


def _twice(parts: ValueLearner, x: Array, key: Array | None) -> tuple[Array, Array]:
    """The inputs of the online and of the target network: the same, but for their noise."""
    if not parts.noise_dim:
        return x, x
    keys = (None, None) if key is None else jax.random.split(key)
    return _with_noise(parts, x, keys[0]), _with_noise(parts, x, keys[1])


def _split(parts: ValueLearner, y: Array) -> tuple[Array, Array]:
    """What an agent network gives, as utilities [..., A] and features [..., E]."""
    actions = (
        parts.spec.action.num_actions if isinstance(parts.spec.action, Discrete) else y.shape[-1]
    )
    return y[..., :actions], y[..., actions:]


def _values(
    parts: ValueLearner,
    params: dict[str, Any],
    target: dict[str, Any],
    batch: Episode,
    ctx: Context,
    key: Array | None = None,
) -> Values:
    config, spec = parts.config, parts.spec
    previous = inputs.last_actions(batch.action, spec, batch.mask)
    x = inputs.build(batch.obs, previous, spec, config.obs_last_action, config.obs_agent_id)
    seen = parts.evaluate(parts, params, target, x, batch, key)
    mix, q_tot, next_q_tot = _no_mix, jnp.zeros(batch.mask.shape), jnp.zeros(batch.mask.shape)
    if parts.mixer is not None:
        mixer = parts.mixer
        now = MixerInputs(seen.q_max, batch.action, batch.state[:-1])
        later = MixerInputs(seen.next_q_max, seen.next_action, batch.state[1:])
        mix = lambda taken: mixer.apply(params["mixer"], taken, now)  # noqa: E731
        q_tot = mix(seen.q_taken)
        next_q_tot = jax.lax.stop_gradient(mixer.apply(target["mixer"], seen.next_q, later))
    values = Values(
        q=seen.q,
        q_taken=seen.q_taken,
        next_q=seen.next_q,
        q_tot=q_tot,
        next_q_tot=next_q_tot,
        discount=td.discounts(
            ctx.hparams["gamma"], batch.terminated, batch.truncated, config.bootstrap_on_timeout
        ),
        team_reward=team_reward(spec, batch),
        params=params,
        mix=mix,
        target_q=seen.target_q,
        target_params=target,
        features=seen.features,
    )
    for shaping in parts.shaping:
        values = shaping(values, batch, ctx)
    return values


def _no_mix(taken: Array) -> Array:
    raise RefusedError("this learner has no mixer")


def _update(
    parts: ValueLearner,
    groups: dict[str, tuple[str, ...]],
    learner: LearnerState,
    batch: Episode,
    ctx: Context,
    key: Array,
) -> tuple[LearnerState, Metrics]:
    batch, learner = relabelled(parts, learner, batch, ctx)
    keys = (jax.random.fold_in(key, i) for i in itertools.count())
    loss_key, aux_keys = next(keys), [next(keys) for _ in parts.aux]
    values_key = jax.random.fold_in(key, 2**32 - 1)  # of noise and searches; no count reaches it

    def loss_fn(params: dict[str, Any]) -> tuple[Array, Metrics]:
        values = _values(parts, params, learner.target_params, batch, ctx, values_key)
        loss, metrics = parts.loss(values, batch, ctx, loss_key)
        metrics = {**metrics, "q/taken_mean": _agent_mean(values.q_taken, batch.mask)}
        for aux, aux_key in zip(parts.aux, aux_keys, strict=True):
            extra, more = aux(values, batch, ctx, aux_key)
            loss, metrics = loss + extra, {**metrics, **more}
        return loss, metrics

    grads, metrics = jax.grad(loss_fn, has_aux=True)(learner.params)
    optimizer = _optimizer(parts.config, ctx.hparams, _clip(parts, ctx.hparams))
    learner, norms = optimised(lambda *group: optimizer.update, groups, learner, grads)
    metrics = {**metrics, **norms}
    for hook in parts.after_update:
        learner, more = hook(learner, batch, ctx, next(keys))
        metrics = {**metrics, **more}
    return followed(learner, parts.config, ctx), metrics


def _agent_mean(x: Array, mask: Array) -> Array:
    return masked_mean(x, jnp.broadcast_to(mask[..., None], x.shape))


def _inspect(
    parts: ValueLearner, learner: LearnerState, batch: Episode, ctx: Context
) -> dict[str, Array]:
    values = _values(parts, learner.params, learner.target_params, batch, ctx)
    found = {"q_taken": values.q_taken}
    for part in parts.inspect:
        found.update(part(values, batch, ctx))
    return found

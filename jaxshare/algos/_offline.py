"""The family of offline learners: one record of parts, and the only place where they meet.

An algorithm of this family (bc, mabcq, macql, icq) learns from whole episodes of a data set and never plays to learn.
It is an `OfflineLearner`: networks of the agents and other modules, and the steps of an update in their order, each a
loss and the optimiser group that it changes. All else of the learner is constant in that loss; what earlier steps have
changed is already new.

Where data have no true successor of a truncated step, the mask of that step is 0, and no target looks past it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxshare.algos._parts import (
    agents_modules,
    claimed,
    extended,
    followed,
    observing,
    preparing,
    relabelled,
    team_reward,
    torch_rmsprop,
)
from jaxshare.models import inputs
from jaxshare.models.agents import AgentNetwork, q_network
from jaxshare.models.base import sharing_groups
from jaxshare.ops import offline, returns, td
from jaxshare.ops.masking import masked_argmax, masked_mean, take_last
from jaxshare.replay import uniform_without_replacement
from jaxshare.settings.fields import default, nested, swept_values
from jaxshare.settings.shared import SWEPT, Agents, Learning, MixerWidth, RMSprop, TargetPeriod
from jaxshare.settings.validate import check_record
from jaxshare.types import (
    Algorithm,
    Array,
    Box,
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

SIT = "paper: SIT Table 11"


@dataclass(frozen=True)
class OfflineHParams(RMSprop, Learning):
    """Swept scalars. paper: SIT (Tian et al. 2023), Table 11."""

    lr: float = default(5e-4, SIT)
    gamma: float = default(0.99, SIT)
    grad_clip: float = default(10.0, SIT)
    rms_decay: float = default(0.99, "code: PyMARL; paper: SIT names RMSprop only")


@dataclass(frozen=True)
class OfflineConfig(Agents):
    """Static settings. paper: SIT (Tian et al. 2023), Table 11."""

    hidden_dim: int = default(64, SIT)
    share_params: str = default("all", "code: ICQ")
    obs_last_action: bool = default(True, "code: PyMARL, ICQ")
    obs_agent_id: bool = default(True, "code: PyMARL, ICQ")
    hparams: OfflineHParams = nested(OfflineHParams, help=SWEPT)

    def __post_init__(self) -> None:
        check_record(self, "algo.")


@dataclass(frozen=True)
class TeamConfig(TargetPeriod, MixerWidth, OfflineConfig):
    """What learners of a team's value add: a mixer and target networks."""

    embed_dim: int = default(32, "paper: SIT Table 11; code: ICQ")
    target_update_period: int = default(100, SIT)


Params = dict[str, Any]
LossFn = Callable[
    ..., tuple[Array, Metrics]
]  # of (OfflineLearner, Params, Params, Episode, Context)


@dataclass(frozen=True)
class Step:
    """One optimiser step of an update.

    loss: (parts, params, target params, Episode, ctx) -> (scalar, metrics); changes: names of what it trains;
    draws: the loss takes a key as well, as `key=`; rate: which hyper-parameter is its learning rate;
    due: ctx -> [] bool, from the un-batched clock; None: in every update. Metrics are zeros where it is not.
    """

    loss: LossFn
    changes: tuple[str, ...]
    rate: str = "lr"
    draws: bool = False
    due: Callable[[Context], Array] | None = None


Choose = Callable[[dict[str, Array], Array, Context, Array, bool], Array]


@dataclass(frozen=True)
class OfflineLearner:
    """The parts of an offline learner.

    agent, actor, critic, behaviour: the agents' networks, those that there are. What the agents act by, and what
    `unrolled` is called for, reads observation, own last action and index;
    modules: further trainables, such as the mixer: anything with `init`;
    steps: of an update, by the name of their optimiser group, in order;
    slow: names of what has target parameters, copied every `target_update_period` updates;
    acting: which networks the agents act by; choose: (what they say [B, N, A] by name, avail [B, N, A], ctx, key,
    explore) -> action [B, N] or [B, N, U];
    relabel: (batch, stats, ctx) -> (batch, stats); stats: running statistics by name, with their first values;
    after_update, observe, before_update: as in `ValueLearner`; inspect: (parts, learner, Episode, ctx) ->
    {name: [T, B, N]}.
    """

    name: str
    config: Any  # OfflineConfig, or one with more settings; TeamConfig where something is slow
    spec: EnvSpec
    steps: dict[str, Step]
    acting: tuple[str, ...]
    choose: Choose
    agent: AgentNetwork | None = None  # utilities
    actor: AgentNetwork | None = None  # logits of a policy, or numbers whose tanh is its mean
    critic: AgentNetwork | None = None
    behaviour: AgentNetwork | None = None  # logits of what the data do
    modules: dict[str, Any] = field(default_factory=dict)
    slow: tuple[str, ...] = ()
    stats: dict[str, Any] = field(default_factory=dict)
    sample: Callable[[Array, Array, int, int, Context], Array] = uniform_without_replacement
    relabel: tuple[Callable[..., tuple[Episode, dict[str, Any]]], ...] = ()
    after_update: tuple[Callable[..., tuple[LearnerState, Metrics]], ...] = ()
    observe: tuple[Callable[[dict[str, Any], Episode, Clock], dict[str, Any]], ...] = ()
    before_update: tuple[Callable[..., LearnerState], ...] = ()
    inspect: tuple[Callable[..., dict[str, Array]], ...] = ()
    hparams: dict[str, float] = field(default_factory=dict)  # of the modifiers
    owners: dict[str, str] = field(default_factory=dict)

    @property
    def networks(self) -> dict[str, AgentNetwork]:
        """The agents' networks, by their names among the parts and the parameters."""
        known = {
            "agent": self.agent,
            "actor": self.actor,
            "critic": self.critic,
            "behaviour": self.behaviour,
        }
        used = {name: network for name, network in known.items() if network is not None}
        return {**used, **agents_modules(self.modules)}

    def claim(self, owner: str, **parts: Any) -> OfflineLearner:
        """Replace single-owner parts. Raises RefusedError naming both owners if one is taken."""
        return claimed(self, owner, (), **parts)

    def extend(self, **parts: Any) -> OfflineLearner:
        """Add to additive parts: an entry to those that are tuples, entries to those that are dicts (`stats`, …)."""
        return extended(self, **parts)

    def assemble(self) -> Algorithm:
        """The finished algorithm."""
        return assemble(self)


def agent_network(name: str, config: OfflineConfig, spec: EnvSpec) -> AgentNetwork:
    """The family's network of A numbers per agent. Raises RefusedError for continuous actions."""
    if not isinstance(spec.action, Discrete):
        raise RefusedError(
            f"algo={name} needs discrete actions; env={spec.name} has continuous ones. Use algo=facmac with "
            "modifiers=[cql], which learns from a data set too."
        )
    return policy_network(name, config, spec)


def policy_network(name: str, config: OfflineConfig, spec: EnvSpec) -> AgentNetwork:
    """The same, or U numbers per agent. Raises RefusedError for continuous actions without finite bounds."""
    box = spec.action
    if isinstance(box, Box) and not all(
        -math.inf < low < high < math.inf for low, high in zip(box.low, box.high, strict=True)
    ):
        raise RefusedError(
            f"algo={name} needs actions between finite bounds, low < high; env={spec.name} has {box}."
        )
    return q_network(
        input_dim=inputs.input_dim(spec, config.obs_last_action, config.obs_agent_id),
        num_actions=inputs.action_dim(spec),
        hidden_dim=config.hidden_dim,
        recurrent=config.recurrent,
        groups=sharing_groups(config.share_params, spec.groups),
    )


# ------------------------------------------------------------------------------------------------------ what parts use


def unrolled(parts: OfflineLearner, name: str, params: Params, batch: Episode) -> Array:
    """What a network of the agents says in every slot, [T+1, B, N, A]."""
    config, spec, network = parts.config, parts.spec, parts.networks[name]
    x = inputs.build(
        batch.obs,
        inputs.last_actions(batch.action, spec),
        spec,
        config.obs_last_action,
        config.obs_agent_id,
    )
    return network.unroll(params[name], network.initial_carry(x.shape[1]), x)[1]


def per_agent(parts: OfflineLearner, x: Array) -> Array:
    """[T, B] for every agent, [T, B, N]."""
    return jnp.broadcast_to(x[..., None], (*x.shape, parts.spec.num_agents))


def discounts(batch: Episode, ctx: Context) -> Array:
    """gamma * (1 - terminated), [T, B]: what is truncated goes on."""
    return td.discounts(
        ctx.hparams["gamma"], batch.terminated, batch.truncated, bootstrap_on_timeout=True
    )


def lambda_target(parts: OfflineLearner, next_value: Array, batch: Episode, ctx: Context) -> Array:
    """TD(lambda) targets of the team, [T, B]: next_value [T, B] of the true successor of each step; a constant.

    A step whose own successor is not in the data (mask 0, not after the end) is no part of the sum before it.
    """
    follows = jnp.concatenate([batch.mask[1:], jnp.ones_like(batch.mask[:1])]) > 0
    end = batch.terminated | batch.truncated | ~follows
    target = returns.td_lambda(
        team_reward(parts.spec, batch),
        discounts(batch, ctx),
        next_value,
        end,
        ctx.hparams["td_lambda"],
    )
    return jax.lax.stop_gradient(target)


def one_step_target(
    parts: OfflineLearner, next_value: Array, batch: Episode, ctx: Context
) -> Array:
    """R + discount * v' of the team, [T, B]; a constant."""
    return jax.lax.stop_gradient(
        team_reward(parts.spec, batch) + discounts(batch, ctx) * next_value
    )


def log_probability(
    parts: OfflineLearner, y: Array, batch: Episode, std: Array | None = None
) -> Array:
    """log pi_i(a_i | tau_i) of the data's actions, [T, B, N], from what the actors say, y [T, B, N, A or U].

    Discrete: softmax over available actions. Continuous: a Gaussian around tanh y with a fixed deviation, std [].
    """
    if isinstance(parts.spec.action, Discrete):
        return take_last(offline.log_policy(y, batch.avail[:-1]), batch.action)
    assert std is not None
    return offline.log_density(inputs.encode(batch.action, parts.spec), jnp.tanh(y), std)


def cloning_loss(
    parts: OfflineLearner, name: str, params: Params, batch: Episode, std: Array | None = None
) -> tuple[Array, Array]:
    """-mean log pi_i(a_i | tau_i) over valid steps and agents, and what the network says, [T, B, N, A or U]."""
    y = unrolled(parts, name, params, batch)[:-1]
    return -masked_mean(log_probability(parts, y, batch, std), per_agent(parts, batch.mask)), y


def td_metrics(
    parts: OfflineLearner, target: Array, q_tot: Array, q_taken: Array, batch: Episode
) -> Metrics:
    """The metrics of a team's value: target and q_tot [T, B], q_taken [T, B, N]."""
    return {
        "td_error/abs_mean": masked_mean(jnp.abs(target - q_tot), batch.mask),
        "q/tot_mean": masked_mean(q_tot, batch.mask),
        "q/target_mean": masked_mean(target, batch.mask),
        "q/taken_mean": masked_mean(q_taken, per_agent(parts, batch.mask)),
    }


def utilities(
    parts: OfflineLearner, learner: LearnerState, batch: Episode, ctx: Context
) -> dict[str, Array]:
    """Of the actions taken, for people to look at: `agent`'s, [T, B, N]."""
    return {
        "q_taken": take_last(unrolled(parts, "agent", learner.params, batch)[:-1], batch.action)
    }


def best(said: dict[str, Array], avail: Array, ctx: Context, key: Array, explore: bool) -> Array:
    """The action of the highest value, also where others would explore: `agent` [B, N, A] -> [B, N]."""
    return masked_argmax(said["agent"], avail)


def likeliest(
    said: dict[str, Array], avail: Array, ctx: Context, key: Array, explore: bool
) -> Array:
    """The likeliest action, or one drawn from the policy to explore: `actor` [B, N, A] -> [B, N]."""
    log_pi = offline.log_policy(said["actor"], avail)
    return jax.random.categorical(key, log_pi, axis=-1) if explore else masked_argmax(log_pi, avail)


def from_policy(spec: EnvSpec) -> Choose:
    """`likeliest`, or of continuous actions the mean of the policy, with its noise to explore: [B, N, U] in the box."""
    box = spec.action
    if isinstance(box, Discrete):
        return likeliest

    def choose(
        said: dict[str, Array], avail: Array, ctx: Context, key: Array, explore: bool
    ) -> Array:
        mean = jnp.tanh(said["actor"])
        return inputs.decode(
            offline.noisy(key, mean, ctx.hparams["action_std"]) if explore else mean, box
        )

    return choose


# ------------------------------------------------------------------------------------------------------------ assembly


def assemble(parts: OfflineLearner) -> Algorithm:
    """Where the parts meet: parts -> Algorithm."""
    return Algorithm(
        name=parts.name,
        spec=parts.spec,
        hparams={**swept_values(parts.config.hparams), **parts.hparams},
        init=lambda key: _init(parts, key),
        initial_carry=lambda batch: _initial_carry(parts, batch),
        act=lambda *args: _act(parts, *args),
        sample=parts.sample,
        update=lambda *args: _update(parts, *args),
        inspect=lambda *args: _inspect(parts, *args),
        observe=observing(parts),
        before_update=preparing(parts),
        experience="dataset",
    )


def _init(parts: OfflineLearner, key: Array) -> LearnerState:
    trained = {**parts.networks, **parts.modules}
    keys = jax.random.split(key, len(trained))
    params = {name: one.init(k) for (name, one), k in zip(trained.items(), keys, strict=True)}
    h = {name: jnp.float32(value) for name, value in swept_values(parts.config.hparams).items()}
    opt_state = {
        group: torch_rmsprop(h, step.rate).init({name: params[name] for name in step.changes})
        for group, step in parts.steps.items()
    }
    target = {name: params[name] for name in parts.slow}
    return LearnerState(params=params, target_params=target, opt_state=opt_state, stats=parts.stats)


def _initial_carry(parts: OfflineLearner, batch: int) -> tuple[dict[str, Array], Array]:
    previous = jnp.zeros((batch, parts.spec.num_agents, inputs.action_dim(parts.spec)))
    return {name: parts.networks[name].initial_carry(batch) for name in parts.acting}, previous


def _act(
    parts: OfflineLearner,
    params: Params,
    carry: tuple[dict[str, Array], Array],
    timestep: TimeStep,
    ctx: Context,
    key: Array,
    explore: bool,
) -> tuple[tuple[dict[str, Array], Array], Array, dict[str, Array]]:
    config, spec, (hidden, previous) = parts.config, parts.spec, carry
    x = inputs.build(
        timestep.obs[None], previous[None], spec, config.obs_last_action, config.obs_agent_id
    )
    found = {
        name: parts.networks[name].unroll(params[name], hidden[name], x) for name in parts.acting
    }
    said = {name: y[0] for name, (_, y) in found.items()}
    action = parts.choose(said, timestep.avail, ctx, key, explore)
    if isinstance(spec.action, Discrete):
        action = action.astype(jnp.int32)
    return (
        ({name: after for name, (after, _) in found.items()}, inputs.encode(action, spec)),
        action,
        {},
    )


def _update(
    parts: OfflineLearner, learner: LearnerState, batch: Episode, ctx: Context, key: Array
) -> tuple[LearnerState, Metrics]:
    batch, learner = relabelled(parts, learner, batch, ctx)
    metrics: Metrics = {}
    for i, (group, step) in enumerate(parts.steps.items()):
        # folded twice, so that these keys are no hook's
        own = (
            {"key": jax.random.fold_in(jax.random.fold_in(key, len(parts.after_update)), i)}
            if step.draws
            else {}
        )
        learner, found = _step(parts, group, step, learner, batch, ctx, own)
        metrics.update(found)
    for i, hook in enumerate(parts.after_update):
        learner, found = hook(learner, batch, ctx, jax.random.fold_in(key, i))
        metrics.update(found)
    if parts.slow:
        learner = followed(learner, parts.config, ctx)
    return learner, metrics


def _step(
    parts: OfflineLearner,
    group: str,
    step: Step,
    learner: LearnerState,
    batch: Episode,
    ctx: Context,
    more: dict[str, Array],
) -> tuple[LearnerState, Metrics]:
    """One optimiser step, if it is due. more: further arguments of its loss."""

    def take() -> tuple[LearnerState, Metrics]:
        own = {name: learner.params[name] for name in step.changes}

        def loss(own: Params) -> tuple[Array, Metrics]:
            return step.loss(
                parts, {**learner.params, **own}, learner.target_params, batch, ctx, **more
            )

        grads, metrics = jax.grad(loss, has_aux=True)(own)
        updates, state = torch_rmsprop(ctx.hparams, step.rate).update(
            grads, learner.opt_state[group]
        )
        changed = learner.replace(  # type: ignore[attr-defined]
            params={**learner.params, **optax.apply_updates(own, updates)},
            opt_state={**learner.opt_state, group: state},
        )
        return changed, {**metrics, f"grad_norm/{group}": optax.tree.norm(grads)}

    if step.due is None:
        return take()
    blank = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(take)[1])
    return jax.lax.cond(step.due(ctx), take, lambda: (learner, blank))


def _inspect(
    parts: OfflineLearner, learner: LearnerState, batch: Episode, ctx: Context
) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for part in parts.inspect:
        found.update(part(parts, learner, batch, ctx))
    return found

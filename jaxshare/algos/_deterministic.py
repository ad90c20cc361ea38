"""The family of deterministic policies and critics of actions: one record of parts, and the only place where they meet.

An algorithm of this family (maddpg, facmac) is a `DeterministicLearner`. Discrete actions are one-hot vectors through
which a gradient flows (ops/gumbel.py), continuous ones are tanh of the actor's numbers in the action box mapped onto
[-1, 1]. An update makes one step of the critics, and then one of the actors with the new critics held fixed:

    critics:  the loss of the value family on Q(., a) and on Q'(., a') with a'_i = pi'_i(tau_i')
    actors:   L = - sum m Q(., pi) / sum m + c sum m pi^2 / sum m

Replay is of whole episodes, or of `window` steps from transitions that are all equally likely (feed-forward actors).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxshare.algos._parts import (
    claimed,
    extended,
    followed,
    observing,
    optimised,
    preparing,
    relabelled,
    team_reward,
)
from jaxshare.algos._value import LossFn, Values, individual_td_loss, team_td_loss
from jaxshare.models import inputs
from jaxshare.models.agents import AgentNetwork, FeedForwardQ, q_network, team_network
from jaxshare.models.base import sharing_groups
from jaxshare.models.mixers import Mixer, MixerInputs
from jaxshare.ops import cem, gumbel, returns, td
from jaxshare.ops.masking import NEG, masked_argmax, masked_mean, masked_mean_square
from jaxshare.ops.schedules import exploration_rate
from jaxshare.replay import uniform_without_replacement
from jaxshare.settings.fields import STEPS, default, nested, static, swept, swept_values
from jaxshare.settings.shared import (
    SWEPT,
    Adam,
    Agents,
    Averaging,
    CriticRate,
    Epsilon,
    Lambda,
    Learning,
    Noise,
    TargetNetworks,
)
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

MADDPG = "code: EPyMARL's maddpg.yaml"


@dataclass(frozen=True)
class DeterministicHParams(Noise, Epsilon, Lambda, Averaging, Adam, CriticRate, Learning):
    """Swept scalars. code: EPyMARL's maddpg.yaml and default.yaml."""

    lr: float = default(5e-4, MADDPG, help="learning rate of the actors")
    critic_lr: float = default(5e-4, MADDPG)
    gamma: float = default(0.99, MADDPG)
    tau: float = default(0.01, "code: openai/maddpg")
    grad_clip: float = default(10.0, MADDPG)
    action_reg: float = swept(
        1e-3,
        least=0,
        help="weight of the mean square of available logits, or of continuous actions",
        source=MADDPG,
    )
    temperature: float = swept(
        1.0,
        above=0,
        help="temperature of the Gumbel-softmax",
        source=MADDPG,
    )
    td_lambda: float = default(
        0.8,
        "code: FACMAC's facmac_smac.yaml",
        help="lambda of the lambda-returns; only with target=td_lambda",
    )
    epsilon_start: float = default(0.0, "code: EPyMARL has none but the policy's own samples")
    epsilon_end: float = default(0.0, "code: EPyMARL has none but the policy's own samples")
    epsilon_anneal_steps: float = default(50_000.0, "code: FACMAC's facmac_smac.yaml")


@dataclass(frozen=True)
class DeterministicConfig(TargetNetworks, Agents):
    """Static settings. code: EPyMARL's maddpg.yaml, where it has them."""

    hidden_dim: int = default(128, MADDPG, help="units of the actors' and critics' layers")
    recurrent: bool = default(True, MADDPG, help="a GRU in the actors; critics have none")
    obs_last_action: bool = default(False, MADDPG)
    obs_agent_id: bool = default(True, MADDPG)
    window: int = static(
        0,
        least=0,
        most=STEPS,
        help="steps of the pieces that batch_size counts; 0: whole episodes",
        source="code: EPyMARL",
    )
    target: str = static(
        "one_step",
        choices=("one_step", "td_lambda"),
        help="targets of the critics: of one step, or lambda-returns",
        source="code: EPyMARL; FACMAC has td_lambda in SMAC",
    )
    target_action: str = static(
        "greedy",
        choices=("greedy", "sample"),
        help="discrete actions in the targets: the likeliest, or samples",
        source="code: EPyMARL; openai/maddpg samples",
    )
    relaxation: str = static(
        "hard",
        choices=("hard", "soft"),
        help="discrete actions in the actors' loss: one-hot, straight through (hard), or soft",
        source="code: EPyMARL; openai/maddpg has soft",
    )
    bootstrap_on_timeout: bool = default(True, "code: EPyMARL, a time limit is no terminal state")
    clip: str = static(
        "all",
        choices=("all", "set"),
        help="over what gradients are clipped: each optimiser group, or each parameter set",
        source="code: EPyMARL; openai/maddpg has set",
    )
    target_update: str = default("hard", MADDPG)
    target_update_period: int = default(200, MADDPG)
    hparams: DeterministicHParams = nested(DeterministicHParams, help=SWEPT)

    def __post_init__(self) -> None:
        check_record(self, "algo.")
        self._check_window()

    def _check_window(self) -> None:
        if self.window and self.recurrent:
            raise RefusedError(
                f"algo.window={self.window}: recurrent actors need what went before. Use algo.recurrent=false, or "
                "algo.window=0 to learn from whole episodes."
            )
        if self.window and self.obs_last_action:
            raise RefusedError(
                f"algo.window={self.window}: the action before a window is not read. Use algo.obs_last_action=false, "
                "or algo.window=0 to learn from whole episodes."
            )
        if self.window == 1 and self.target == "td_lambda":
            raise RefusedError(
                "algo.target=td_lambda: with algo.window=1 there is no step to look ahead to. Use "
                "algo.target=one_step, a larger algo.window, or 0 for whole episodes."
            )


CriticInput = Callable[[Array, Array, Array, Array], Array]


@dataclass(frozen=True)
class DeterministicLearner:
    """The parts of a learner of deterministic policies.

    actor: y [T, B, N, A] are logits, or [T, B, N, U] numbers before tanh; critic: Q_i [T, B, N, 1], without memory;
    critic_input: (obs [T, B, N, O], state [T, B, G], own, others [T, B, N, E]) -> [T, B, N, D], where critic i sees
    agent i's action from `own` and the others' from `others`; E is A or U;
    mixer: of the Q_i, or None: every critic is trained alone;
    others: whose actions the others take in the actors' loss, the buffer's or the current policies';
    weight: factor of both losses; stats: running statistics by name, with their first values;
    loss: of the critics, (Values, Episode, ctx, key) -> (scalar, metrics). `Values` is that of the value family, q and
    target_q without columns, so that what is made for a mixer of utilities (differ) works here too; it calls the
    critics "agent";
    groups: optimiser group -> parameter names, without the actors', which are a group of their own;
    relabel, after_update, observe, before_update, inspect: as in `ValueLearner`.
    """

    name: str
    config: DeterministicConfig
    spec: EnvSpec
    actor: AgentNetwork
    critic: AgentNetwork
    critic_input: CriticInput
    mixer: Mixer | None
    loss: LossFn
    others: str = "current"
    weight: float = 1.0
    stats: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, tuple[str, ...]] | None = None
    relabel: tuple[Callable[..., tuple[Episode, dict[str, Any]]], ...] = ()
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
        return {"actor": self.actor, "critic": self.critic}

    def claim(self, owner: str, wraps: tuple[str, ...] = (), **parts: Any) -> DeterministicLearner:
        """Replace single-owner parts. Raises RefusedError naming both owners if one is taken.

        wraps: names of those that the new ones keep within them.
        """
        return claimed(self, owner, (team_td_loss, individual_td_loss, lambda_loss), wraps, **parts)

    def extend(self, **parts: Any) -> DeterministicLearner:
        """Add to additive parts: an entry to those that are tuples, entries to those that are dicts (`stats`, …)."""
        return extended(self, **parts)

    def assemble(self) -> Algorithm:
        """The finished algorithm."""
        return assemble(self)


def deterministic_learner(
    name: str,
    config: DeterministicConfig,
    spec: EnvSpec,
    critic_input: CriticInput,
    critic_input_dim: int,
    **parts: Any,
) -> DeterministicLearner:
    """A learner with the family's networks. Raises RefusedError for what this task does not allow."""
    _check(name, config, spec)
    groups = sharing_groups(config.share_params, spec.groups)
    actor = q_network(
        input_dim=inputs.input_dim(spec, config.obs_last_action, config.obs_agent_id),
        num_actions=inputs.action_dim(spec),
        hidden_dim=config.hidden_dim,
        recurrent=config.recurrent,
        groups=groups,
    )
    critic = team_network(FeedForwardQ(config.hidden_dim, 1), critic_input_dim, 0, groups)
    return DeterministicLearner(
        name=name,
        config=config,
        spec=spec,
        actor=actor,
        critic=critic,
        critic_input=critic_input,
        **parts,
    )


def _check(name: str, config: DeterministicConfig, spec: EnvSpec) -> None:
    if config.window > spec.episode_limit:
        raise RefusedError(
            f"algo.window={config.window} is longer than an episode of env={spec.name} ({spec.episode_limit} steps). "
            "Use algo.window=0 to learn from whole episodes."
        )
    box = spec.action
    if not isinstance(box, Box):
        return
    if config.target_action == "sample":
        raise RefusedError(
            f"algo.target_action=sample: the policies of algo={name} for continuous actions are deterministic. Use "
            "algo.target_action=greedy."
        )
    if not all(
        -math.inf < low < high < math.inf for low, high in zip(box.low, box.high, strict=True)
    ):
        raise RefusedError(
            f"algo={name} needs actions between finite bounds, low < high; env={spec.name} has {box}."
        )


# ------------------------------------------------------------------------------------------------------ what parts use


def actor_input(parts: DeterministicLearner, batch: Episode) -> Array:
    """What the actors read, [T+1, B, N, D]."""
    config, spec = parts.config, parts.spec
    previous = inputs.last_actions(batch.action, spec)  # of a window nobody reads it
    return inputs.build(batch.obs, previous, spec, config.obs_last_action, config.obs_agent_id)


def greedy_actions(parts: DeterministicLearner, y: Array, avail: Array) -> Array:
    """The best action of every policy, encoded: y [..., N, E], avail [..., N, A] -> [..., N, E]."""
    if isinstance(parts.spec.action, Discrete):
        return gumbel.first_maximum(jnp.where(avail, y, NEG))
    return jnp.tanh(y)


def drawn_actions(
    parts: DeterministicLearner, y: Array, avail: Array, ctx: Context, key: Array
) -> Array:
    """What the policies do, encoded, with a gradient: y [T, B, N, E], avail [T, B, N, A] -> [T, B, N, E]."""
    if not isinstance(parts.spec.action, Discrete):
        return jnp.tanh(y)
    noise = gumbel.noise_per_step(key, y.shape)
    soft = gumbel.relaxed(y, avail, noise, ctx.hparams["temperature"])
    return soft if parts.config.relaxation == "soft" else gumbel.straight_through(soft)


def next_actions(
    parts: DeterministicLearner,
    params: Any,
    x: Array,
    avail: Array,
    ctx: Context,
    key: Array | None,
) -> Array:
    """Target actions of the slots after the first, [T, B, N, E]: x [T+1, B, N, D], params: the target actors'."""
    # code: EPyMARL starts its target's memory at t = 1; ours: at t = 0, as the actors that played
    recurrent, start = parts.config.recurrent, parts.actor.initial_carry(x.shape[1])
    _, y = parts.actor.unroll(params, start, x if recurrent else x[1:])
    y, allowed = y[1:] if recurrent else y, avail[1:]
    if parts.config.target_action == "sample" and key is not None:
        return drawn_actions(parts, y, allowed, ctx, key)
    return greedy_actions(parts, y, allowed)


def judged(
    parts: DeterministicLearner, params: Any, batch: Episode, after: int, own: Array, others: Array
) -> Array:
    """Q_i [T, B, N] of encoded actions [T, B, N, E] in the slots 0..T-1, or 1..T with after=1. params: the critics'."""
    steps = slice(after, after + len(own))
    x = parts.critic_input(batch.obs[steps], batch.state[steps], own, others)
    return parts.critic.unroll(params, parts.critic.initial_carry(x.shape[1]), x)[1][..., 0]


def mixed(
    parts: DeterministicLearner, params: dict[str, Any], batch: Episode, after: int, q: Array
) -> Array:
    """Q_tot [T, B] of q [T, B, N] in the slots 0..T-1, or 1..T with after=1."""
    if parts.mixer is None:
        raise RefusedError("this learner has no mixer")
    unread = jnp.full_like(q, jnp.nan)  # no mixer of this family looks at a maximum
    seen = MixerInputs(unread, batch.action, batch.state[after : after + len(q)])
    return parts.mixer.apply(params["mixer"], q, seen)


def values_of(
    parts: DeterministicLearner,
    params: dict[str, Any],
    target: dict[str, Any],
    batch: Episode,
    ctx: Context,
    key: Array | None = None,
) -> Values:
    """What the critics' loss sees. Without a key target actions are the best ones."""
    config, spec = parts.config, parts.spec
    taken = inputs.encode(batch.action, spec)
    following = next_actions(
        parts, target["actor"], actor_input(parts, batch), batch.avail, ctx, key
    )
    q_taken = judged(parts, params["critic"], batch, 0, taken, taken)
    next_q = jax.lax.stop_gradient(judged(parts, target["critic"], batch, 1, following, following))
    q_tot = next_q_tot = jnp.zeros(batch.mask.shape)
    if parts.mixer is not None:
        q_tot = mixed(parts, params, batch, 0, q_taken)
        next_q_tot = jax.lax.stop_gradient(mixed(parts, target, batch, 1, next_q))
    nothing = jnp.zeros((*batch.avail.shape[:-1], 0))
    return Values(
        q=nothing,
        q_taken=q_taken,
        next_q=next_q,
        q_tot=q_tot,
        next_q_tot=next_q_tot,
        discount=td.discounts(
            ctx.hparams["gamma"], batch.terminated, batch.truncated, config.bootstrap_on_timeout
        ),
        team_reward=team_reward(spec, batch),
        params={**params, "agent": params["critic"]},
        mix=partial(mixed, parts, params, batch, 0),
        target_q=nothing,
        target_params={**target, "agent": target["critic"]},
        features=nothing,
    )


def lambda_loss(
    team: bool, values: Values, batch: Episode, ctx: Context, key: Array
) -> tuple[Array, Metrics]:
    """The mean of (G - Q)^2 over valid steps, and over agents unless `team`; G = `returns.td_lambda` of the target Q.

    code: build_td_lambda_targets of PyMARL's COMA, on FACMAC's Q_tot.
    """
    wide = (
        (lambda x: x) if team else (lambda x: jnp.broadcast_to(x[..., None], values.q_taken.shape))
    )
    reward = values.team_reward if team else batch.reward
    value, after = (values.q_tot, values.next_q_tot) if team else (values.q_taken, values.next_q)
    end = wide(batch.terminated | batch.truncated)
    target = returns.td_lambda(reward, wide(values.discount), after, end, ctx.hparams["td_lambda"])
    delta, mask = jax.lax.stop_gradient(target) - value, wide(batch.mask)
    loss = masked_mean_square(delta, mask)
    return loss, {
        "loss/td": loss,
        "td_error/abs_mean": masked_mean(jnp.abs(delta), mask),
        "q/target_mean": masked_mean(target, mask),
    }


def actor_loss(
    parts: DeterministicLearner,
    actor: Any,
    params: dict[str, Any],
    batch: Episode,
    ctx: Context,
    key: Array,
) -> tuple[Array, Metrics]:
    """- mean of Q(., pi) + c mean of pi^2, over valid steps: a gradient for `actor` only; params: all others'.

    With a mixer all policies are varied at once, Q_tot(pi_1, ..., pi_N); without, each in its own Q_i.
    """
    x, avail = actor_input(parts, batch)[:-1], batch.avail[:-1]
    _, y = parts.actor.unroll(actor, parts.actor.initial_carry(x.shape[1]), x)
    own = drawn_actions(parts, y, avail, ctx, key)
    others = (
        inputs.encode(batch.action, parts.spec)
        if parts.others == "buffer"
        else jax.lax.stop_gradient(own)
    )
    q = judged(parts, params["critic"], batch, 0, own, others)
    each = jnp.broadcast_to(batch.mask[..., None], q.shape)
    # code: FACMAC's continuous learners and EPyMARL take the mean over padding as well
    best = (
        masked_mean(q, each)
        if parts.mixer is None
        else masked_mean(mixed(parts, params, batch, 0, q), batch.mask)
    )
    if isinstance(parts.spec.action, Discrete):
        size = gumbel.mean_square_logit(y, avail, batch.mask)
    else:
        size = masked_mean(
            jnp.square(own), jnp.broadcast_to(batch.mask[..., None, None], own.shape)
        )
    loss = -best + ctx.hparams["action_reg"] * size
    return parts.weight * loss, {
        "loss/actor": loss,
        "q/policy_mean": best,
        "policy/mean_square": size,
    }


# -------------------------------------------------------------------------------------------------------- assembly


def assemble(parts: DeterministicLearner) -> Algorithm:
    """Where the parts meet: parts -> Algorithm."""
    config = parts.config
    if config.target == "td_lambda" and "loss" in parts.owners:
        raise RefusedError(
            f"modifiers=[{parts.owners['loss']}] replaces the loss of algo={parts.name} by one with one-step targets: "
            "use algo.target=one_step."
        )
    groups = _groups(parts)
    return Algorithm(
        name=parts.name,
        spec=parts.spec,
        hparams={**swept_values(config.hparams), **parts.hparams},
        init=lambda key: _init(parts, groups, key),
        initial_carry=lambda batch: _initial_carry(parts, batch),
        act=lambda *args: _act(parts, *args),
        sample=None if config.window else uniform_without_replacement,
        update=lambda *args: _update(parts, groups, *args),
        inspect=lambda *args: _inspect(parts, *args),
        observe=observing(parts),
        before_update=preparing(parts),
        window=config.window,
    )


def _modules(parts: DeterministicLearner) -> dict[str, Callable[[Array], Any]]:
    mixer = {} if parts.mixer is None else {"mixer": parts.mixer.init}
    return {"actor": parts.actor.init, "critic": parts.critic.init, **mixer}


def _groups(parts: DeterministicLearner) -> dict[str, tuple[str, ...]]:
    critics = tuple(name for name in _modules(parts) if name != "actor")
    # a modifier of utilities calls the critics "agent"
    given = parts.groups or {"critic": critics}
    found = {
        group: tuple("critic" if n == "agent" else n for n in names)
        for group, names in given.items()
    }
    if sorted(name for names in found.values() for name in names) != sorted(critics):
        raise ValueError(
            f"{parts.name}: optimiser groups {given} must name each of {sorted(critics)} once"
        )
    return {"actor": ("actor",), **found}


def _init(
    parts: DeterministicLearner, groups: dict[str, tuple[str, ...]], key: Array
) -> LearnerState:
    modules = _modules(parts)
    keys = jax.random.split(key, len(modules))
    params = {name: init(k) for (name, init), k in zip(modules.items(), keys, strict=True)}
    h = {name: jnp.float32(value) for name, value in swept_values(parts.config.hparams).items()}
    opt_state = {
        group: _per_set(parts, names, _optimizer(group, h).init)({n: params[n] for n in names})
        for group, names in groups.items()
    }
    return LearnerState(params=params, target_params=params, opt_state=opt_state, stats=parts.stats)


def _optimizer(group: str, h: dict[str, Array]) -> optax.GradientTransformation:
    return optax.chain(
        optax.clip_by_global_norm(h["grad_clip"]),
        optax.scale_by_adam(eps=h["adam_eps"]),
        optax.scale_by_learning_rate(h["lr" if group == "actor" else "critic_lr"]),
    )


def _per_set(
    parts: DeterministicLearner, names: tuple[str, ...], fn: Callable[..., Any]
) -> Callable[..., Any]:
    """`fn` on each parameter set alone, if that is how norms are taken and the group has nothing but such sets."""
    several = set(names) <= set(parts.networks) and max(parts.actor.groups) > 0
    return jax.vmap(fn) if parts.config.clip == "set" and several else fn


def _update_of(
    parts: DeterministicLearner, ctx: Context, group: str, names: tuple[str, ...]
) -> Callable[..., Any]:
    return _per_set(parts, names, _optimizer(group, ctx.hparams).update)


def _initial_carry(parts: DeterministicLearner, batch: int) -> tuple[Array, Array]:
    previous = jnp.zeros((batch, parts.spec.num_agents, inputs.action_dim(parts.spec)))
    return parts.actor.initial_carry(batch), previous


def _act(
    parts: DeterministicLearner,
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
    hidden, y = parts.actor.unroll(params["actor"], hidden, x)
    action = chosen(parts, y[0], timestep.avail, ctx, key, explore)
    return (hidden, inputs.encode(action, spec)), action, {}


def chosen(
    parts: DeterministicLearner, y: Array, avail: Array, ctx: Context, key: Array, explore: bool
) -> Array:
    """The actions to take, [B, N] or [B, N, U] in the box: y [B, N, E], avail [B, N, A].

    Exploring, discrete actions are samples of the policy, continuous ones have Gaussian noise on them; either are
    uniformly random with a rate of epsilon, and always for the first `uniform_steps`.
    """
    h, spec = ctx.hparams, parts.spec
    rate = exploration_rate(h, ctx.env_steps, ctx.total_env_steps)
    rate = jnp.where(ctx.env_steps < h["uniform_steps"], 1.0, rate)
    if isinstance(spec.action, Box):
        action = jnp.tanh(y)
        return inputs.decode(
            cem.perturb(key, action, h["action_noise"], rate) if explore else action, spec.action
        )
    if not explore:
        return masked_argmax(y, avail)
    coin_key, uniform_key, own_key = jax.random.split(key, 3)
    draw = lambda k, logits: jax.random.categorical(k, jnp.where(avail, logits, -jnp.inf), axis=-1)  # noqa: E731
    coin = jax.random.uniform(coin_key, y.shape[:-1]) < rate
    return jnp.where(coin, draw(uniform_key, jnp.zeros_like(y)), draw(own_key, y))


def _update(
    parts: DeterministicLearner,
    groups: dict[str, tuple[str, ...]],
    learner: LearnerState,
    batch: Episode,
    ctx: Context,
    key: Array,
) -> tuple[LearnerState, Metrics]:
    """A step of the critics, one of the actors, one of the targets."""
    target_key, loss_key, actor_key, *keys = jax.random.split(key, 3 + len(parts.after_update))
    batch, learner = relabelled(parts, learner, batch, ctx)

    def critic_loss(critics: dict[str, Any]) -> tuple[Array, Metrics]:
        params = {**learner.params, **critics}
        values = values_of(parts, params, learner.target_params, batch, ctx, target_key)
        loss, metrics = parts.loss(values, batch, ctx, loss_key)
        each = jnp.broadcast_to(batch.mask[..., None], values.q_taken.shape)
        metrics = {
            **metrics,
            "loss/critic": loss,
            "q/taken_mean": masked_mean(values.q_taken, each),
        }
        return parts.weight * loss, metrics

    critics = {name: p for name, p in learner.params.items() if name != "actor"}
    grads, metrics = jax.grad(critic_loss, has_aux=True)(critics)
    of_critics = {group: names for group, names in groups.items() if group != "actor"}
    learner, norms = optimised(partial(_update_of, parts, ctx), of_critics, learner, grads)
    loss_fn = lambda actor: actor_loss(parts, actor, learner.params, batch, ctx, actor_key)  # noqa: E731
    grad, more = jax.grad(loss_fn, has_aux=True)(learner.params["actor"])
    of_actors = {"actor": groups["actor"]}
    learner, norm = optimised(partial(_update_of, parts, ctx), of_actors, learner, {"actor": grad})
    metrics = {**metrics, **more, **norms, **norm}
    for hook, own_key in zip(parts.after_update, keys, strict=True):
        learner, more = hook(learner, batch, ctx, own_key)
        metrics = {**metrics, **more}
    return followed(learner, parts.config, ctx), metrics


def _inspect(
    parts: DeterministicLearner, learner: LearnerState, batch: Episode, ctx: Context
) -> dict[str, Array]:
    values = values_of(parts, learner.params, learner.target_params, batch, ctx)
    found = {"q_taken": values.q_taken}
    for part in parts.inspect:
        found.update(part(values, batch, ctx))
    return found

"""SIT's last stage (see sit.py): critics with a view of all agents, and conservative actors, on single trajectories."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxshare import replay
from jaxshare.algos._sit_parts import SitLearner, step
from jaxshare.algos._sit_reward import draw
from jaxshare.models import inputs
from jaxshare.models.attention import Question
from jaxshare.ops import decompose, offline
from jaxshare.ops.masking import NEG, masked_argmax, masked_mean, take_last
from jaxshare.ops.schedules import crossed
from jaxshare.types import Array, Context, Discrete, Episode, LearnerState, Metrics


@struct.dataclass
class Individual:
    """B trajectories of one agent each, for every parameter set: S in the place of N. E is A or U."""

    history: Array  # [T+1, B, S, O + E] own observation and encoded previous action
    obs: Array  # [T+1, B, S, N, O] of all agents
    index: Array  # [B, S] whose trajectory it is
    action: Array  # [T, B, S] i32 or [T, B, S, U]
    encoded: Array  # [T, B, S, E]
    avail: Array  # [T+1, B, S, A]
    reward: Array  # [T, B, S] its own, decomposed
    uncertainty: Array  # [T, B, S]
    discount: Array  # [T, B, S] gamma * (1 - terminated)
    cut: Array  # [T, B, S] bool: there is a next observation to bootstrap from, and no next action
    mask: Array  # [T, B, S]


def learn_policy(
    parts: SitLearner, learner: LearnerState, kept: dict[str, Any], data: Episode, ctx: Context, key: Array,
    batch_size: int,
) -> tuple[LearnerState, Metrics]:  # fmt: skip
    """One update of all critics, and then one of all actors with the new critics."""
    draw_key, first, second = (jax.random.fold_in(key, i) for i in range(3))
    episode, agent = draw(parts, kept, draw_key, batch_size)
    gathered = replay.gather(data, episode.ravel())
    own = trajectories(parts, kept, gathered, episode, agent, ctx)
    start = parts.actor_sets.initial_carry(batch_size)
    y, pullback = jax.vjp(
        lambda p: parts.actor_sets.unroll(p, start, own.history)[1], learner.params["actor"]
    )
    weight, fixed = _weight(parts, kept, own, ctx), jax.lax.stop_gradient(y)

    (loss, q), grads = jax.value_and_grad(partial(_critic_loss, parts), has_aux=True)(
        learner.params["critic"], learner.target_params["critic"], own, fixed, weight, ctx, first
    )
    learner, critic_norm = step(parts, learner, "critic", grads, ctx)
    shown, dy = jax.value_and_grad(partial(_actor_loss, parts), has_aux=True)(
        y, learner.params["critic"], own, weight, ctx, second
    )
    learner, actor_norm = step(parts, learner, "actor", pullback(dy)[0], ctx)
    metrics = {
        "loss/critic": loss / parts.num_sets,
        "sit/stage": jnp.float32(3),
        "sit/reward_mean": masked_mean(own.reward, own.mask),
        "sit/uncertainty_mean": masked_mean(own.uncertainty, own.mask),
        "q/taken_mean": masked_mean(q, own.mask),
        "sit/weight_max": jnp.max(weight * own.mask),
        **shown[1],
        **_buffer_metrics(parts, kept),
        **critic_norm,
        **actor_norm,
    }
    for i, hook in enumerate(parts.after_update):
        learner, more = hook(learner, gathered, ctx, jax.random.fold_in(key, 3 + i))
        metrics |= more
    return copied(parts, learner, ctx), metrics


def _buffer_metrics(parts: SitLearner, kept: dict[str, Any]) -> Metrics:
    named = {
        f"sit/{what}/type_{name}": kept[what][k]
        for what in ("ess", "alpha")
        for k, name in enumerate(parts.names)
    }
    return {name.lower(): value for name, value in named.items()}


def copied(parts: SitLearner, learner: LearnerState, ctx: Context) -> LearnerState:
    """With new target critics after every period-th update of this stage."""
    made = ctx.clock.updates - parts.config.stage1_updates
    due = crossed(made, made + 1, parts.config.target_update_period)
    target = jax.lax.cond(
        due, lambda: {"critic": learner.params["critic"]}, lambda: learner.target_params
    )
    return learner.replace(target_params=target)  # type: ignore[attr-defined]


def trajectories(
    parts: SitLearner,
    kept: dict[str, Any],
    gathered: Episode,
    episode: Array,
    agent: Array,
    ctx: Context,
) -> Individual:
    """Agent `agent`'s part of each of the episodes gathered [T(+1), B * S, ...]; episode and agent [B, S]."""
    config, spec = parts.config, parts.spec
    unfold = lambda x: x.reshape(x.shape[0], *agent.shape, *x.shape[2:])  # noqa: E731
    obs, encoded = unfold(gathered.obs), _own(unfold(inputs.encode(gathered.action, spec)), agent)
    previous = jnp.concatenate([jnp.zeros_like(encoded[:1]), encoded])
    steps, mask, terminated = encoded.shape[0], unfold(gathered.mask), unfold(gathered.terminated)
    if config.mask_dead:
        mask = mask * _own(unfold(gathered.alive[:-1]), agent)
    found = {  # [B, S, T] -> [T, B, S]
        name: jnp.moveaxis(kept[name][episode, :, agent], -1, 0)[:steps]
        for name in ("reward", "uncertainty")
    }
    gamma, ended = (
        ctx.hparams["gamma"],
        jnp.zeros_like(terminated) if config.literal_bootstrap else terminated,
    )
    return Individual(
        history=jnp.concatenate([_own(obs, agent), previous], axis=-1),
        obs=obs,
        index=agent,
        action=_own(unfold(gathered.action), agent),
        encoded=encoded,
        avail=_own(unfold(gathered.avail), agent),
        discount=gamma * (1.0 - ended.astype(jnp.float32)),
        cut=unfold(gathered.truncated) | (terminated & ~ended),
        mask=mask,
        **found,
    )


def _own(x: Array, agent: Array) -> Array:
    """x[t, b, s, agent[b, s]]: [T, B, S, N, ...] -> [T, B, S, ...]."""
    at = agent.reshape(1, *agent.shape, *(1,) * (x.ndim - 3))
    return jnp.take_along_axis(x, at, axis=3)[:, :, :, 0]


def _ask(own: Individual, steps: slice, action: Array) -> Question:
    """About actions [T', B, S, K, E] in some slots."""
    obs = own.obs[steps]
    index = jnp.broadcast_to(own.index[None], obs.shape[:3])
    return Question(history=own.history[steps], action=action, obs=obs, index=index)


def _weight(parts: SitLearner, kept: dict[str, Any], own: Individual, ctx: Context) -> Array:
    """omega of every step, mixed with 1 by kappa: [T, B, S]."""
    h = ctx.hparams
    if not parts.config.weighted:
        return jnp.ones_like(own.mask)
    if parts.config.literal_weight:
        weight = decompose.literal_weight(own.uncertainty, h["eta"])
    else:
        floor = h["omega_floor"] * kept["median"][jnp.array(parts.set_buffers)]
        weight = jax.vmap(
            decompose.stable_weight, in_axes=(-1, -1, None, 0, None, None), out_axes=-1
        )(own.uncertainty, own.mask, h["eta"], floor, h["omega_low"], h["omega_high"])
    return 1.0 - h["kappa"] + h["kappa"] * weight


# ------------------------------------------------------------------------------------------------------------- critics


def _critic_loss(
    parts: SitLearner,
    params: Any,
    target: Any,
    own: Individual,
    y: Array,
    weight: Array,
    ctx: Context,
    key: Array,
) -> tuple[Array, Array]:
    """The sum over parameter sets of eq. 9, and Q [T, B, S] of the data."""
    steps = own.mask.shape[0]
    q = parts.judge(params, _ask(own, slice(0, steps), own.encoded[..., None, :]))[..., 0]
    following = jax.lax.stop_gradient(next_values(parts, target, own, y, ctx, key))
    losses = jax.vmap(decompose.critic_loss, in_axes=-1)(
        q, own.reward + own.discount * following, weight, own.mask
    )
    return losses.sum(), q


def next_values(
    parts: SitLearner, target: Any, own: Individual, y: Array, ctx: Context, key: Array
) -> Array:
    """Q'(tau', a', o') of the data's next action, [T, B, S]; where an episode is cut its mean under the policy.

    y [T+1, B, S, .] from the actors. An episode is cut once, so that only one slot of it needs all actions.
    """
    steps = own.mask.shape[0]
    inner = parts.judge(target, _ask(own, slice(1, steps), own.encoded[1:, ..., None, :]))[..., 0]
    inner = jnp.concatenate([inner, jnp.zeros_like(own.mask[:1])])
    at = 1 + jnp.argmax(own.cut, axis=0)  # [B, S] slot after the cut

    def slot(x: Array) -> Array:
        return jnp.take_along_axis(x, at.reshape(1, *at.shape, *(1,) * (x.ndim - 3)), axis=0)

    last = own.replace(history=slot(own.history), obs=slot(own.obs), avail=slot(own.avail))  # type: ignore[attr-defined]
    after = _policy_value(parts, target, last, slot(y), slice(0, 1), ctx, key)
    return jnp.where(own.cut, after, inner)


def _policy_value(
    parts: SitLearner,
    params: Any,
    own: Individual,
    y: Array,
    slots: slice,
    ctx: Context,
    key: Array,
) -> Array:
    """sum_a pi(a) Q(a) in these slots, [T', B, S]; over drawn actions where they are continuous. y [T', B, S, .]."""
    if isinstance(parts.spec.action, Discrete):
        every = jnp.broadcast_to(jnp.eye(y.shape[-1]), (*y.shape, y.shape[-1]))
        probability = jax.nn.softmax(jnp.where(own.avail[slots], y, NEG), axis=-1)
        return (probability * parts.judge(params, _ask(own, slots, every))).sum(-1)
    shape = (*y.shape[:-1], parts.config.filter_samples, y.shape[-1])
    drawn = offline.noisy(key, jnp.tanh(y)[..., None, :], ctx.hparams["action_std"], shape)
    return parts.judge(params, _ask(own, slots, drawn)).mean(-1)


# -------------------------------------------------------------------------------------------------------------- actors


def _actor_loss(
    parts: SitLearner,
    y: Array,
    critic: Any,
    own: Individual,
    weight: Array,
    ctx: Context,
    key: Array,
) -> tuple[Array, Metrics]:
    """The sum over parameter sets of eq. 10, with log pi. y [T+1, B, S, .] from the actors."""
    steps = own.mask.shape[0]
    slots, fixed = slice(0, steps), jax.lax.stop_gradient(y[:-1])
    q = parts.judge(critic, _ask(own, slots, own.encoded[..., None, :]))[..., 0]
    x = (
        q
        if parts.config.filter == "q"
        else q - _policy_value(parts, critic, own, fixed, slots, ctx, key)
    )
    kept = jax.vmap(partial(_filter, parts, ctx), in_axes=-1, out_axes=-1)(x, own.mask)
    log_pi = log_probability(parts, y[:-1], own, ctx)
    if parts.config.literal_actor:
        losses = jax.vmap(decompose.literal_actor_loss, in_axes=-1)(q, weight, kept, own.mask)
    else:
        losses = jax.vmap(decompose.actor_loss, in_axes=-1)(log_pi, weight, kept, own.mask)
    metrics = {
        "loss/actor": losses.mean(),
        "sit/filter_max": jnp.max(jnp.where(own.mask > 0, kept, 0.0)),
        "sit/log_pi_mean": masked_mean(log_pi, own.mask),
    }
    return losses.sum(), metrics


def _filter(parts: SitLearner, ctx: Context, x: Array, mask: Array) -> Array:
    """F of one parameter set, [T, B]; x: values or advantages."""
    h, kind = ctx.hparams, parts.config.filter
    if kind == "exponential":
        return decompose.exponential_filter(x, h["beta"], h["filter_cap"])
    if kind == "binary":
        return decompose.binary_filter(x)
    return decompose.softmax_filter(
        x, mask, h["beta"], per_step=parts.config.filter_axis == "batch"
    )


def log_probability(parts: SitLearner, y: Array, own: Individual, ctx: Context) -> Array:
    """log pi(a | tau) of the data's actions, [T, B, S]: y [T, B, S, .].

    Discrete: softmax over available actions. Continuous: a Gaussian around tanh y with a fixed deviation.
    """
    if isinstance(parts.spec.action, Discrete):
        return take_last(jax.nn.log_softmax(jnp.where(own.avail[:-1], y, NEG), axis=-1), own.action)
    return offline.log_density(own.encoded, jnp.tanh(y), ctx.hparams["action_std"])


def choose(
    parts: SitLearner, y: Array, avail: Array, ctx: Context, key: Array, explore: bool
) -> Array:
    """The best action, or one drawn from the policy: y [B, N, .], avail [B, N, A] -> [B, N(, U)]."""
    box = parts.spec.action
    if isinstance(box, Discrete):
        if not explore:
            return masked_argmax(y, avail)
        return jax.random.categorical(key, jnp.where(avail, y, NEG), axis=-1)
    mean = jnp.tanh(y)
    return inputs.decode(
        offline.noisy(key, mean, ctx.hparams["action_std"]) if explore else mean, box
    )

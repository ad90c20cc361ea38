"""SIT's last stage: critics with a view of all agents, and conservative actors, on single
trajectories.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxshare.algos.sit import equations
from jaxshare.algos.sit.networks import Question
from jaxshare.algos.sit.rewards import check_batch_size
from jaxshare.algos.sit.sets import Sets
from jaxshare.algos.sit.tables import drawn
from jaxshare.learners import optimisers
from jaxshare.learners.records import Acting, Chosen, View
from jaxshare.models import inputs
from jaxshare.ops import offline
from jaxshare.ops.masking import NEG, masked_argmax, masked_mean, take_last
from jaxshare.training import replay
from jaxshare.types import Array, Box, Discrete, LearnerState, Metrics


class Individual(struct.PyTreeNode):
    """B trajectories of one agent each, for every parameter set: S in place of N. E is A or U."""

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


class Prepared(struct.PyTreeNode):
    """What both steps of an update go by."""

    own: Individual
    weight: Array  # [T, B, S] omega, mixed with 1 by kappa
    y: Array  # [T+1, B, S, .] what the actors say
    # of a cotangent of y, the gradient of the actors' parameters
    pullback: Callable[[Array], tuple[Any]] = struct.field(pytree_node=False)


def draw(sets: Sets, view: View, batch_size: int) -> View:
    """The episodes [T(+1), B * S, ...] of the trajectories that are drawn; `values` says whose they
    are, [B, S].
    """
    check_batch_size(view.batch, batch_size)
    episode, agent = drawn(sets, view, batch_size)
    return view.replace(batch=replay.gather(view.batch, episode.ravel()), values=(episode, agent))


def prepare(sets: Sets, view: View) -> Prepared:
    """Trajectories and their weights, and what the actors say of them: both steps read it, one
    makes a gradient.
    """
    episode, agent = view.values
    own = trajectories(view, episode, agent)
    start = sets.actor.initial_carry(len(agent))
    y, pullback = jax.vjp(
        lambda params: sets.actor.unroll(params, start, own.history)[1], view.params["actor"]
    )
    return Prepared(own=own, weight=_weight(sets, view, own), y=y, pullback=pullback)


def trajectories(view: View, episode: Array, agent: Array) -> Individual:
    """Agent `agent`'s part of each of the episodes gathered [T(+1), B * S, ...]; episode and agent
    [B, S].
    """
    config = view.config
    batch = view.batch

    def unfold(x: Array) -> Array:
        return x.reshape(x.shape[0], *agent.shape, *x.shape[2:])

    # what the agent saw and did
    obs = unfold(batch.obs)
    encoded = _own(unfold(inputs.encode(batch.action, view.spec)), agent)
    previous = jnp.concatenate([jnp.zeros_like(encoded[:1]), encoded])
    mask = unfold(batch.mask)
    if config.mask_dead:
        mask = mask * _own(unfold(batch.alive[:-1]), agent)

    # what it got, out of the tables: [B, S, T] -> [T, B, S]
    def looked_up(name: str) -> Array:
        rows = view.tables[name][episode, :, agent]
        return jnp.moveaxis(rows, -1, 0)[: encoded.shape[0]]

    terminated = unfold(batch.terminated)
    ended = jnp.zeros_like(terminated) if config.literal_bootstrap else terminated
    return Individual(
        history=jnp.concatenate([_own(obs, agent), previous], axis=-1),
        obs=obs,
        index=agent,
        action=_own(unfold(batch.action), agent),
        encoded=encoded,
        avail=_own(unfold(batch.avail), agent),
        reward=looked_up("reward"),
        uncertainty=looked_up("uncertainty"),
        discount=view.hparams["gamma"] * (1.0 - ended.astype(jnp.float32)),
        cut=unfold(batch.truncated) | (terminated & ~ended),
        mask=mask,
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


def _weight(sets: Sets, view: View, own: Individual) -> Array:
    """omega of every step, mixed with 1 by kappa: [T, B, S]."""
    h = view.hparams
    if not view.config.weighted:
        return jnp.ones_like(own.mask)
    if view.config.literal_weight:
        weight = equations.literal_weight(own.uncertainty, h["eta"])
    else:
        # each parameter set by the median uncertainty of its buffer
        floor = h["omega_floor"] * view.tables["median"][jnp.array(sets.set_buffers)]
        of_sets = jax.vmap(
            equations.stable_weight, in_axes=(-1, -1, None, 0, None, None), out_axes=-1
        )
        limits = (h["omega_low"], h["omega_high"])
        weight = of_sets(own.uncertainty, own.mask, h["eta"], floor, *limits)
    return 1.0 - h["kappa"] + h["kappa"] * weight


# ------------------------------------------------------------------------------------ critics


def critic_loss(sets: Sets, view: View) -> tuple[Array, Metrics]:
    """The sum over parameter sets of eq. 9."""
    prepared: Prepared = view.targets
    own = prepared.own
    steps = own.mask.shape[0]
    asked = _ask(own, slice(0, steps), own.encoded[..., None, :])
    q = sets.judge(view.params["critic"], asked)[..., 0]
    following = jax.lax.stop_gradient(next_values(sets, view))
    target = own.reward + own.discount * following
    of_sets = jax.vmap(equations.critic_loss, in_axes=-1)
    loss = of_sets(q, target, prepared.weight, own.mask).sum()
    return loss, {
        "loss/critic": loss / sets.num_sets,
        "sit/stage": jnp.float32(3),
        "sit/reward_mean": masked_mean(own.reward, own.mask),
        "sit/uncertainty_mean": masked_mean(own.uncertainty, own.mask),
        "q/taken_mean": masked_mean(q, own.mask),
        "sit/weight_max": jnp.max(prepared.weight * own.mask),
        **_buffer_metrics(sets, view),
    }


def _buffer_metrics(sets: Sets, view: View) -> Metrics:
    metrics: Metrics = {}
    for what in ("ess", "alpha"):
        for k, name in enumerate(sets.names):
            metrics[f"sit/{what}/type_{name}".lower()] = view.tables[what][k]
    return metrics


def next_values(sets: Sets, view: View) -> Array:
    """Q'(tau', a', o') of the data's next action, [T, B, S]; where an episode is cut its mean under
    the policy.

    An episode is cut once, so that only one slot of it needs all actions.
    """
    own: Individual = view.targets.own
    y = jax.lax.stop_gradient(view.targets.y)
    target = view.target_params["critic"]
    steps = own.mask.shape[0]
    asked = _ask(own, slice(1, steps), own.encoded[1:, ..., None, :])
    inner = sets.judge(target, asked)[..., 0]
    inner = jnp.concatenate([inner, jnp.zeros_like(own.mask[:1])])
    at = 1 + jnp.argmax(own.cut, axis=0)  # [B, S] slot after the cut

    def slot(x: Array) -> Array:
        return jnp.take_along_axis(x, at.reshape(1, *at.shape, *(1,) * (x.ndim - 3)), axis=0)

    last = own.replace(history=slot(own.history), obs=slot(own.obs), avail=slot(own.avail))
    after = policy_values(sets, view, target, last, slot(y))
    return jnp.where(own.cut, after, inner)


def policy_values(sets: Sets, view: View, params: Any, own: Individual, y: Array) -> Array:
    """sum_a pi(a) Q(a) in the first slots, [T', B, S]; over drawn actions where they are
    continuous.

    y [T', B, S, .] from the actors.
    """
    slots = slice(0, len(y))
    if isinstance(view.spec.action, Discrete):
        every = jnp.broadcast_to(jnp.eye(y.shape[-1]), (*y.shape, y.shape[-1]))
        probability = jax.nn.softmax(jnp.where(own.avail[slots], y, NEG), axis=-1)
        return (probability * sets.judge(params, _ask(own, slots, every))).sum(-1)
    shape = (*y.shape[:-1], view.config.filter_samples, y.shape[-1])
    std = view.hparams["action_std"]
    actions = offline.noisy(view.key, jnp.tanh(y)[..., None, :], std, shape)
    return sets.judge(params, _ask(own, slots, actions)).mean(-1)


# ------------------------------------------------------------------------------------- actors


def advance_actors(sets: Sets, view: View) -> tuple[LearnerState, Prepared, Metrics]:
    """One step of all actors with the new critics, by what `prepare` has unrolled."""
    prepared: Prepared = view.targets
    objective = jax.grad(partial(actor_loss, sets, view), has_aux=True)
    cotangent, metrics = objective(prepared.y)
    grads = {"actor": prepared.pullback(cotangent)[0]}
    state, norm = optimisers.advance(view, view.learner.steps["actor"], grads)
    return state, prepared, {**metrics, **norm}


def actor_loss(sets: Sets, view: View, y: Array) -> tuple[Array, Metrics]:
    """The sum over parameter sets of eq. 10, with log pi. y [T+1, B, S, .] from the actors."""
    config = view.config
    own: Individual = view.targets.own
    weight = view.targets.weight
    critic = view.params["critic"]
    steps = own.mask.shape[0]
    fixed = jax.lax.stop_gradient(y[:-1])
    q = sets.judge(critic, _ask(own, slice(0, steps), own.encoded[..., None, :]))[..., 0]

    # how good the critics find what the data did
    x = q
    if config.filter != "q":
        x = q - policy_values(sets, view, critic, own, fixed)
    filter_of = jax.vmap(partial(_filter, view), in_axes=-1, out_axes=-1)
    goodness = filter_of(x, own.mask)

    log_pi = log_probability(view, y[:-1], own)
    if config.literal_actor:
        losses = jax.vmap(equations.literal_actor_loss, in_axes=-1)(q, weight, goodness, own.mask)
    else:
        losses = jax.vmap(equations.actor_loss, in_axes=-1)(log_pi, weight, goodness, own.mask)
    return losses.sum(), {
        "loss/actor": losses.mean(),
        "sit/filter_max": jnp.max(jnp.where(own.mask > 0, goodness, 0.0)),
        "sit/log_pi_mean": masked_mean(log_pi, own.mask),
    }


def _filter(view: View, x: Array, mask: Array) -> Array:
    """F of one parameter set, [T, B]; x: values or advantages."""
    h = view.hparams
    config = view.config
    if config.filter == "exponential":
        return equations.exponential_filter(x, h["beta"], h["filter_cap"])
    if config.filter == "binary":
        return equations.binary_filter(x)
    per_step = config.filter_axis == "batch"
    return equations.softmax_filter(x, mask, h["beta"], per_step=per_step)


def log_probability(view: View, y: Array, own: Individual) -> Array:
    """log pi(a | tau) of the data's actions, [T, B, S]: y [T, B, S, .].

    Discrete: softmax over available actions. Continuous: a Gaussian around tanh y with a fixed
    deviation.
    """
    if isinstance(view.spec.action, Discrete):
        log_pi = jax.nn.log_softmax(jnp.where(own.avail[:-1], y, NEG), axis=-1)
        return take_last(log_pi, own.action)
    return offline.log_density(own.encoded, jnp.tanh(y), view.hparams["action_std"])


def choose(acting: Acting) -> Chosen:
    """The best action, or one drawn from the policy: [B, N(, U)]."""
    learner = acting.learner
    actor = learner.networks["actor"]
    hidden, y = actor.unroll(acting.params["actor"], acting.memory["actor"], acting.x)
    return Chosen(action=_action(acting, y[0]), memory={"actor": hidden})


def _action(acting: Acting, y: Array) -> Array:
    """y [B, N, .] from the actors."""
    avail = acting.timestep.avail
    box = acting.learner.spec.action
    if isinstance(box, Box):
        mean = jnp.tanh(y)
        if acting.explore:
            mean = offline.noisy(acting.key, mean, acting.ctx.hparams["action_std"])
        return inputs.decode(mean, box)
    if acting.explore:
        return jax.random.categorical(acting.key, jnp.where(avail, y, NEG), axis=-1)
    return masked_argmax(y, avail)

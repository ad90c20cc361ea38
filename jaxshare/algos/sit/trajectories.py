"""The trajectories that SIT's last stage learns from, and how much each step of them counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxshare.algos.sit import equations
from jaxshare.algos.sit.networks import Question
from jaxshare.algos.sit.rewards import check_batch_size
from jaxshare.algos.sit.sets import Sets
from jaxshare.algos.sit.tables import drawn
from jaxshare.learners.records import View
from jaxshare.models import inputs
from jaxshare.training import replay
from jaxshare.trees import Tree
from jaxshare.types import Array


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

    trajectory: Individual
    weight: Array  # [T, B, S] omega, mixed with 1 by kappa
    y: Array  # [T+1, B, S, .] what the actors say
    # of a cotangent of y, the gradient of the actors' parameters
    pullback: Callable[[Array], tuple[Any]] = struct.field(pytree_node=False)


def draw(sets: Sets, view: View, batch_size: int) -> View:
    """The episodes [T(+1), B * S, ...] of the trajectories that are drawn.

    `values` of the view says whose they are, [B, S].
    """
    check_batch_size(view.batch, batch_size)
    episode, agent = drawn(sets, view, batch_size)
    return view.replace(batch=replay.gather(view.batch, episode.ravel()), values=(episode, agent))


def prepare(sets: Sets, view: View) -> Prepared:
    """Trajectories and their weights, and what the actors say of them.

    Both steps read it, one makes a gradient.
    """
    episode, agent = view.values
    trajectory = trajectories(view, episode, agent)
    start = sets.actor.initial_carry(len(agent))

    def says(params: Tree) -> Array:
        return sets.actor.unroll(params, start, trajectory.history)[1]

    y, pullback = jax.vjp(says, view.params["actor"])
    weight = _weight(sets, view, trajectory)
    return Prepared(trajectory=trajectory, weight=weight, y=y, pullback=pullback)


def trajectories(view: View, episode: Array, agent: Array) -> Individual:
    """Agent `agent`'s part of each of the episodes gathered [T(+1), B * S, ...].

    episode, agent: [B, S].
    """
    config = view.config
    batch = view.batch

    def unfold(x: Array) -> Array:
        return x.reshape(x.shape[0], *agent.shape, *x.shape[2:])

    # what the agent saw and did
    obs = unfold(batch.obs)
    encoded = of_agent(unfold(inputs.encode(batch.action, view.spec)), agent)
    previous = jnp.concatenate([jnp.zeros_like(encoded[:1]), encoded])
    mask = unfold(batch.mask)
    if config.mask_dead:
        mask = mask * of_agent(unfold(batch.alive[:-1]), agent)

    # what it got, out of the tables: [B, S, T] -> [T, B, S]
    def looked_up(name: str) -> Array:
        rows = view.tables[name][episode, :, agent]
        return jnp.moveaxis(rows, -1, 0)[: encoded.shape[0]]

    terminated = unfold(batch.terminated)
    ended = jnp.zeros_like(terminated) if config.literal_bootstrap else terminated
    history = jnp.concatenate([of_agent(obs, agent), previous], axis=-1)
    action = of_agent(unfold(batch.action), agent)
    avail = of_agent(unfold(batch.avail), agent)
    reward = looked_up("reward")
    uncertainty = looked_up("uncertainty")

    # where it bootstraps, and where it has no next action to do that from
    discount = view.hparams["gamma"] * (1.0 - ended.astype(jnp.float32))
    cut = unfold(batch.truncated) | (terminated & ~ended)
    return Individual(
        history=history,
        obs=obs,
        index=agent,
        action=action,
        encoded=encoded,
        avail=avail,
        reward=reward,
        uncertainty=uncertainty,
        discount=discount,
        cut=cut,
        mask=mask,
    )


def of_agent(x: Array, agent: Array) -> Array:
    """x[t, b, s, agent[b, s]]: [T, B, S, N, ...] -> [T, B, S, ...]."""
    at = agent.reshape(1, *agent.shape, *(1,) * (x.ndim - 3))
    return jnp.take_along_axis(x, at, axis=3)[:, :, :, 0]


def question(trajectory: Individual, steps: slice, action: Array) -> Question:
    """About actions [T', B, S, K, E] in some slots."""
    obs = trajectory.obs[steps]
    index = jnp.broadcast_to(trajectory.index[None], obs.shape[:3])
    return Question(history=trajectory.history[steps], action=action, obs=obs, index=index)


def _weight(sets: Sets, view: View, trajectory: Individual) -> Array:
    """omega of every step, mixed with 1 by kappa: [T, B, S]."""
    h = view.hparams
    if not view.config.weighted:
        return jnp.ones_like(trajectory.mask)
    if view.config.literal_weight:
        weight = equations.literal_weight(trajectory.uncertainty, h["eta"])
    else:
        # each parameter set by the median uncertainty of its buffer
        floor = h["omega_floor"] * view.tables["median"][jnp.array(sets.set_buffers)]
        of_sets = jax.vmap(
            equations.stable_weight, in_axes=(-1, -1, None, 0, None, None), out_axes=-1
        )
        limits = (h["omega_low"], h["omega_high"])
        weight = of_sets(trajectory.uncertainty, trajectory.mask, h["eta"], floor, *limits)
    return 1.0 - h["kappa"] + h["kappa"] * weight

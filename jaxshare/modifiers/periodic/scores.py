"""Scores R_i of the agents: their own rewards, returns of solo episodes, or decomposed rewards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxshare.learners.assembly import Assembly
from jaxshare.learners.learner import Learner
from jaxshare.learners.lives import died, living
from jaxshare.learners.passes import with_values
from jaxshare.learners.records import View
from jaxshare.modifiers.periodic.sharing import Sharing
from jaxshare.ops import differ, td
from jaxshare.ops.masking import masked_sum
from jaxshare.ops.schedules import crossed
from jaxshare.training.packing import num_episodes
from jaxshare.training.rollout import Rollout
from jaxshare.trees import Params, Tree
from jaxshare.types import Array, Clock, LearnerState


def scores(sharing: Sharing, view: View) -> Array:
    """R [N] at the time of an average."""
    if sharing.source == "individual":
        return individual_scores(view)
    stats = view.stats[sharing.name]
    return own_scores(stats["returns"], view.clock) if sharing.source == "own" else stats["score"]


def observe(sharing: Sharing, view: View) -> dict[str, Tree]:
    """Write each agent's return of what was just collected into the ring [buffer, N].

    Of episodes, or of pieces of streams.
    """
    stats = view.stats[sharing.name]
    ring = stats["returns"]
    experience = view.batch
    reward = jnp.where(experience.mask[..., None] > 0, experience.reward, 0.0)
    returns = reward.sum(0)  # [B, N]

    # of more episodes than the ring has slots the last ones stay
    count = min(ring.shape[0], returns.shape[0])
    first = view.clock.episodes + returns.shape[0] - count
    slot = (first + jnp.arange(count)) % ring.shape[0]
    ring = ring.at[slot].set(returns[-count:], unique_indices=True)
    return {**view.stats, sharing.name: {**stats, "returns": ring}}


def own_scores(ring: Array, clock: Clock) -> Array:
    """Mean return of each agent over what is in the ring: [buffer, N] -> [N].

    The ratio is that of the sums.
    """
    return ring.sum(0) / jnp.clip(clock.episodes, 1, ring.shape[0]).astype(jnp.float32)


def play_alone(sharing: Sharing, view: View, play: Callable[..., Rollout]) -> LearnerState:
    """If it is time to average, play episodes with each agent's network in everybody's place.

    There are `solo_episodes` for each.
    """
    state = view.state
    updates = view.clock.updates
    due = crossed(updates, updates + sharing.updates_per_batch, sharing.config.period)
    episodes = sharing.scored.solo_episodes
    last = state.stats[sharing.name]

    # return and length of episodes in which all have one agent's networks
    personal = {network: state.params[network] for network in sharing.personal}

    def alone(agent: Params, index: Array) -> tuple[Array, Array]:
        everybody = jax.tree.map(lambda x, all_: jnp.broadcast_to(x, all_.shape), agent, personal)
        how = (acting_as(view.learner, index),) if sharing.scored.solo_id == "network" else ()
        episode = play({**state.params, **everybody}, view.key, episodes, *how).episode
        team = view.spec.team_reward(episode.reward)
        steps = episode.mask.sum().astype(jnp.int32)
        return masked_sum(team, episode.mask) / episodes, steps

    def score() -> dict[str, Array]:
        returns, steps = jax.vmap(alone)(personal, jnp.arange(len(sharing.groups)))
        return {**last, "score": returns, "solo_steps": last["solo_steps"] + steps.sum()}

    stats = jax.lax.cond(due, score, lambda: last)
    return state.replace(stats={**state.stats, sharing.name: stats})


def acting_as(learner: Learner, index: Array) -> Callable[..., Any]:
    """How agents act that all read the index of one of them. index: [] i32.

    A network of one agent has only met that agent's index: nothing has trained what it makes of
    another one.
    """
    reads = replace(learner.reads, everybodys_id=index)
    return Assembly(replace(learner, reads=reads)).act


def individual_scores(view: View) -> Array:
    """R_i, [N]: the sum of agent i's decomposed rewards over an episode, mean over the batch's.

    ours.
    """
    batch = view.batch
    values = with_values(view.replace(key=None)).values

    # DIFFER's eq. 2, where an agent's reward ends with its life
    q_tot, pullback = jax.vjp(values.mix, values.q_taken)
    gradient = pullback(jnp.ones_like(q_tot))[0]
    delta = td.td_error(values.team_reward, values.discount, values.next_q_tot, q_tot)
    wide = jnp.broadcast_to(values.discount[..., None], gradient.shape)
    discount = jnp.where(died(batch), 0.0, wide)
    reward = differ.individual_reward(delta, gradient, values.q_taken, values.next_q, discount)

    is_real = (batch.mask[..., None] > 0) & living(batch)
    return jnp.where(is_real, reward, 0.0).sum((0, 1)) / num_episodes(batch)

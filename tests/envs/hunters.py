"""Scripted predators for the predator-prey tasks of jaxshare.envs.mpe, and what their episodes return."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.envs import mpe


class Outcome(NamedTuple):
    """Means over episodes: the sum of rewards over predators, and steps with a catch."""

    value: float
    caught: float


def chase(state, predators):
    """Each straight towards the prey, along the farther of the two directions: moves [N]."""
    gap = state.position[predators][None] - state.position[:predators]
    axis = jnp.argmax(jnp.abs(gap), axis=1)
    towards = jnp.take_along_axis(gap, axis[:, None], axis=1)[:, 0] > 0
    return (1 + 2 * axis + towards).astype(jnp.int32)


def moves(policy, state, key, predators):
    """What the predators of a policy do: random, still or chase."""
    if policy == "random":
        return jax.random.randint(key, (predators,), 0, 5)
    return chase(state, predators) if policy == "chase" else jnp.zeros(predators, jnp.int32)


def outcome(policy, episodes, seed=0, **settings):
    """Play a policy to the end of each episode."""
    env = mpe.make(mpe.Config(**settings))
    predators = env.spec.num_agents

    def step(carry, key):
        state, running = carry
        key_move, key_step = jax.random.split(key)
        state, shown = env.step(state, moves(policy, state, key_move, predators), key_step)
        gains = running * jnp.sum(shown.reward), running * shown.info["caught"]
        return (state, running * (1 - shown.terminated)), gains

    def episode(key):
        start, _ = env.reset(key)
        _, gains = jax.lax.scan(step, (start, jnp.float32(1)), jax.random.split(key, env.spec.episode_limit))
        return jax.tree.map(jnp.sum, gains)

    values, caught = jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(seed), episodes))
    return Outcome(float(np.mean(values)), float(np.mean(caught)))

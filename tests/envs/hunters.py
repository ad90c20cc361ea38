"""Scripted predators of sparse_tag: what random play, standing still and a chase return."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.envs.mpe import environment as mpe


class Outcome(NamedTuple):
    """Means over episodes: the sum of rewards over predators, and steps with a catch."""

    value: float
    caught: float


def chase(state: Any, predators: int) -> jax.Array:
    """Each straight towards the prey, along the farther of the two directions: moves [N]."""
    gap = state.position[predators][None] - state.position[:predators]
    axis = jnp.argmax(jnp.abs(gap), axis=1)
    towards = jnp.take_along_axis(gap, axis[:, None], axis=1)[:, 0] > 0
    return (1 + 2 * axis + towards).astype(jnp.int32)


def moves(policy: str, state: Any, key: jax.Array, predators: int) -> jax.Array:
    """What the predators of a policy do: random, still or chase."""
    if policy == "random":
        return jax.random.randint(key, (predators,), 0, 5)
    return chase(state, predators) if policy == "chase" else jnp.zeros(predators, jnp.int32)


def outcome(policy: str, episodes: int, seed: int = 0, **settings: Any) -> Outcome:
    """Play a policy, each episode to its end."""
    env = mpe.make(mpe.Config(**settings))
    predators = env.spec.num_agents

    def step(carry: Any, key: jax.Array) -> tuple[Any, Any]:
        state, running = carry
        key_move, key_step = jax.random.split(key)
        state, shown = env.step(state, moves(policy, state, key_move, predators), key_step)
        gains = (running * jnp.sum(shown.reward), running * shown.info["caught"])
        return (state, running * (1 - shown.terminated)), gains

    def episode(key: jax.Array) -> Any:
        start, _ = env.reset(key)
        keys = jax.random.split(key, env.spec.episode_limit)
        _, gains = jax.lax.scan(step, (start, jnp.float32(1)), keys)
        return jax.tree.map(jnp.sum, gains)

    values, caught = jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(seed), episodes))
    return Outcome(float(np.mean(values)), float(np.mean(caught)))

"""How prey moves."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxshare.envs.mpe.particles import (
    ARENA,
    DIRECTIONS,
    NUM_MOVES,
    State,
    distances,
    nearest,
    thrust,
)
from jaxshare.types import Array

REACH = 0.2  # ours: how far ahead fleeing prey looks; it covers at most 0.13 in one step
WALL = 10.0  # ours: the walls weigh as in the original's charge, 10 per unit
ACCEL = 4.0  # mpe2's simple_tag

Prey = Callable[[State, Array], Array]  # (state, key) -> force [1, 2]


def flee_action(position: Array, predators: Array) -> Array:
    """The move that ends farthest from the nearest predator and inside the arena, [] i32.

    position: [2]; predators: [P, 2].
    """
    ends = position[None] + REACH * jnp.array(DIRECTIONS)
    closest = jnp.min(distances(ends, predators), axis=1)
    outside = jnp.sum(jnp.maximum(jnp.abs(ends) - ARENA, 0.0), axis=1)
    return jnp.argmax(closest - WALL * outside).astype(jnp.int32)


def walking(predators: int, policy: str) -> Prey:
    """The prey of `tag`: one of the five moves. policy: flee or random."""

    def prey(state: State, key: Array) -> Array:
        if policy == "random":
            move = jax.random.randint(key, (), 0, NUM_MOVES)
        else:
            move = flee_action(state.position[predators], state.position[:predators])
        return thrust(move[None], ACCEL)

    return prey


def running(predators: int, policy: str) -> Prey:
    """paper: a prey that moves straight away from the nearest predator, in any direction."""
    if policy == "random":
        return walking(predators, policy)

    def prey(state: State, key: Array) -> Array:
        apart = state.position[None, predators] - state.position[:predators]
        away = nearest(apart[None], 1)[0]
        return ACCEL * away / jnp.maximum(jnp.sqrt(jnp.sum(away**2)), 1e-6)

    return prey

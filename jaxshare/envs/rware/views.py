"""What robots of the multi-robot warehouse see.

A cell is a code of seven bits: robot, its direction (four), shelf, requested.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.envs.rware.layout import Layout
from jaxshare.envs.rware.state import State, row_words
from jaxshare.types import Array

BITS = 7
LOADED = 5  # the bit of "shelf" in a cell's code


def observing(layout: Layout, normalised: bool) -> Callable[[State], Array]:
    """A function that shows each robot what it sees, f32 [N, O].

    normalised: own column and row as numbers from 0 to 1.
    """
    n = layout.num_agents
    code_cells = _coding(layout)
    columns = _shares(layout.width)
    rows = _shares(layout.height)

    def observe(state: State) -> Array:
        facing = jnp.uint32(2) << state.direction.astype(jnp.uint32)
        on_highway = layout.is_highway(state.x, state.y)
        itself = (state.carrying | facing | (on_highway << 5)).astype(jnp.uint32)
        code = jnp.concatenate([itself[:, None], code_cells(state, facing)], axis=1)

        # the barrier keeps the compiler from calculating a code anew for each of its bits
        code = jax.lax.optimization_barrier(code)
        shift = np.arange(BITS, dtype=np.uint32)[None, None, :]
        bits = (code[:, :, None] >> shift) & 1
        flat = bits.reshape(n, -1).astype(jnp.float32)

        # where the robot stands
        place = [state.x.astype(jnp.float32), state.y.astype(jnp.float32)]
        if normalised:
            place = [jnp.asarray(columns)[state.x], jnp.asarray(rows)[state.y]]

        # the robot itself has six bits only
        features = [jnp.stack(place, axis=1), flat[:, :6], flat[:, 7:]]
        return jnp.concatenate(features, axis=1)

    return observe


def _shares(size: int) -> np.ndarray:
    """Coordinates 0 to size - 1 as numbers from 0 to 1, f32 [size]."""
    return (np.arange(size) / (size - 1)).astype(np.float32)


def _coding(layout: Layout) -> Callable[[State, Array], Array]:
    """A function of the state and the bits of directions [N]: codes of cells u32 [N, cells]."""
    r = layout.sensor_range
    reach = np.arange(-r, r + 1)

    # rows so wide that a difference of positions names one offset only
    stride = layout.width + 2 * r
    offsets = reach[:, None] * stride + reach[None, :]
    offsets = offsets.reshape(-1).astype(np.int32)

    def code_cells(state: State, facing: Array) -> Array:
        load = (state.carrying << LOADED) | (state.wanted << LOADED + 1)
        robot = (1 | facing | load).astype(jnp.uint32)

        # which robot is on which cell around another
        position = state.y * stride + state.x
        apart = position[None, :] - position[:, None]
        there = apart[:, None, :] == offsets[None, :, None]
        code = jnp.sum(jnp.where(there, robot[None, None, :], 0), axis=2, dtype=jnp.uint32)
        code = jnp.where(code == 0, 2, code)  # code: the direction of nobody is up

        # shelves
        standing = _square(r, state.shelves, state) << LOADED
        requested = _square(r, state.requests, state) << LOADED + 1
        return code | standing | requested

    return code_cells


def _square(r: int, words: Array, state: State) -> Array:
    """The bits around each robot as far as r, u32 [N, (2r + 1)^2]. words: [rows], a map."""
    n = state.x.shape[0]
    side = 2 * r + 1
    reach = np.arange(-r, r + 1, dtype=np.int32)
    y = state.y[:, None] + reach[None, :]
    word = row_words(words, y.reshape(-1)).reshape(n, side)

    # bit 0 becomes the leftmost column in view
    word = word << jnp.maximum(r - state.x, 0).astype(jnp.uint32)[:, None]
    word = word >> jnp.maximum(state.x - r, 0).astype(jnp.uint32)[:, None]
    shift = np.arange(side, dtype=np.uint32)[None, None, :]
    bits = (word[:, :, None] >> shift) & 1
    return bits.reshape(n, side * side)

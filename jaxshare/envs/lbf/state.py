"""One game of level-based foraging, and the distances in it."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct

from jaxshare.types import Array


@struct.dataclass
class State:
    """One game. A food of level 0 is eaten, or was never there."""

    row: Array  # [N] i32
    col: Array  # [N] i32
    level: Array  # [N] i32
    food_row: Array  # [F] i32, foods in scan order
    food_col: Array  # [F] i32
    food_level: Array  # [F] i32
    num_spawned: Array  # [] i32
    spawned_level: Array  # [] i32: sum of the levels of all foods at the start
    step: Array  # [] i32


def moves_to_food(row: Array, col: Array, state: State) -> Array:
    """How many moves each of the cells [N] is away from each food's, [N, F]."""
    rows_away = jnp.abs(row[:, None] - state.food_row[None])
    cols_away = jnp.abs(col[:, None] - state.food_col[None])
    return rows_away + cols_away


def tables(state: State) -> tuple[Array, Array]:
    """(row, column, level) of the players [N, 3] and of the foods [F, 3].

    Foods that are not there are (-1, -1, 0).
    """
    present = state.food_level > 0
    food_row = jnp.where(present, state.food_row, -1)
    food_col = jnp.where(present, state.food_col, -1)
    players = jnp.stack([state.row, state.col, state.level], axis=1)
    return players, jnp.stack([food_row, food_col, state.food_level], axis=1)

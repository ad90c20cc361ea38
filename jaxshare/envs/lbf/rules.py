"""The rules of level-based foraging: who moves, who loads, what is paid, and what may be done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxshare.envs.lbf.settings import Config
from jaxshare.envs.lbf.state import State, moves_to_food
from jaxshare.envs.lbf.task import Task
from jaxshare.types import Array

NONE, NORTH, SOUTH, WEST, EAST, LOAD = range(6)
NUM_ACTIONS = 6
STEPS = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))  # (down, right) of all actions but LOAD


class Loading(NamedTuple):
    """What loading led to in one step."""

    eaten: Array  # [F] bool
    reward: Array  # [N] f32


def playing(config: Config, task: Task) -> Callable[[State, Array], tuple[State, Array, Array]]:
    """A function of the state and the actions [N].

    It returns the next state, the rewards [N] and the share of all food eaten in this step, [].
    """

    def play(state: State, action: Array) -> tuple[State, Array, Array]:
        row = state.row + (action == SOUTH) - (action == NORTH)
        col = state.col + (action == EAST) - (action == WEST)
        away = moves_to_food(row, col, state)
        row, col = _places(task, state, row, col, away)

        # those who load stay, so `away` is measured from where they stand
        loading = (action == LOAD)[:, None] & (away == 1) & (state.food_level > 0)[None]
        eaten, reward = _load(config, state, loading)
        eaten_share = jnp.sum(eaten) / jnp.maximum(state.num_spawned, 1).astype(jnp.float32)
        state = replace(
            state,
            row=row,
            col=col,
            food_level=jnp.where(eaten, 0, state.food_level),
            step=state.step + 1,
        )
        return state, reward, eaten_share

    return play


def _places(task: Task, state: State, row: Array, col: Array, away: Array) -> tuple[Array, Array]:
    """Where players [N] end who want to go to the cells (row, col).

    away: [N, F], moves from these cells to the foods.
    """
    inside = within(row, task.rows) & within(col, task.cols)
    legal = inside & jnp.all((away > 0) | (state.food_level == 0)[None], axis=1)
    row = jnp.where(legal, row, state.row)
    col = jnp.where(legal, col, state.col)

    # where two or more have the same target, none of these moves
    other = ~np.eye(task.players, dtype=bool)
    same_cell = (row[:, None] == row[None]) & (col[:, None] == col[None])
    clash = jnp.any(same_cell & other, axis=1)
    return jnp.where(clash, state.row, row), jnp.where(clash, state.col, col)


def _load(config: Config, state: State, loading: Array) -> Loading:
    """loading: [N, F] bool, who loads which food."""
    strength = jnp.sum(jnp.where(loading, state.level[:, None], 0), axis=0)
    eaten = (strength >= state.food_level) & (strength > 0)

    # each level that took part is worth the same
    worth = jnp.where(eaten, state.food_level, 0).astype(jnp.float32)
    if config.normalize_reward:
        worth = worth / jnp.maximum(strength * state.spawned_level, 1).astype(jnp.float32)
    gain = worth[None] * state.level.astype(jnp.float32)[:, None]
    if config.penalty:
        gain = jnp.where(eaten[None], gain, -config.penalty)
    return Loading(eaten, jnp.sum(jnp.where(loading, gain, 0.0), axis=1))


def allowed_actions(task: Task, state: State) -> Array:
    """The original's valid actions [N, 6]: moves to cells without food, loading beside a food."""
    columns = []
    for down, right in STEPS:
        row = state.row + down
        col = state.col + right
        away = moves_to_food(row, col, state)
        clear = jnp.all((away > 0) | (state.food_level == 0)[None], axis=1)
        columns.append(within(row, task.rows) & within(col, task.cols) & clear)
    away = moves_to_food(state.row, state.col, state)
    beside = (away == 1) & (state.food_level > 0)[None]
    return jnp.stack([*columns, jnp.any(beside, axis=1)], axis=1)


def within(x: Array, size: int) -> Array:
    """Which of these rows or columns the grid has: [...] -> [...] bool."""
    return (x >= 0) & (x < size)

"""How a game of level-based foraging begins: where players and foods stand, and their levels."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.envs.lbf.settings import Config
from jaxshare.envs.lbf.state import State
from jaxshare.envs.lbf.task import Task
from jaxshare.types import Array

APART = 2  # two foods are more moves apart than this
COLUMN_BITS = 5  # a cell as one number: row * 32 + column
CELL_BITS = 10


def drawing(config: Config, task: Task) -> Callable[[Array], State]:
    """A function of a key that draws the start of a game."""
    num_cells = task.rows * task.cols
    place = _placing(config, task)

    def draw(key: Array) -> State:
        bits = jax.random.bits(key, (num_cells + task.players + task.foods,))
        player, food = place(bits[:num_cells])

        # levels
        numbers = (bits[num_cells:] >> 1).astype(jnp.int32)
        level = _player_levels(config, numbers[: task.players])
        present = food >= 0
        food_level = _food_levels(config, task, numbers[task.players :], level)
        food_level = jnp.where(present, food_level, 0)

        # cells as rows and columns
        row, col = _row_and_column(player)
        food_row, food_col = _row_and_column(food)
        food_row = jnp.where(present, food_row, -1)
        food_col = jnp.where(present, food_col, -1)

        # counts of the start
        num_spawned = jnp.sum(present, dtype=jnp.int32)
        spawned_level = jnp.sum(food_level)
        step = jnp.zeros((), jnp.int32)
        return State(
            row=row,
            col=col,
            level=level,
            food_row=food_row,
            food_col=food_col,
            food_level=food_level,
            num_spawned=num_spawned,
            spawned_level=spawned_level,
            step=step,
        )

    return draw


def _player_levels(config: Config, numbers: Array) -> Array:
    """Levels [N] of random numbers [N]."""
    choices = config.max_player_level - config.min_player_level + 1
    return config.min_player_level + numbers % choices


def _food_levels(config: Config, task: Task, numbers: Array, level: Array) -> Array:
    """Levels of foods [F], or [] of all. numbers: [F] random ones; level: [N] of the players."""
    lowest = sum(_ascending(list(level))[:3], start=jnp.zeros((), jnp.int32))
    most = lowest if config.max_food_level is None else jnp.int32(config.max_food_level)
    if task.coop:
        return jnp.broadcast_to(most, (task.foods,))
    choices = most if config.rules == "v3" else jnp.maximum(most - 1, 1)
    return 1 + numbers % choices


def _placing(config: Config, task: Task) -> Callable[[Array], tuple[Array, Array]]:
    """See `place` in it."""
    row, col = _cells(task)
    cell = row << COLUMN_BITS | col
    entry = np.ones(cell.size, bool)  # cells where players start
    if config.rules == "v1":  # code: numpy's randint, whose upper end is not drawn
        entry = (row < task.rows - 1) & (col < task.cols - 1)
    inner_row = (row > 0) & (row < task.rows - 1)
    inner_col = (col > 0) & (col < task.cols - 1)
    inner = inner_row & inner_col

    def place(bits: Array) -> tuple[Array, Array]:
        """Cells of the players [N] and of the foods [F] in scan order, -1 for those without room.

        Random tries until one is valid visit the cells in a random order. All share one order here,
        as none that was passed over becomes valid later.
        """
        # the cell also breaks ties
        order = ((bits >> (CELL_BITS + 1)) << CELL_BITS).astype(jnp.int32) | cell

        # players: the first cells of the order, no inner one is lost
        players = []
        order = jnp.where(entry, order, -1)
        for _ in range(task.players):
            best = jnp.max(order)
            order = jnp.where(order == best, -1, order)
            players.append(best & (2**CELL_BITS - 1))

        # foods: the first inner cells that are not too near to another
        foods = []
        order = jnp.where(inner, order, -1)
        for _ in range(task.foods):
            best = jnp.max(order)
            taken = best & (2**CELL_BITS - 1)
            rows_away = jnp.abs(row - (taken >> COLUMN_BITS))
            cols_away = jnp.abs(col - (taken & (2**COLUMN_BITS - 1)))
            order = jnp.where(rows_away + cols_away > APART, order, -1)
            foods.append(jnp.where(best >= 0, taken, 2**CELL_BITS))
        ordered = jnp.stack(_ascending(foods))
        return jnp.stack(players), jnp.where(ordered < 2**CELL_BITS, ordered, -1)

    return place


def _row_and_column(cell: Array) -> tuple[Array, Array]:
    """Of cells [K] as numbers, [K] each."""
    return cell >> COLUMN_BITS, cell & (2**COLUMN_BITS - 1)


def _cells(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of every cell of the grid, in scan order."""
    row, col = np.mgrid[: task.rows, : task.cols]
    return row.ravel().astype(np.int32), col.ravel().astype(np.int32)


def _ascending(numbers: list[Array]) -> list[Array]:
    """Sorted by exchanges of neighbours: on so few XLA's sort is slower, and slow to compile."""
    for k in range(len(numbers)):
        for i in range(k % 2, len(numbers) - 1, 2):
            low = jnp.minimum(numbers[i], numbers[i + 1])
            high = jnp.maximum(numbers[i], numbers[i + 1])
            numbers[i : i + 2] = [low, high]
    return numbers

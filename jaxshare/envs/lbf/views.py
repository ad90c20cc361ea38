"""What agents see of level-based foraging. Tables have rows of (row, column, level)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.envs.lbf.rules import within
from jaxshare.envs.lbf.task import Task
from jaxshare.types import Array

# players [N, 3], foods [F, 3], which foods are there [F] -> observations [N, O]
Observe = Callable[[Array, Array, Array], Array]
ABSENT = np.array([-1, -1, 0], np.int32)  # a food or a player that is not seen


def observing(grid_observation: bool, task: Task) -> Observe:
    """The view of a task: of a grid, of all there is, or of what is near."""
    if grid_observation:
        return observe_grid(task)
    if task.sight >= max(task.rows, task.cols) - 1:
        return observe_all
    return observe_near(task.sight)


def observe_all(players: Array, foods: Array, present: Array) -> Array:
    """Full sight: [N, 3 * (F + N)]."""
    n = players.shape[0]
    remaining = _close_up(foods, present)
    remaining = jnp.broadcast_to(remaining[None], (n, *remaining.shape))
    visible = jnp.concatenate([remaining, _self_first(players)], axis=1)
    return visible.reshape(n, -1).astype(jnp.float32)


def observe_near(sight: int) -> Observe:
    """Partial sight: [N, 3 * (F + N)], coordinates from the upper left corner of the view."""

    def observe(players: Array, foods: Array, present: Array) -> Array:
        here = players[:, None, :2]
        away = jnp.abs(foods[None, :, :2] - here)
        near = jnp.all(away <= sight, axis=2) & present[None]

        # levels have no corner
        corner = jnp.pad(jnp.maximum(here - sight, 0), ((0, 0), (0, 0), (0, 1)))
        listed = _self_first(players) - corner

        # code: at the top and left borders this reaches farther than the view of the foods
        in_view = (listed[..., :2] >= 0) & (listed[..., :2] <= 2 * sight)
        visible = jnp.all(in_view, axis=2)
        near_foods = jax.vmap(_close_up)(foods[None] - corner, near)
        near_players = jax.vmap(_close_up)(listed, visible)
        view = jnp.concatenate([near_foods, near_players], axis=1)
        return view.reshape(players.shape[0], -1).astype(jnp.float32)

    return observe


def observe_grid(task: Task) -> Observe:
    """Layers around each agent, flat [N, 3 * (2 * sight + 1)^2].

    They are levels of agents, levels of foods, and free cells.
    """
    offset = np.arange(-task.sight, task.sight + 1)

    def observe(players: Array, foods: Array, present: Array) -> Array:
        # rows and columns [N, W] of the cells in view
        row = players[:, 0, None] + offset[None]
        col = players[:, 1, None] + offset[None]
        row_inside = within(row, task.rows)[:, :, None]
        col_inside = within(col, task.cols)[:, None, :]
        free = row_inside & col_inside
        agents = jnp.zeros(free.shape, jnp.int32)
        food = jnp.zeros(free.shape, jnp.int32)

        def at(thing: Array) -> Array:
            return (row == thing[0])[:, :, None] & (col == thing[1])[:, None, :]

        for j in range(len(players)):  # code: of two on one cell the later one's level is in view
            agents = jnp.where(at(players[j]), players[j, 2], agents)
            free &= ~at(players[j])
        for j in range(len(foods)):
            food = jnp.where(at(foods[j]) & present[j], foods[j, 2], food)
            free &= ~(at(foods[j]) & present[j])
        layers = jnp.stack([agents, food, free.astype(jnp.int32)], axis=1)
        return layers.reshape(len(players), -1).astype(jnp.float32)

    return observe


def _close_up(table: Array, visible: Array) -> Array:
    """The visible rows of table [K, 3] first, in order, then (-1, -1, 0). visible: [K] bool."""
    slot = np.arange(visible.shape[0])

    # the slot of a row is the number of visible ones before it
    is_before = slot[None] < slot[:, None]
    before = jnp.sum(visible[None] & is_before, axis=1)
    here = (before[None] == slot[:, None]) & visible[None]  # [slot, row of the table]
    entries = jnp.where(here[..., None], (table - ABSENT[None])[None], 0)
    return jnp.sum(entries, axis=1) + ABSENT[None]


def _self_first(table: Array) -> Array:
    """table [N, 3] as each agent lists it: [N, N, 3], itself first and the others in order."""
    n = table.shape[0]
    agent = np.arange(n)[:, None]
    behind = (np.arange(n - 1)[None] < agent)[..., None]
    others = jnp.where(behind, table[None, :-1], table[None, 1:])
    return jnp.concatenate([table[:, None], others], axis=1)

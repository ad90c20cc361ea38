"""Who turns and who moves in the multi-robot warehouse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from jaxshare.envs.rware import ties
from jaxshare.envs.rware.layout import Layout
from jaxshare.envs.rware.state import (
    DOWN,
    EAST,
    FORWARD,
    LEFT,
    RIGHT,
    UP,
    WEST,
    State,
    has_bit,
)
from jaxshare.types import Array


def driving(layout: Layout) -> Callable[[State, Array], State]:
    """A function of the state and the actions [N] that turns robots, and moves those that may."""
    known = ties.tables(layout.height, layout.width)

    def drive(state: State, action: Array) -> State:
        # the cell in front
        d = state.direction
        x = state.x + (d == EAST) - (d == WEST)
        y = state.y + (d == DOWN) - (d == UP)
        inside = (x >= 0) & (x < layout.width) & (y >= 0) & (y < layout.height)

        # code: a loaded robot may not drive under a standing shelf, even one about to be loaded
        forward = (action == FORWARD) & inside & ~(state.carrying & has_bit(state.shelves, x, y))
        cell = state.y * layout.width + state.x
        target = jnp.where(forward, y * layout.width + x, cell)
        forward = forward & _movers(cell, target, forward, known)
        x = jnp.where(forward, x, state.x)
        y = jnp.where(forward, y, state.y)
        return replace(state, x=x, y=y, direction=_turned(d, action))

    return drive


def _turned(d: Array, action: Array) -> Array:
    """Directions [N] after the actions [N]."""
    left = jnp.where(d == UP, WEST, jnp.where(d == WEST, DOWN, jnp.where(d == DOWN, EAST, UP)))
    right = jnp.where(d == UP, EAST, jnp.where(d == EAST, DOWN, jnp.where(d == DOWN, WEST, UP)))
    return jnp.where(action == LEFT, left, jnp.where(action == RIGHT, right, d))


def _movers(cell: Array, target: Array, forward: Array, known: ties.Tables) -> Array:
    """Which robots get the cells that they want, bool [N].

    Robots that want each other's cells form chains. A chain that ends in an empty cell moves, and
    one that is a circle of four or more; one that ends at a standing robot or at two who want to
    swap does not. Where chains meet, only the longest goes on, and no chain joins a circle.
    """
    n = cell.shape[0]
    if n == 1:
        return forward
    follows = (target[:, None] == cell[None, :]) & forward[:, None]  # i wants the cell of j
    target_free = forward & ~jnp.any(follows, axis=1)
    queues = ties.Queues(cell, target, follows, target_free)

    # the length of the longest chain behind each robot
    behind = jnp.zeros(n, jnp.int32)
    for _ in range(n - 1):
        behind = jnp.max(jnp.where(follows, behind[:, None] + 1, 0), axis=0)

    # of all who want a cell the one with the longest chain may go there
    same_target = target[:, None] == target[None, :]
    rivals = same_target & forward[:, None] & forward[None, :]
    same_length = behind[:, None] == behind[None, :]
    tied = rivals & same_length & ~np.eye(n, dtype=bool)
    place = _order(queues, jnp.any(tied, axis=1), known)
    last = jnp.iinfo(jnp.int32).max // 2
    score = behind * (last // n) - place
    best_score = jnp.max(jnp.where(rivals, score[None, :], -last), axis=1)
    best = forward & (score == best_score)

    # not those who want to swap, nor those behind somebody who stays
    first = best & ~jnp.any(follows & follows.T, axis=1)
    moves = first
    for _ in range(n - 1):
        moves = first & (target_free | jnp.any(follows & moves[None, :], axis=1))
    return moves


def _order(queues: ties.Queues, contested: Array, known: ties.Tables) -> Array:
    """Places [N] i32 in the order that decides between equal chains. contested: [N] bool."""
    n = contested.shape[0]

    # code: the robot whose cell was first named wins, as its own or as the target of another
    named = 2 * np.arange(n, dtype=np.int32)
    by_others = jnp.min(jnp.where(queues.follows, named[:, None] + 1, 2 * n), axis=0)
    place = jnp.minimum(named, by_others)
    if n > 3:
        place = ties.break_ties(place, contested, queues, known)
    return place

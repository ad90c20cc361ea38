"""The rules of the multi-robot warehouse: what a map is, who moves, loads and delivers, and what robots see.

Source and departures: see `rware`. Every row of the map is one word with a bit per column, which makes a step cheap: a
picture of 3 by 3 cells is three words shifted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxshare.envs import _rware_order
from jaxshare.types import Array

NOOP, FORWARD, LEFT, RIGHT, TOGGLE = range(5)
UP, DOWN, WEST, EAST = range(4)  # of a robot: what the original calls up, down, left, right
LOADED = (
    5  # the bit of "shelf" in a cell's code of seven: robot, its direction (4), shelf, requested
)


@struct.dataclass
class State:
    """A warehouse. Bit x of word y is the cell in column x of row y; a shelf that is carried is on no map."""

    x: Array  # [N] i32
    y: Array  # [N] i32
    direction: Array  # [N] i32: up, down, left, right
    carrying: Array  # [N] bool
    wanted: Array  # [N] bool: the carried shelf is requested
    delivered: Array  # [N] bool: the carried shelf was delivered and is to be put back
    shelves: Array  # [rows] u32: standing shelves
    requests: Array  # [rows] u32: standing shelves that are requested
    steps: Array  # [] i32
    inactive: Array  # [] i32: steps since the last delivery


@dataclass(frozen=True)
class Layout:
    """What a scenario's name says, and what follows from it."""

    shelf_rows: int
    shelf_columns: int
    column_height: int
    num_agents: int
    num_requests: int
    sensor_range: int
    reward_type: str
    height: int = field(init=False)
    width: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "height", (self.column_height + 1) * self.shelf_rows + 2)
        object.__setattr__(self, "width", 3 * self.shelf_columns + 1)

    @property
    def goals(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Cells (x, y) in the middle of the last row, in the order of the original."""
        return (self.width // 2 - 1, self.height - 1), (self.width // 2, self.height - 1)

    def is_highway(self, x: Any, y: Any) -> Any:
        """Whether no shelf may stand there: corridors, the last row, and the way to the goals."""
        queue = (y > self.height - (self.column_height + 3)) & (
            (x == self.goals[0][0]) | (x == self.goals[1][0])
        )
        return (x % 3 == 0) | (y % (self.column_height + 1) == 0) | (y == self.height - 1) | queue

    def shelf_cells(self) -> np.ndarray:
        """Where shelves stand at first, bool [rows, columns]."""
        y, x = np.indices((self.height, self.width))
        return ~np.asarray(self.is_highway(x, y))


def _row(words: Array, y: Array) -> Array:
    """words[y] for y [K], and 0 outside of the map; a comparison is faster here than a gather."""
    rows = np.arange(words.shape[0], dtype=np.int32)
    return jnp.sum(
        jnp.where(y[:, None] == rows[None, :], words[None, :], 0), axis=1, dtype=jnp.uint32
    )


def _has(words: Array, x: Array, y: Array) -> Array:
    """Whether the bit of cell (x, y) is set, bool [K]."""
    return (_row(words, y) >> x.astype(jnp.uint32)) & 1 == 1


def driving(layout: Layout) -> Callable[[State, Array], State]:
    """A function that turns the robots, and moves those that may."""
    known = _rware_order.tables(layout.height, layout.width)

    def drive(state: State, action: Array) -> State:
        d = state.direction
        x = state.x + (d == EAST) - (d == WEST)
        y = state.y + (d == DOWN) - (d == UP)
        inside = (x >= 0) & (x < layout.width) & (y >= 0) & (y < layout.height)
        # code: a loaded robot may not drive under a standing shelf, one that is about to be carried away included
        forward = (action == FORWARD) & inside & ~(state.carrying & _has(state.shelves, x, y))
        cell = state.y * layout.width + state.x
        target = jnp.where(forward, y * layout.width + x, cell)
        forward = forward & _movers(cell, target, forward, known)
        left = jnp.where(d == UP, WEST, jnp.where(d == WEST, DOWN, jnp.where(d == DOWN, EAST, UP)))
        right = jnp.where(d == UP, EAST, jnp.where(d == EAST, DOWN, jnp.where(d == DOWN, WEST, UP)))
        return state.replace(  # type: ignore[attr-defined]
            x=jnp.where(forward, x, state.x),
            y=jnp.where(forward, y, state.y),
            direction=jnp.where(action == LEFT, left, jnp.where(action == RIGHT, right, d)),
        )

    return drive


def _movers(cell: Array, target: Array, forward: Array, known: _rware_order.Tables) -> Array:
    """Who gets the cell that he wants, bool [N].

    Robots that want each other's cells form chains. A chain that ends in an empty cell moves, and one that is a circle
    of four or more; one that ends at a standing robot or at two who want to swap does not. Where chains meet, only the
    longest goes on, and no chain joins a circle.
    """
    n = cell.shape[0]
    if n == 1:
        return forward
    follows = (target[:, None] == cell[None, :]) & forward[:, None]  # i wants the cell of j
    rivals = (target[:, None] == target[None, :]) & forward[:, None] & forward[None, :]
    behind = jnp.zeros(n, jnp.int32)  # length of the longest chain behind each robot
    for _ in range(n - 1):
        behind = jnp.max(jnp.where(follows, behind[:, None] + 1, 0), axis=0)
    target_free = forward & ~jnp.any(follows, axis=1)
    # code: of equal chains the one whose robot's cell was first named wins, as the robot's own or as another's target
    own = 2 * np.arange(n, dtype=np.int32)
    place = jnp.minimum(own, jnp.min(jnp.where(follows, own[:, None] + 1, 2 * n), axis=0))
    if n > 3:
        tied = rivals & (behind[:, None] == behind[None, :]) & ~np.eye(n, dtype=bool)
        place = _rware_order.break_ties(
            place, jnp.any(tied, axis=1), follows, target_free, cell, target, known
        )
    last = jnp.iinfo(jnp.int32).max // 2
    score = behind * (last // n) - place
    best = forward & (score == jnp.max(jnp.where(rivals, score[None, :], -last), axis=1))
    moves = best & ~jnp.any(follows & follows.T, axis=1)
    first = moves
    for _ in range(n - 1):
        moves = first & (target_free | jnp.any(follows & moves[None, :], axis=1))
    return moves


def toggle(layout: Layout, state: State, action: Array) -> tuple[State, Array]:
    """Loads and unloads. Also returns who put a delivered shelf back, bool [N]."""
    toggle = action == TOGGLE
    x = state.x.astype(jnp.uint32)
    load = toggle & ~state.carrying & _has(state.shelves, state.x, state.y)
    unload = toggle & state.carrying & ~layout.is_highway(state.x, state.y)
    requested = jnp.where(state.carrying, state.wanted, _has(state.requests, state.x, state.y))
    carrying = jnp.where(load, True, state.carrying & ~unload)
    rows = np.arange(layout.height, dtype=np.int32)
    here = (state.y[:, None] == rows[None, :]) & (load | unload)[:, None]
    changed = jnp.where(here, (jnp.uint32(1) << x)[:, None], 0)
    put_back = unload & state.delivered
    state = state.replace(  # type: ignore[attr-defined]
        carrying=carrying,
        wanted=carrying & requested,
        delivered=state.delivered & ~unload,
        shelves=state.shelves ^ jnp.sum(changed, axis=0, dtype=jnp.uint32),
        requests=state.requests
        ^ jnp.sum(jnp.where(requested[:, None], changed, 0), axis=0, dtype=jnp.uint32),
    )
    return state, put_back


def draws(layout: Layout, key: Array) -> Array:
    """For each goal the place of a new request among the shelves without one, i32 [2]."""
    spare = int(layout.shelf_cells().sum()) - layout.num_requests
    return jnp.floor(jax.random.uniform(key, (2,)) * spare).astype(jnp.int32)


def delivering(layout: Layout) -> Callable[[State, Array], tuple[State, Array]]:
    """A function that replaces the requests met at the goals, one goal after the other. Also who delivered, bool [N].

    Its second argument are the `draws`.
    """
    before = np.tri(layout.height, k=-1, dtype=bool)
    below = (1 << np.arange(layout.width, dtype=np.uint32)) - np.uint32(1)
    earlier = np.tri(layout.num_agents, k=-1, dtype=bool)

    def request(state: State, place: Array, happens: Array) -> State:
        """Requests the shelf at `place` among those not requested: first the standing ones by row, then the carried."""
        spare = state.shelves & ~state.requests
        count = jax.lax.population_count(spare).astype(jnp.int32)
        start = jnp.sum(jnp.where(before, count[None, :], 0), axis=1)
        row = (start <= place) & (place < start + count)
        word = jnp.sum(jnp.where(row, spare, 0), dtype=jnp.uint32)
        place_in_row = jnp.sum(jnp.where(row, place - start, 0))
        rank = jax.lax.population_count(word & below).astype(jnp.int32)
        bit = np.uint32(1) << np.arange(layout.width, dtype=np.uint32)
        chosen = jnp.sum(
            jnp.where((rank == place_in_row) & (word & bit != 0), bit, 0), dtype=jnp.uint32
        )
        carried = state.carrying & ~state.wanted
        rank = jnp.sum(count) + jnp.sum(
            jnp.where(earlier, carried[None, :], False), axis=1, dtype=jnp.int32
        )
        return state.replace(  # type: ignore[attr-defined]
            requests=state.requests | jnp.where(row & happens, chosen, 0),
            wanted=state.wanted | (carried & (rank == place) & happens),
        )

    def deliver(state: State, places: Array) -> tuple[State, Array]:
        paid = jnp.zeros_like(state.carrying)
        for i, (x, y) in enumerate(layout.goals):
            here = (state.x == x) & (state.y == y) & state.wanted
            state = request(state, places[i], jnp.any(here))
            state = state.replace(wanted=state.wanted & ~here)  # type: ignore[attr-defined]
            paid = paid | here
        return state.replace(delivered=state.delivered | paid), paid  # type: ignore[attr-defined]

    return deliver


def observing(layout: Layout, normalised: bool) -> Callable[[State], Array]:
    """A function that shows each robot what it sees, f32 [N, O]."""
    r = layout.sensor_range
    side = 2 * r + 1
    stride = layout.width + 2 * r  # so wide that a difference of positions names one offset only
    offsets = (
        (np.arange(-r, r + 1)[:, None] * stride + np.arange(-r, r + 1)[None, :])
        .reshape(-1)
        .astype(np.int32)
    )
    columns, rows = (
        (np.arange(size) / (size - 1)).astype(np.float32) for size in (layout.width, layout.height)
    )
    n = layout.num_agents

    def square(words: Array, state: State) -> Array:
        """The bits around each robot, u32 [N, side * side]."""
        y = state.y[:, None] + np.arange(-r, r + 1, dtype=np.int32)[None, :]
        word = _row(words, y.reshape(-1)).reshape(n, side)
        word = word << jnp.maximum(r - state.x, 0).astype(jnp.uint32)[:, None]
        word = word >> jnp.maximum(state.x - r, 0).astype(jnp.uint32)[:, None]
        return ((word[:, :, None] >> np.arange(side, dtype=np.uint32)[None, None, :]) & 1).reshape(
            n, side * side
        )

    def observe(state: State) -> Array:
        d = state.direction.astype(jnp.uint32)
        facing = jnp.uint32(2) << d
        robot = (1 | facing | (state.carrying << LOADED) | (state.wanted << LOADED + 1)).astype(
            jnp.uint32
        )
        position = state.y * stride + state.x
        there = (position[None, :] - position[:, None])[:, None, :] == offsets[None, :, None]
        code = jnp.sum(jnp.where(there, robot[None, None, :], 0), axis=2, dtype=jnp.uint32)
        code = jnp.where(code == 0, 2, code)  # code: the direction of nobody is up
        code = (
            code
            | (square(state.shelves, state) << LOADED)
            | (square(state.requests, state) << LOADED + 1)
        )
        own = (state.carrying | facing | (layout.is_highway(state.x, state.y) << 5)).astype(
            jnp.uint32
        )[:, None]
        # the barrier keeps the compiler from calculating a code anew for each of its bits
        code = jax.lax.optimization_barrier(jnp.concatenate([own, code], axis=1))
        bits = (code[:, :, None] >> np.arange(7, dtype=np.uint32)[None, None, :]) & 1
        flat = bits.reshape(n, -1).astype(jnp.float32)
        place = [state.x.astype(jnp.float32), state.y.astype(jnp.float32)]
        if normalised:
            place = [jnp.asarray(columns)[state.x], jnp.asarray(rows)[state.y]]
        return jnp.concatenate([jnp.stack(place, axis=1), flat[:, :6], flat[:, 7:]], axis=1)

    return observe

"""Packed batches: several episodes one after another in a row, so that less is padding.

An episode of n steps takes n + 1 slots of its row. The transition out of its last slot belongs to
nobody and has mask 0, and so has what no episode fills. Nothing is cut: which row and slot an
episode begins in is a function of the lengths alone, by first fit from the longest one on, and so
is the shape, the smallest of a few that holds them all.

What looks along time or across episodes does so by `as_drawn`, the same numbers with an episode a
row, and goes back by `as_packed`. Of a batch that is not packed both leave everything as it is.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import jax
import jax.numpy as jnp
from flax import struct

from jaxshare.ops.runs import in_all_runs
from jaxshare.trees import Batch, Tree
from jaxshare.types import Array, Episode

Shape: TypeAlias = tuple[int, int]  # (steps, rows)

# (episodes that lie end to end in a row, share of the rows that would hold one episode each).
# ours: the five of which batches of 32 have fewest slots, over lengths of many kinds
# (benchmarks/packed.py); each is one more update to compile
MENU = ((1, 6 / 32), (1, 10 / 32), (1, 17 / 32), (4, 6 / 32), (1, 1.0))


class Packing(struct.PyTreeNode):
    """Where B episodes lie in R rows of L steps."""

    row: Array  # [B] i32
    start: Array  # [B] i32: their first slots
    length: Array  # [B] i32: steps
    episode: Array  # [L+1, R] i32: whose slot it is; 0 where it is nobody's
    step: Array  # [L+1, R] i32: which of its slots; 0 where it is nobody's
    limit: int = struct.field(
        pytree_node=False
    )  # T, steps of the longest episode that there may be


class PackedEpisode(Episode):
    """A batch of episodes that are packed: fields [L+1, R, ...] and [L, R, ...]."""

    packing: Packing | None = None


def menu(limit: int, batch_size: int) -> tuple[Shape, ...]:
    """Shapes for batches of such episodes, fewest slots first; the last one holds any batch."""
    shapes = []
    for episodes, share in MENU:
        rows = math.ceil(batch_size * share)
        shapes.append((episodes * (limit + 1) - 1, rows))
    last = shapes[-1]
    smaller = {shape for shape in shapes if _slots(shape) < _slots(last)}
    return (*sorted(smaller, key=_slots), last)


def _slots(shape: Shape) -> int:
    return shape[0] * shape[1]


# ------------------------------------------------------------------------------------- packing


class Places(struct.PyTreeNode):
    """Where first fit puts B episodes, and how many rows it takes, [] i32."""

    row: Array  # [B] i32
    start: Array  # [B] i32
    rows: Array


def first_fit(length: Array, steps: int | Array) -> Places:
    """Each episode into the first row of `steps` [] that has room, the longest episode first.

    length: [B] i32, each at most `steps`.
    """
    count = length.shape[0]
    size = length + 1

    def place(room: Array, episode: Array) -> tuple[Array, tuple[Array, Array]]:
        needed = size[episode]
        row = jnp.argmax(room >= needed).astype(jnp.int32)
        start = steps + 1 - room[row]
        return room.at[row].add(-needed), (row, start)

    order = jnp.argsort(-length, stable=True)
    room = jnp.full(count, steps + 1, jnp.int32)
    _, (row, start) = jax.lax.scan(place, room, order)

    # back into the order in which they were drawn
    back = jnp.argsort(order)
    return Places(row=row[back], start=start[back], rows=row.max() + 1)


def choose(length: Array, shapes: tuple[Shape, ...]) -> tuple[Array, dict[int, Places]]:
    """Which shape is the first that holds the episodes, [] i32, and the places by its steps.

    Under vmap the first that holds those of every run, so that one update is computed and not one
    for each shape.
    length: [B] i32, at most the steps of every shape; the last shape holds them all.
    """
    places: dict[int, Places] = {}
    for steps, _ in shapes:
        if steps not in places:
            places[steps] = first_fit(length, steps)

    holds = jnp.stack([places[steps].rows <= rows for steps, rows in shapes])
    choice = jnp.argmax(in_all_runs(holds)).astype(jnp.int32)
    return choice, places


def packing_of(length: Array, places: Places, shape: Shape, limit: int) -> Packing:
    """The packing of episodes [B] in rows of this shape, which must hold them."""
    steps, rows = shape
    begin = (places.start, places.row)
    count = jnp.arange(length.shape[0])
    begins = jnp.zeros((steps + 1, rows), bool).at[begin].set(True)
    whose = jnp.zeros((steps + 1, rows), jnp.int32).at[begin].set(count)

    # the last slot at which an episode began, -1 in rows without any
    slot = jnp.arange(steps + 1)[:, None]
    since = jax.lax.cummax(jnp.where(begins, slot, -1), axis=0)
    episode = jnp.take_along_axis(whose, jnp.maximum(since, 0), axis=0)

    # behind the end of that one a slot is nobody's
    step = slot - since
    taken = (since >= 0) & (step <= length[episode])
    episode = jnp.where(taken, episode, 0)
    step = jnp.where(taken, step, 0)
    return Packing(
        row=places.row,
        start=places.start,
        length=length,
        episode=episode,
        step=step,
        limit=limit,
    )


def lengths(ring: Episode, index: Array) -> Array:
    """Steps of the episodes at index [B] of a ring, [B] i32.

    Steps of mask 0 that end an episode count as well: data sets have them, where the successor of
    a step that was cut is not stored.
    """
    real = (ring.mask[index] > 0) | ring.terminated[index] | ring.truncated[index]
    until = jnp.arange(1, real.shape[1] + 1)
    return jnp.max(jnp.where(real, until[None], 0), axis=1).astype(jnp.int32)


# ------------------------------------------------------------------------------ what is packed


def packing_in(batch: Batch) -> Packing | None:
    """The packing of a batch, None where every row is one episode."""
    return batch.packing if isinstance(batch, PackedEpisode) else None


def num_episodes(batch: Batch) -> int:
    """B: how many episodes a batch has."""
    packing = packing_in(batch)
    return batch.mask.shape[1] if packing is None else packing.row.shape[0]


def first_slots(batch: Batch) -> Array | None:
    """Where an episode begins, or nobody's slot is, [L+1, R] bool; None if only at slot 0."""
    packing = packing_in(batch)
    return None if packing is None else packing.step == 0


def as_drawn(batch: Batch, x: Array) -> Array:
    """x [L(+1), R, ...] of a packed batch with an episode a row, [T(+1), B, ...].

    Zeros, or False, behind the end of an episode.
    """
    packing = packing_in(batch)
    if packing is None:
        return x
    extra = len(x) - len(batch.mask)  # 1 of what has a slot behind the last step
    time = jnp.arange(packing.limit + extra)[:, None]
    slot = jnp.minimum(packing.start[None] + time, len(x) - 1)
    inside = time < packing.length[None] + extra
    inside = inside.reshape(inside.shape + (1,) * (x.ndim - 2))
    rows = x[slot, packing.row[None]]
    return jnp.where(inside, rows, jnp.zeros_like(rows))


def as_packed(batch: Batch, x: Array) -> Array:
    """x [T(+1), B, ...] of whole episodes where they lie in a packed batch, [L(+1), R, ...].

    In slots of nobody it is something of the first episode.
    """
    packing = packing_in(batch)
    if packing is None:
        return x
    slots = len(packing.step) - (packing.limit + 1 - len(x))
    step = jnp.minimum(packing.step[:slots], len(x) - 1)
    return x[step, packing.episode[:slots]]


def drawn_shape(batch: Batch, x: Array) -> tuple[int, ...]:
    """The shape of `as_drawn` of x [L(+1), R, ...]."""
    packing = packing_in(batch)
    if packing is None:
        return x.shape
    extra = len(x) - len(batch.mask)
    return (packing.limit + extra, packing.row.shape[0], *x.shape[2:])


def of_episodes(batch: Batch, x: Array, slots: int) -> Array:
    """x [B, ...] of each episode in its slots, [L, R, ...]; not packed [1, B, ...].

    slots: L, how many of the slots of a row.
    """
    packing = packing_in(batch)
    return x[None] if packing is None else x[packing.episode[:slots]]


def steps_of(batch: Batch) -> Array:
    """Which step of its episode a transition is, [L, R] i32; not packed [T, 1]."""
    packing = packing_in(batch)
    if packing is None:
        return jnp.arange(len(batch.mask))[:, None]
    return packing.step[:-1]


def ends(batch: Batch) -> Array:
    """Behind which transitions nothing of the same episode follows, [L, R] bool.

    Where episodes lie one a row those that are terminated or truncated.
    """
    end = batch.terminated | batch.truncated
    packing = packing_in(batch)
    if packing is None:
        return end
    return end | (packing.step[:-1] + 1 >= packing.length[packing.episode[:-1]])


def repeated(batch: Episode, times: int) -> Episode:
    """The same episodes several times, one copy behind the other along the rows."""
    packing = packing_in(batch)

    def repeat(x: Tree) -> Tree:
        return jnp.concatenate([x] * times, axis=1)

    if packing is None:
        return jax.tree.map(repeat, batch)

    # the copies are episodes and rows of their own
    copy = jnp.arange(times)[:, None]
    row = packing.row[None] + batch.mask.shape[1] * copy
    count = packing.row.shape[0]
    episode = [packing.episode + count * i for i in range(times)]
    again = packing.replace(
        row=row.reshape(-1),
        start=jnp.tile(packing.start, times),
        length=jnp.tile(packing.length, times),
        episode=jnp.concatenate(episode, axis=1),
        step=repeat(packing.step),
    )
    return jax.tree.map(repeat, batch.replace(packing=None)).replace(packing=again)

"""Who wins a tie between equally long queues, in the rare cases that need a calculation.

Source: what rware 2.0.0 does with networkx 3.6 on CPython 3.8 or newer, found by reading and proved
by the tests.

The original builds a graph with an edge from the cell of each robot to the cell that it wants,
copies each connected component, and lets the longest path of the copy move. Of two equally long
queues into one cell the one wins whose first robot's cell comes first in the copy. The copy has

* the order of the whole graph (each robot in turn adds its own cell, then its target) where the
  component has at least half of the graph's cells;
* the order of a Python set of the component's cells otherwise, which follows from the hashes of the
  (x, y) tuples and from the order of insertion. A set has 8 slots for up to 4 entries, and 32 for
  up to 18. It is filled twice: in breadth-first order from the cell of the component's first robot,
  and again in the order of the first set.

The second case is calculated here. It needs four robots or more, of which most move, and a tie: it
is therefore run by a `while_loop` that nearly always has nothing to do, and that only runs where
some environment of a batch has a tie. Components of 19 cells or more (28 robots or more) fall back
on the first order.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.types import Array

LARGEST = 18  # entries of a set with 32 slots
LINEAR_PROBES = 9  # CPython: neighbours that are tried before the next jump
PERTURB_SHIFT = 5  # CPython
LATE = 1 << 20  # later than any place in an order


class Queues(NamedTuple):
    """Who wants whose cell."""

    cell: Array  # [N] i32: the own one
    target: Array  # [N] i32: the wanted one
    follows: Array  # [N, N] bool: i wants the cell of j, i != j
    target_free: Array  # [N] bool: the wanted cell is empty


class Tables(NamedTuple):
    """For each cell the slots that it tries, in this order, in sets of 8 and of 32 slots."""

    small: np.ndarray  # [cells, 8] i32
    large: np.ndarray  # [cells, 32] i32
    width: int


def tables(height: int, width: int) -> Tables:
    """The slots of all cells of a grid, cell y * width + x."""
    hashes = [hash((x, y)) for y in range(height) for x in range(width)]
    small = np.array([_probes(value, 8) for value in hashes], np.int32)
    large = np.array([_probes(value, 32) for value in hashes], np.int32)
    return Tables(small, large, width)


def _probes(value: int, slots: int) -> list[int]:
    """All slots in the order of a first visit by CPython's search for a free one."""
    mask = slots - 1
    perturb = value % (1 << 64)
    slot = perturb & mask
    order = dict[int, None]()
    while len(order) < slots:
        # some neighbours, then a jump
        neighbours = LINEAR_PROBES if slot + LINEAR_PROBES <= mask else 0
        order.update(dict.fromkeys(range(slot, slot + neighbours + 1)))
        perturb >>= PERTURB_SHIFT
        slot = (slot * 5 + 1 + perturb) & mask
    return list(order)


def break_ties(place: Array, contested: Array, queues: Queues, known: Tables) -> Array:
    """`place`, replaced by the order in a set where the original uses that.

    place: [N] i32, order in the whole graph; contested: [N] bool, robots in a tie.
    """
    n = place.shape[0]
    graph_size = _graph_size(queues)

    def unsolved(carry: tuple[Array, Array]) -> Array:
        return jnp.any(carry[0])

    def solve(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        """Treats the component of the first robot that is left."""
        contested, place = carry
        first = jnp.arange(n) == jnp.argmax(contested)

        # all whose queues end in the same cell
        root = _roots(queues)
        root_cell = jnp.max(jnp.where(first, root, -1))
        member = (root == root_cell) & (root_cell >= 0)
        size = 1 + jnp.sum(member, dtype=jnp.int32)

        # their order, if the original copies them from a set
        solved = _set_order(member, queues, root_cell, size, known)
        by_set = (2 * size < graph_size) & (size <= LARGEST)
        return contested & ~member & ~first, jnp.where(member & by_set, solved, place)

    # 2 * size < graph_size, and a tie has a size of 3 at least
    contested = contested & (graph_size > 6)
    return jax.lax.while_loop(unsolved, solve, (contested, place))[1]


def _graph_size(queues: Queues) -> Array:
    """Cells of the graph, [] i32: those with robots, and the empty ones that are wanted."""
    n = queues.cell.shape[0]
    earlier = np.tri(n, k=-1, dtype=bool)
    same_target = queues.target[:, None] == queues.target[None, :]
    same = same_target & queues.target_free[None, :]
    repeated = jnp.any(same & earlier, axis=1)
    return n + jnp.sum(queues.target_free & ~repeated, dtype=jnp.int32)


def _roots(queues: Queues) -> Array:
    """The empty cell [N] i32 at the end of each robot's queue; -1 where there is none."""

    def link(_: int, root: Array) -> Array:
        ahead = jnp.max(jnp.where(queues.follows, root[None, :], -1), axis=1)
        return jnp.maximum(root, ahead)

    start = jnp.where(queues.target_free, queues.target, -1)
    return jax.lax.fori_loop(0, start.shape[0] - 1, link, start)


def _set_order(
    member: Array, queues: Queues, root_cell: Array, size: Array, known: Tables
) -> Array:
    """The places [N] i32 of a component's cells in the set that the original iterates over.

    member: [N] bool; root_cell: [] i32, the empty one; size: [] i32, with it.
    """
    order = _breadth_first(member, queues)

    # the empty cell is the last
    cell = jnp.append(queues.cell, root_cell)
    most = min(cell.shape[0], LARGEST)
    small = jnp.asarray(known.small)[cell]
    large = jnp.asarray(known.large)[cell]
    for _ in range(2):
        few = _fill(jnp.where(order < 5, order, LATE), small, min(most, 5))

        # the fifth entry makes the set grow: it is filled anew
        resized = jnp.where(order < 5, _ranks(few), order)
        many = _fill(resized, large, most)
        order = _ranks(jnp.where(size > 4, many, few))
    return order[:-1]


def _breadth_first(member: Array, queues: Queues) -> Array:
    """Places [N+1] i32 of a search from the first member; LATE for all who are none.

    Of a cell's neighbours its target is first.
    """
    n = member.shape[0]
    nodes = jnp.append(member, True)
    edges = jnp.concatenate([queues.follows, queues.target_free[:, None]], axis=1)
    ends = edges & member[:, None]  # [N, N+1]
    order = jnp.where(jnp.arange(n + 1) == jnp.argmax(member), 0, LATE)

    def visit(k: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        order, count = carry
        here = order == k

        # the target
        is_target = jnp.any(ends & here[:-1, None], axis=0)
        ahead = is_target & nodes & (order == LATE)
        order = jnp.where(ahead, count, order)
        count = count + jnp.any(ahead)

        # those who want this cell
        is_follower = jnp.append(jnp.any(ends & here[None, :], axis=1), False)
        behind = is_follower & nodes & (order == LATE)
        order = jnp.where(behind, count + jnp.cumsum(behind, dtype=jnp.int32) - 1, order)
        return order, count + jnp.sum(behind, dtype=jnp.int32)

    return jax.lax.fori_loop(0, n + 1, visit, (order, jnp.int32(1)))[0]


def _fill(order: Array, probes: Array, most: int) -> Array:
    """The slots [N+1] i32 after the entries went in one by one, in this order.

    probes: [N+1, slots].
    """

    def insert(k: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        slot, taken = carry
        here = order == k
        tried = jnp.sum(jnp.where(here[:, None], probes, 0), axis=0)
        free = (taken >> tried.astype(jnp.uint32)) & 1 == 0
        chosen = tried[jnp.argmax(free)]
        bit = jnp.where(jnp.any(here), jnp.uint32(1) << chosen.astype(jnp.uint32), 0)
        return jnp.where(here, chosen, slot), taken | bit

    return jax.lax.fori_loop(0, most, insert, (jnp.full_like(order, LATE), jnp.uint32(0)))[0]


def _ranks(slot: Array) -> Array:
    """How many come before, [N+1] i32; those without a slot stay LATE."""
    before = jnp.sum(slot[None, :] < slot[:, None], axis=1, dtype=jnp.int32)
    return jnp.where(slot == LATE, LATE, before)

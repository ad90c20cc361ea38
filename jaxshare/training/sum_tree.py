"""Prioritised sampling with a sum-tree: Schaul et al. 2016, "Prioritized Experience Replay"
(arXiv 1511.05952).

Leaf l holds a priority p_l >= 0 (already raised to its exponent), every other node the sum of its
children, the root the total. A query u in [0, 1) looks up q = u * total: at each level it moves to
the last child k with a positive sum whose elder siblings sum to at most q, and goes on with q minus
that sum. Hence

    P(l) = p_l / sum_j p_j
    u_b  = (b + U_b) / B,  U_b ~ Uniform[0, 1),  b = 0..B-1        stratified draws

Parents are recomputed from their children and never incremented, so the tree does not drift: after
any history it has the bits of a tree built afresh. "The last *positive* child" is what keeps
rounding from ever ending in an empty leaf.

    tree = build(capacity, priority)            # or init(capacity)
    index = sample(tree, key, batch)            # [B] i32
    tree = set(tree, index, new_priority)

A jit of `set` with donate_argnums=0 updates the nodes in place.

Everything is pure and can be jitted and mapped. A priority that is NaN, negative or subnormal
counts as 0, one above 2**100 as 2**100. With total(tree) == 0 there is nothing to go by, and draws
are uniform (see `find`). On a CPU short loops over leaves, and over queries of large trees, do the
work; elsewhere, and under vmap for queries, it goes level by level.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from jax.custom_batching import custom_vmap

from jaxshare.types import Array

FAN_OUT = 4  # measured: 2 costs more levels per update, 8 and 16 more loads per query
BELOW_ONE = 1 - 2**-24  # the largest f32 below 1
MAX_PRIORITY = 2.0**100  # keeps the total finite
SEQUENTIAL_QUERIES, SEQUENTIAL_CAPACITY = (
    512,
    50_000,
)  # a loop over so few queries of so large a tree beats, on a CPU,
# one over levels; never under vmap (benchmarks/README.md)
COARSE_CAPACITY = 100_000  # above it the 2**24 values of an f32 query no longer tell leaves apart
COARSE_LEVELS = 6  # the levels left (4096 leaves) when such a query receives its low bits


@struct.dataclass
class SumTree:
    """All levels in one array, root first, each padded with zeros to a multiple of FAN_OUT."""

    nodes: Array  # [M] f32, M <= 4/3 * capacity + O(log capacity)
    capacity: int = struct.field(pytree_node=False)


def init(capacity: int) -> SumTree:
    """An empty tree: all priorities 0."""
    return build(capacity, jnp.zeros(0, jnp.float32))


def build(capacity: int, priority: Array) -> SumTree:
    """A tree whose first leaves are `priority` [n <= capacity] and whose other leaves are 0, in
    O(capacity).
    """
    if not 0 < capacity < 2**30 or priority.ndim != 1 or priority.shape[0] > capacity:
        raise ValueError(f"cannot lay {priority.shape} priorities out on {capacity} leaves")
    leaves = jnp.pad(_clean(priority), (0, capacity - priority.shape[0] + -capacity % FAN_OUT))
    return SumTree(_nodes(leaves), capacity)


def total(tree: SumTree) -> Array:
    """The sum of all priorities, []; exactly 0 if and only if all of them are 0."""
    return tree.nodes[0]


def priority(tree: SumTree, index: Array) -> Array:
    """p_l for index [...] in [0, capacity)."""
    return tree.nodes[_offsets(tree.capacity)[-1] + index]


def probability(tree: SumTree, index: Array) -> Array:
    """P(l) = p_l / total for index [...]; 0 in an empty tree, whose draws do not come from its
    priorities.
    """
    return priority(tree, index) / jnp.maximum(total(tree), jnp.finfo(jnp.float32).tiny)


def set(tree: SumTree, index: Array, priority: Array) -> SumTree:
    """Give the leaves index [B] i32 the values priority [B]; of equal indices the last one wins,
    others are dropped.

    Indices outside [0, capacity) are ignored. A CPU updates leaf by leaf, other devices level by
    level.
    """
    if index.ndim != 1 or index.shape != priority.shape:
        raise ValueError(f"index {index.shape} and priority {priority.shape} must both be [B]")
    cpu, default = partial(_set_in_place, tree.capacity), partial(_set_at_once, tree.capacity)
    return SumTree(
        lax.platform_dependent(tree.nodes, index, priority, cpu=cpu, default=default), tree.capacity
    )


def find(tree: SumTree, u: Array, valid: Array | int | None = None) -> Array:
    """The leaf of each query u [B] in [0, 1), [B] i32; u is clipped to that interval, NaN counts as
    0.

    Where the total is 0 the answer is uniform instead: floor(u * valid), with valid = capacity
    unless given.
    """
    return _find(tree, u, valid, None)


def sample(
    tree: SumTree, key: Array, batch: int, stratified: bool = True, valid: Array | int | None = None
) -> Array:
    """Draw `batch` leaves with replacement, [batch] i32, in proportion to their priorities; `valid`
    as in `find`.

    Stratified draws come in the order of their strata, that is sorted: shuffle them if position
    matters.
    """
    fine = tree.capacity > COARSE_CAPACITY
    if stratified and batch >= 1024 and not fine:
        # an f32 holds the 10 or more bits of b and at most 14 of U_b; random bits are half the cost
        # of a large batch
        word = jax.random.bits(key, (-(-batch // 2),), jnp.uint32)
        jitter = jnp.concatenate([word >> 16, word & 0xFFFF])[:batch].astype(jnp.float32) * 2.0**-16
    else:
        word = jax.random.bits(key, (batch,), jnp.uint32)
        jitter = (word >> 8).astype(jnp.float32) * 2.0**-24
    u = (jnp.arange(batch, dtype=jnp.float32) + jitter) / batch if stratified else jitter
    return _find(tree, u, valid, (word & 0xFF).astype(jnp.float32) * 2.0**-8 if fine else None)


def _clean(priority: Array) -> Array:
    priority = priority.astype(jnp.float32)
    return jnp.where(
        priority >= jnp.finfo(jnp.float32).tiny, jnp.minimum(priority, MAX_PRIORITY), 0.0
    )


def _offsets(capacity: int) -> tuple[int, ...]:
    """Where each level starts in `nodes`, root first."""
    sizes, size = [capacity + -capacity % FAN_OUT], capacity
    while size > 1:
        size = sizes[0] // FAN_OUT
        sizes = [size + -size % FAN_OUT, *sizes]
    return tuple(sum(sizes[:level]) for level in range(len(sizes)))


def _sum(child: Array) -> Array:
    """[..., FAN_OUT] -> [...], always in this order, so that every way to update a node gives the
    same bits.
    """
    return (child[..., 0] + child[..., 1]) + (child[..., 2] + child[..., 3])


def _nodes(leaves: Array) -> Array:
    """The tree above leaves [n], n a multiple of FAN_OUT, and the leaves themselves: [M]."""
    levels, size = [leaves], leaves.shape[0]
    while size > 1:
        size = levels[0].shape[0] // FAN_OUT
        levels = [jnp.pad(_sum(levels[0].reshape(-1, FAN_OUT)), (0, -size % FAN_OUT)), *levels]
    return jnp.concatenate(levels)


def _rebuilds(capacity: int, batch: int) -> bool:
    """Whether summing the whole tree is cheaper than following each changed leaf up; measured on a
    CPU.
    """
    return batch >= 512 and capacity <= 16 * batch


def _set_in_place(capacity: int, nodes: Array, index: Array, value: Array) -> Array:
    """One leaf after the other, each with its ancestors. An order makes duplicates trivial.

    Trees under vmap are one flat array, whose leaves take turns: a loop over trees would copy each
    of them.
    """

    @custom_vmap
    def change(nodes: Array, index: Array, value: Array) -> Array:
        return _set_in_order(capacity, nodes, index, value)

    @change.def_vmap
    def rule(size: int, in_batched: list[bool], *args: Array) -> tuple[Array, bool]:
        each = [x if batched else jnp.broadcast_to(x, (size, *x.shape))
                for x, batched in zip(args, in_batched, strict=True)]  # fmt: skip
        return change(*(x.reshape(-1, x.shape[-1]) for x in each)).reshape(each[0].shape), True

    return change(nodes[None], index[None], value[None])[0]


def _set_in_order(capacity: int, nodes: Array, index: Array, value: Array) -> Array:
    """The trees nodes [S, M] with leaves index [S, B] changed to value [S, B]."""
    (trees, size), batch = nodes.shape, index.shape[1]
    offsets, top = jnp.asarray(_offsets(capacity), jnp.int32), len(_offsets(capacity)) - 1
    rebuild = _rebuilds(capacity, batch)
    index, value = index.reshape(-1), value.reshape(-1)

    def leaf(i: Array, nodes: Array) -> Array:
        first = 0 if trees == 1 else i // batch * size  # of this leaf's tree

        def parent(up: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
            nodes, node = state
            level, node = top - up, node // FAN_OUT
            child = lax.dynamic_slice(nodes, (first + offsets[level] + node * FAN_OUT,), (FAN_OUT,))
            return lax.dynamic_update_index_in_dim(
                nodes, _sum(child), first + offsets[level - 1] + node, 0
            ), node

        inside = (index[i] >= 0) & (index[i] < capacity)
        node = jnp.where(inside, index[i], 0)
        at = first + offsets[-1] + node
        nodes = lax.dynamic_update_index_in_dim(
            nodes, jnp.where(inside, _clean(value[i]), nodes[at]), at, 0
        )
        return nodes if rebuild else lax.fori_loop(0, top, parent, (nodes, node))[0]

    nodes = lax.fori_loop(0, index.shape[0], leaf, nodes.reshape(-1)).reshape(trees, size)
    return jax.vmap(_nodes)(nodes[:, _offsets(capacity)[-1] :]) if rebuild else nodes


def _set_at_once(capacity: int, nodes: Array, index: Array, value: Array) -> Array:
    """All leaves, then all their parents, and so on."""
    # JAX leaves open which of several equal indices a scatter writes, so all but the last are
    # thrown out of range
    order = jnp.arange(index.shape[0], dtype=jnp.int32)
    index = jnp.where((index >= 0) & (index < capacity), index, capacity)
    last = jnp.full(capacity + 1, -1, jnp.int32).at[index].max(order)[index] == order
    offsets, node = _offsets(capacity), jnp.minimum(index, capacity - 1)
    kept = jnp.where(last & (index < capacity), offsets[-1] + node, nodes.shape[0])
    nodes = nodes.at[kept].set(_clean(value), mode="drop")
    if _rebuilds(capacity, index.shape[0]):
        return _nodes(nodes[offsets[-1] :])
    for above, level in zip(offsets[-2::-1], offsets[:0:-1], strict=True):
        node = node // FAN_OUT
        child = nodes[level + node[:, None] * FAN_OUT + jnp.arange(FAN_OUT)[None]]
        nodes = nodes.at[above + node].set(_sum(child))  # equal indices write equal values
    return nodes


def _find(tree: SumTree, u: Array, valid: Array | int | None, low: Array | None) -> Array:
    """`find`, with draws `low` [B] on [0, 1) for the bits of u that an f32 cannot hold."""
    count = jnp.asarray(tree.capacity if valid is None else valid, jnp.int32)
    one = partial(_find_one, tree.capacity)
    at_once = jax.vmap(one, in_axes=(None, None, 0, None if low is None else 0))
    few = u.shape[0] <= SEQUENTIAL_QUERIES and tree.capacity > SEQUENTIAL_CAPACITY
    cpu = _unless_mapped(partial(_one_by_one, one), at_once) if few else at_once
    return lax.platform_dependent(tree.nodes, count, u, low, cpu=cpu, default=at_once)


def _unless_mapped(
    alone: Callable[..., Array], mapped: Callable[..., Array]
) -> Callable[..., Array]:
    """`alone`, which under vmap becomes the vmap of `mapped`."""
    function = custom_vmap(alone)

    @function.def_vmap
    def rule(size: int, in_batched: list[Any], *args: Any) -> tuple[Array, bool]:
        axes = tuple(
            jax.tree.map(lambda batched: 0 if batched else None, one) for one in in_batched
        )
        return jax.vmap(mapped, in_axes=axes, axis_size=size)(*args), True

    return function


def _one_by_one(
    one: Callable[..., Array], nodes: Array, count: Array, u: Array, low: Array | None
) -> Array:
    """What vmap(one) gives, [B], by a loop over the queries."""

    def body(i: Array, found: Array) -> Array:
        leaf = one(nodes, count, u[i], None if low is None else low[i])
        return lax.dynamic_update_index_in_dim(found, leaf, i, 0)

    return lax.fori_loop(0, u.shape[0], body, jnp.zeros(u.shape, jnp.int32))


def _find_one(capacity: int, nodes: Array, count: Array, u: Array, low: Array | None) -> Array:
    """The leaf of one query u [], or a uniform one of the first `count` [] where the total is 0."""
    u = jnp.where(u > 0, jnp.minimum(u, BELOW_ONE), 0.0)
    descend = partial(_descend, capacity, nodes)
    turn = 1 if low is None else max(1, len(_offsets(capacity)) - COARSE_LEVELS)
    q, node = descend(1, turn, u * nodes[0], jnp.int32(0))
    if low is not None:
        q = _refine(q, nodes[_offsets(capacity)[turn - 1] + node], low, nodes[0])
    _, node = descend(turn, len(_offsets(capacity)), q, node)
    uniform = jnp.clip((u * count).astype(jnp.int32), 0, jnp.maximum(count, 1) - 1)
    return jnp.where(nodes[0] > 0, node, uniform)


def _descend(
    capacity: int, nodes: Array, start: int, stop: int, q: Array, node: Array
) -> tuple[Array, Array]:
    """Through the levels [start, stop): the rest of q [] and the node [] reached.

    The loop stays rolled; unrolled, XLA's fusion would repeat in each level the work of all levels
    above it.
    """
    offsets = jnp.asarray(_offsets(capacity), jnp.int32)

    def body(level: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        q, node = state
        child = lax.dynamic_slice(nodes, (offsets[level] + node * FAN_OUT,), (FAN_OUT,))
        pick, skipped, before = jnp.zeros_like(node), jnp.zeros_like(q), child[0]
        for k in range(1, FAN_OUT):
            go = (child[k] > 0) & (q >= before)
            pick, skipped = jnp.where(go, k, pick), jnp.where(go, before, skipped)
            before = before + child[k]
        return q - skipped, node * FAN_OUT + pick

    return lax.fori_loop(start, stop, body, (q, node))


def _refine(q: Array, mass: Array, low: Array, total: Array) -> Array:
    """Move q in [0, mass) on by low * 2**-20 of the total, round a circle of length mass, [].

    The first 20 bits of u, which stratify, stay; those below are drawn anew, finely enough for the
    smallest leaf. Going round keeps the node's leaves equal, and takes about one draw in a thousand
    out of its stratum.
    """
    mass = jnp.maximum(mass, jnp.finfo(jnp.float32).tiny)
    v = q / mass + low * jnp.minimum(1.0, 2.0**-20 * total / mass)
    return jnp.minimum(v - jnp.floor(v), BELOW_ONE) * mass

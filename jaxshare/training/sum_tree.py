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

from functools import partial

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

from jaxshare.training.tree_changes import set_at_once, set_in_place
from jaxshare.training.tree_layout import FAN_OUT, clean, nodes_above, offsets
from jaxshare.training.tree_queries import COARSE_CAPACITY, look_up
from jaxshare.types import Array


@struct.dataclass
class SumTree:
    """All levels in one array, root first, each padded with zeros to a multiple of FAN_OUT."""

    nodes: Array  # [M] f32, M <= 4/3 * capacity + O(log capacity)
    capacity: int = struct.field(pytree_node=False)


def init(capacity: int) -> SumTree:
    """An empty tree: all priorities 0."""
    return build(capacity, jnp.zeros(0, jnp.float32))


def build(capacity: int, priority: Array) -> SumTree:
    """A tree whose first leaves are `priority` [n <= capacity] and whose other leaves are 0.

    It takes O(capacity). Raises ValueError for more priorities than leaves.
    """
    if not 0 < capacity < 2**30 or priority.ndim != 1 or priority.shape[0] > capacity:
        raise ValueError(f"cannot lay {priority.shape} priorities out on {capacity} leaves")

    # the other leaves, and as many as the last parent lacks
    count = capacity - priority.shape[0] + -capacity % FAN_OUT
    leaves = jnp.pad(clean(priority), (0, count))
    return SumTree(nodes_above(leaves), capacity)


def total(tree: SumTree) -> Array:
    """The sum of all priorities, []; exactly 0 if and only if all of them are 0."""
    return tree.nodes[0]


def priority(tree: SumTree, index: Array) -> Array:
    """p_l for index [...] in [0, capacity)."""
    return tree.nodes[offsets(tree.capacity)[-1] + index]


def probability(tree: SumTree, index: Array) -> Array:
    """P(l) = p_l / total for index [...].

    0 in an empty tree, whose draws do not come from its priorities.
    """
    return priority(tree, index) / jnp.maximum(total(tree), jnp.finfo(jnp.float32).tiny)


def set(tree: SumTree, index: Array, priority: Array) -> SumTree:
    """Give the leaves index [B] i32 the values priority [B].

    Of equal indices the last wins, others are dropped. Indices outside [0, capacity) are ignored. A
    CPU updates leaf by leaf, other devices level by level.
    """
    if index.ndim != 1 or index.shape != priority.shape:
        raise ValueError(f"index {index.shape} and priority {priority.shape} must both be [B]")
    in_place = partial(set_in_place, tree.capacity)
    at_once = partial(set_at_once, tree.capacity)
    nodes = lax.platform_dependent(tree.nodes, index, priority, cpu=in_place, default=at_once)
    return SumTree(nodes, tree.capacity)


def find(tree: SumTree, u: Array, valid: Array | int | None = None) -> Array:
    """The leaf of each query u [B] in [0, 1), [B] i32.

    u is clipped to that interval, NaN counts as 0. Where the total is 0 the answer is uniform
    instead: floor(u * valid), with valid = capacity unless given.
    """
    return look_up(tree.capacity, tree.nodes, _count(tree, valid), u, None)


def sample(
    tree: SumTree, key: Array, batch: int, stratified: bool = True, valid: Array | int | None = None
) -> Array:
    """Draw `batch` leaves with replacement, [batch] i32, in proportion to their priorities.

    valid: as in `find`. Stratified draws come in the order of their strata, that is sorted: shuffle
    them if position matters.
    """
    fine = tree.capacity > COARSE_CAPACITY
    if stratified and batch >= 1024 and not fine:
        # an f32 holds the 10 or more bits of b and at most 14 of U_b; random bits are half the cost
        # of a large batch
        word = jax.random.bits(key, (-(-batch // 2),), jnp.uint32)
        halves = jnp.concatenate([word >> 16, word & 0xFFFF])[:batch]
        jitter = halves.astype(jnp.float32) * 2.0**-16
    else:
        word = jax.random.bits(key, (batch,), jnp.uint32)
        jitter = (word >> 8).astype(jnp.float32) * 2.0**-24
    u = (jnp.arange(batch, dtype=jnp.float32) + jitter) / batch if stratified else jitter

    # of a large tree the bits of u that an f32 cannot hold are drawn as well
    low = (word & 0xFF).astype(jnp.float32) * 2.0**-8 if fine else None
    return look_up(tree.capacity, tree.nodes, _count(tree, valid), u, low)


def _count(tree: SumTree, valid: Array | int | None) -> Array:
    """Of how many leaves a draw from an empty tree is one, [] i32."""
    return jnp.asarray(tree.capacity if valid is None else valid, jnp.int32)

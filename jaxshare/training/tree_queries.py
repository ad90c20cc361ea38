"""How leaves of a sum-tree are looked up: from the root down, for one query or for many."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from jax.custom_batching import custom_vmap

from jaxshare.training.tree_layout import FAN_OUT, offsets
from jaxshare.trees import Tree
from jaxshare.types import Array

BELOW_ONE = 1 - 2**-24  # the largest f32 below 1
# a loop over so few queries of so large a tree beats, on a CPU, one over levels; never under vmap
# (benchmarks/README.md)
SEQUENTIAL_QUERIES = 512
SEQUENTIAL_CAPACITY = 50_000
COARSE_CAPACITY = 100_000  # above it the 2**24 values of an f32 query no longer tell leaves apart
COARSE_LEVELS = 6  # the levels left (4096 leaves) when such a query receives its low bits


class Descent(struct.PyTreeNode):
    """On the way from the root to a leaf."""

    q: Array  # [] f32: what is left of the query
    node: Array  # [] i32, within its level


def look_up(capacity: int, nodes: Array, count: Array, u: Array, low: Array | None) -> Array:
    """The leaf of each query u [B] in [0, 1), [B] i32; uniform ones of `count` [] in an empty tree.

    nodes [M]; low: draws [B] on [0, 1) for the bits of u that an f32 cannot hold, or None.
    """
    query = partial(_leaf, capacity)
    at_once = jax.vmap(query, in_axes=(None, None, 0, None if low is None else 0))
    few = u.shape[0] <= SEQUENTIAL_QUERIES and capacity > SEQUENTIAL_CAPACITY
    cpu = _unless_mapped(partial(_in_turn, query), at_once) if few else at_once
    return lax.platform_dependent(nodes, count, u, low, cpu=cpu, default=at_once)


def _unless_mapped(
    alone: Callable[..., Array], mapped: Callable[..., Array]
) -> Callable[..., Array]:
    """`alone`, which under vmap becomes the vmap of `mapped`."""
    function = custom_vmap(alone)

    def axis(batched: bool) -> int | None:
        return 0 if batched else None

    @function.def_vmap
    def rule(size: int, in_batched: list[Tree], *args: Tree) -> tuple[Array, bool]:
        axes = tuple(jax.tree.map(axis, batched) for batched in in_batched)
        return jax.vmap(mapped, in_axes=axes, axis_size=size)(*args), True

    return function


def _in_turn(
    query: Callable[..., Array], nodes: Array, count: Array, u: Array, low: Array | None
) -> Array:
    """What vmap(query) gives, [B], by a loop over the queries."""

    def body(i: Array, leaves: Array) -> Array:
        leaf = query(nodes, count, u[i], None if low is None else low[i])
        return lax.dynamic_update_index_in_dim(leaves, leaf, i, 0)

    return lax.fori_loop(0, u.shape[0], body, jnp.zeros(u.shape, jnp.int32))


def _leaf(capacity: int, nodes: Array, count: Array, u: Array, low: Array | None) -> Array:
    """The leaf of one query u [], or a uniform one of the first `count` [] where the total is 0."""
    u = jnp.where(u > 0, jnp.minimum(u, BELOW_ONE), 0.0)
    starts = offsets(capacity)
    turn = 1 if low is None else max(1, len(starts) - COARSE_LEVELS)
    now = _descend(capacity, nodes, (1, turn), Descent(u * nodes[0], jnp.int32(0)))
    if low is not None:
        mass = nodes[starts[turn - 1] + now.node]
        now = now.replace(q=_refine(now.q, mass, low, nodes[0]))
    now = _descend(capacity, nodes, (turn, len(starts)), now)
    uniform = jnp.clip((u * count).astype(jnp.int32), 0, jnp.maximum(count, 1) - 1)
    return jnp.where(nodes[0] > 0, now.node, uniform)


def _descend(capacity: int, nodes: Array, levels: tuple[int, int], start: Descent) -> Descent:
    """Through the levels from the first of two numbers to below the second.

    The loop stays rolled; unrolled, XLA's fusion would repeat in each level the work of all levels
    above it.
    """
    starts = jnp.asarray(offsets(capacity), jnp.int32)

    def body(level: Array, now: Descent) -> Descent:
        child = lax.dynamic_slice(nodes, (starts[level] + now.node * FAN_OUT,), (FAN_OUT,))

        # the last child with a positive sum whose elder siblings sum to at most q
        pick = jnp.zeros_like(now.node)
        skipped = jnp.zeros_like(now.q)
        before = child[0]
        for k in range(1, FAN_OUT):
            go = (child[k] > 0) & (now.q >= before)
            pick = jnp.where(go, k, pick)
            skipped = jnp.where(go, before, skipped)
            before = before + child[k]
        return Descent(now.q - skipped, now.node * FAN_OUT + pick)

    return lax.fori_loop(*levels, body, start)


def _refine(q: Array, mass: Array, low: Array, total: Array) -> Array:
    """Move q in [0, mass) on by low * 2**-20 of the total, round a circle of length mass, [].

    The first 20 bits of u, which stratify, stay; those below are drawn anew, finely enough for the
    smallest leaf. Going round keeps the node's leaves equal, and takes about one draw in a thousand
    out of its stratum.
    """
    mass = jnp.maximum(mass, jnp.finfo(jnp.float32).tiny)
    v = q / mass + low * jnp.minimum(1.0, 2.0**-20 * total / mass)
    return jnp.minimum(v - jnp.floor(v), BELOW_ONE) * mass

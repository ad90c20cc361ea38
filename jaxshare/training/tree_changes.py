"""How leaves of a sum-tree are changed: in place, one after the other, or level by level."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from jax.custom_batching import custom_vmap

from jaxshare.training.tree_layout import FAN_OUT, clean, nodes_above, offsets, sum_of
from jaxshare.types import Array


class Climb(struct.PyTreeNode):
    """On the way from a leaf to the root."""

    nodes: Array  # of all trees, one after the other
    node: Array  # [] i32, within its level


def set_in_place(capacity: int, nodes: Array, index: Array, value: Array) -> Array:
    """One leaf after the other, each with its ancestors. An order makes duplicates trivial.

    nodes [M]; index [B] i32, value [B] -> nodes [M]. Trees under vmap are one flat array, whose
    leaves take turns: a loop over trees would copy each of them.
    """

    @custom_vmap
    def change(nodes: Array, index: Array, value: Array) -> Array:
        return set_in_order(capacity, nodes, index, value)

    @change.def_vmap
    def rule(size: int, in_batched: list[bool], *args: Array) -> tuple[Array, bool]:
        # [S, S', ...] of every argument, and back
        each = []
        for x, batched in zip(args, in_batched, strict=True):
            each.append(x if batched else jnp.broadcast_to(x, (size, *x.shape)))
        flat = [x.reshape(-1, x.shape[-1]) for x in each]
        return change(*flat).reshape(each[0].shape), True

    return change(nodes[None], index[None], value[None])[0]


def set_in_order(capacity: int, nodes: Array, index: Array, value: Array) -> Array:
    """The trees nodes [S, M] with leaves index [S, B] changed to value [S, B]."""
    trees, size = nodes.shape
    batch = index.shape[1]
    starts = jnp.asarray(offsets(capacity), jnp.int32)
    top = len(offsets(capacity)) - 1
    rebuild = _rebuilds(capacity, batch)
    index = index.reshape(-1)
    value = value.reshape(-1)

    def leaf(i: Array, nodes: Array) -> Array:
        # where the tree of this leaf begins
        first = 0 if trees == 1 else i // batch * size

        def parent(up: Array, now: Climb) -> Climb:
            level = top - up
            node = now.node // FAN_OUT
            children = first + starts[level] + node * FAN_OUT
            child = lax.dynamic_slice(now.nodes, (children,), (FAN_OUT,))
            at = first + starts[level - 1] + node
            nodes = lax.dynamic_update_index_in_dim(now.nodes, sum_of(child), at, 0)
            return Climb(nodes, node)

        # a leaf that there is not writes what is there
        inside = (index[i] >= 0) & (index[i] < capacity)
        node = jnp.where(inside, index[i], 0)
        at = first + starts[-1] + node
        written = jnp.where(inside, clean(value[i]), nodes[at])
        nodes = lax.dynamic_update_index_in_dim(nodes, written, at, 0)
        return nodes if rebuild else lax.fori_loop(0, top, parent, Climb(nodes, node)).nodes

    nodes = lax.fori_loop(0, index.shape[0], leaf, nodes.reshape(-1)).reshape(trees, size)
    return jax.vmap(nodes_above)(nodes[:, offsets(capacity)[-1] :]) if rebuild else nodes


def set_at_once(capacity: int, nodes: Array, index: Array, value: Array) -> Array:
    """All leaves, then all their parents, and so on: arguments and result as `set_in_place`.

    nodes [M]; index [B] i32, value [B] -> nodes [M].
    """
    # JAX leaves open which of several equal indices a scatter writes, so all but the last are
    # thrown out of range
    order = jnp.arange(index.shape[0], dtype=jnp.int32)
    index = jnp.where((index >= 0) & (index < capacity), index, capacity)
    latest = jnp.full(capacity + 1, -1, jnp.int32).at[index].max(order)
    last = latest[index] == order
    starts = offsets(capacity)
    node = jnp.minimum(index, capacity - 1)
    written = last & (index < capacity)
    target = jnp.where(written, starts[-1] + node, nodes.shape[0])
    nodes = nodes.at[target].set(clean(value), mode="drop")
    if _rebuilds(capacity, index.shape[0]):
        return nodes_above(nodes[starts[-1] :])

    # from the parents of leaves to the root; equal indices write equal values
    for above, level in zip(starts[-2::-1], starts[:0:-1], strict=True):
        node = node // FAN_OUT
        child = nodes[level + node[:, None] * FAN_OUT + jnp.arange(FAN_OUT)[None]]
        nodes = nodes.at[above + node].set(sum_of(child))
    return nodes


def _rebuilds(capacity: int, batch: int) -> bool:
    """Whether summing the whole tree is cheaper than following each changed leaf up.

    Measured on a CPU.
    """
    return batch >= 512 and capacity <= 16 * batch

"""How the levels of a sum-tree lie in one array, and how a node follows from its children."""

from __future__ import annotations

import jax.numpy as jnp

from jaxshare.types import Array

FAN_OUT = 4  # measured: 2 costs more levels per update, 8 and 16 more loads per query
MAX_PRIORITY = 2.0**100  # keeps the total finite


def clean(priority: Array) -> Array:
    """Priorities [...] as a tree holds them: nan, negative and subnormal ones are 0."""
    priority = priority.astype(jnp.float32)
    tiny = jnp.finfo(jnp.float32).tiny
    return jnp.where(priority >= tiny, jnp.minimum(priority, MAX_PRIORITY), 0.0)


def offsets(capacity: int) -> tuple[int, ...]:
    """Where each level starts among the nodes, root first."""
    size = capacity
    sizes = [capacity + -capacity % FAN_OUT]
    while size > 1:
        size = sizes[0] // FAN_OUT
        sizes = [size + -size % FAN_OUT, *sizes]
    return tuple(sum(sizes[:level]) for level in range(len(sizes)))


def sum_of(child: Array) -> Array:
    """The sum of children, [..., FAN_OUT] -> [...].

    Always in this order, so that every way to update a node gives the same bits.
    """
    first_two = child[..., 0] + child[..., 1]
    last_two = child[..., 2] + child[..., 3]
    return first_two + last_two


def nodes_above(leaves: Array) -> Array:
    """The tree above leaves [n], n a multiple of FAN_OUT, and the leaves themselves: [M]."""
    size = leaves.shape[0]
    levels = [leaves]
    while size > 1:
        size = levels[0].shape[0] // FAN_OUT
        sums = sum_of(levels[0].reshape(-1, FAN_OUT))
        levels = [jnp.pad(sums, (0, -size % FAN_OUT)), *levels]
    return jnp.concatenate(levels)

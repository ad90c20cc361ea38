"""How a warehouse begins: robots anywhere, all shelves at home, some of them requested."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.envs.rware.layout import Layout
from jaxshare.envs.rware.state import State
from jaxshare.types import Array


def drawing(layout: Layout) -> Callable[[Array], State]:
    """A function of a key that draws the start of an episode."""
    n = layout.num_agents
    standing = layout.shelf_cells()
    shelf_y, shelf_x = (axis.astype(np.uint32) for axis in np.nonzero(standing))
    rows = np.arange(layout.height, dtype=np.uint32)
    words = np.sum(standing << np.arange(layout.width), axis=1, dtype=np.uint32)

    def draw(key: Array) -> State:
        key_cell, key_direction, key_requests = jax.random.split(key, 3)
        cell = _distinct(key_cell, n, layout.height * layout.width)
        direction = jax.random.randint(key_direction, (n,), 0, 4, jnp.int32)

        # requested shelves as bits of their rows
        asked = _distinct(key_requests, layout.num_requests, len(shelf_x))
        bit = jnp.uint32(1) << jnp.asarray(shelf_x)[asked]
        in_row = jnp.asarray(shelf_y)[asked][:, None] == rows[None, :]
        requests = jnp.sum(jnp.where(in_row, bit[:, None], 0), axis=0, dtype=jnp.uint32)

        # nobody carries anything
        none = jnp.zeros(n, bool)
        zero = jnp.int32(0)

        # where robots and shelves are
        x = cell % layout.width
        y = cell // layout.width
        shelves = jnp.asarray(words)
        return State(
            x=x,
            y=y,
            direction=direction,
            carrying=none,
            wanted=none,
            delivered=none,
            shelves=shelves,
            requests=requests,
            steps=zero,
            inactive=zero,
        )

    return draw


def _distinct(key: Array, number: int, total: int) -> Array:
    """`number` different integers below `total` in random order: a shuffle's start, unsorted."""
    other = jax.random.randint(key, (number,), jnp.arange(number), total)

    def swap(i: Array, order: Array) -> Array:
        replaced = order.at[i].set(order[other[i]])
        return replaced.at[other[i]].set(order[i])

    return jax.lax.fori_loop(0, number, swap, jnp.arange(total))[:number]

"""Shelves of the multi-robot warehouse: loaded, put back, delivered and requested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.envs.rware.layout import Layout
from jaxshare.envs.rware.state import TOGGLE, State, has_bit
from jaxshare.types import Array


class Event(NamedTuple):
    """A state, and who did what led to it."""

    state: State
    robots: Array  # [N] bool


def toggle(layout: Layout, state: State, action: Array) -> Event:
    """Loads and unloads; the robots are those that put a delivered shelf back. action: [N] i32."""
    toggles = action == TOGGLE
    load = toggles & ~state.carrying & has_bit(state.shelves, state.x, state.y)
    unload = toggles & state.carrying & ~layout.is_highway(state.x, state.y)
    carrying = jnp.where(load, True, state.carrying & ~unload)

    # a request goes with its shelf
    at_cell = has_bit(state.requests, state.x, state.y)
    requested = jnp.where(state.carrying, state.wanted, at_cell)

    # the bit of the robot's cell changes in the maps
    rows = np.arange(layout.height, dtype=np.int32)
    in_row = state.y[:, None] == rows[None, :]
    here = in_row & (load | unload)[:, None]
    bit = jnp.uint32(1) << state.x.astype(jnp.uint32)
    changed = jnp.where(here, bit[:, None], 0)
    asked = jnp.where(requested[:, None], changed, 0)
    shelves = state.shelves ^ jnp.sum(changed, axis=0, dtype=jnp.uint32)
    requests = state.requests ^ jnp.sum(asked, axis=0, dtype=jnp.uint32)
    after = replace(
        state,
        carrying=carrying,
        wanted=carrying & requested,
        delivered=state.delivered & ~unload,
        shelves=shelves,
        requests=requests,
    )
    return Event(after, unload & state.delivered)


def draws(layout: Layout, key: Array) -> Array:
    """For each goal the place of a new request among the shelves without one, i32 [2]."""
    spare = int(layout.shelf_cells().sum()) - layout.num_requests
    return jnp.floor(jax.random.uniform(key, (2,)) * spare).astype(jnp.int32)


def delivering(layout: Layout) -> Callable[[State, Array], Event]:
    """A function that replaces the requests met at the goals, one goal after the other.

    Its second argument are the `draws`; the robots are those that delivered.
    """
    request = _requesting(layout)

    def deliver(state: State, places: Array) -> Event:
        paid = jnp.zeros_like(state.carrying)
        for i, (x, y) in enumerate(layout.goals):
            here = (state.x == x) & (state.y == y) & state.wanted
            state = request(state, places[i], jnp.any(here))
            state = replace(state, wanted=state.wanted & ~here)
            paid = paid | here
        return Event(replace(state, delivered=state.delivered | paid), paid)

    return deliver


def _requesting(layout: Layout) -> Callable[[State, Array, Array], State]:
    """See `request` in it."""
    before = np.tri(layout.height, k=-1, dtype=bool)
    earlier = np.tri(layout.num_agents, k=-1, dtype=bool)
    bit = np.uint32(1) << np.arange(layout.width, dtype=np.uint32)
    below = (1 << np.arange(layout.width, dtype=np.uint32)) - np.uint32(1)

    def request(state: State, place: Array, happens: Array) -> State:
        """Requests the shelf at `place` [] among those without a request, if `happens` [].

        First come the standing ones by row, then the carried.
        """
        # the row of that shelf
        spare = state.shelves & ~state.requests
        count = jax.lax.population_count(spare).astype(jnp.int32)
        start = jnp.sum(jnp.where(before, count[None, :], 0), axis=1)
        row = (start <= place) & (place < start + count)
        word = jnp.sum(jnp.where(row, spare, 0), dtype=jnp.uint32)

        # its bit in the row: the one with as many set ones below as its place in it
        place_in_row = jnp.sum(jnp.where(row, place - start, 0))
        rank = jax.lax.population_count(word & below).astype(jnp.int32)
        is_shelf = (rank == place_in_row) & (word & bit != 0)
        chosen = jnp.sum(jnp.where(is_shelf, bit, 0), dtype=jnp.uint32)

        # or a carried one
        carried = state.carrying & ~state.wanted
        earlier_carried = jnp.where(earlier, carried[None, :], False)
        rank = jnp.sum(count) + jnp.sum(earlier_carried, axis=1, dtype=jnp.int32)

        # one of the two is marked
        requests = state.requests | jnp.where(row & happens, chosen, 0)
        wanted = state.wanted | (carried & (rank == place) & happens)
        return replace(state, requests=requests, wanted=wanted)

    return request

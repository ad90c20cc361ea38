"""A warehouse at one moment, and how its map is read.

Every row of the map is one word with a bit per column, which makes a step cheap: a picture of 3 by
3 cells is three words shifted.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxshare.types import Array

NOOP, FORWARD, LEFT, RIGHT, TOGGLE = range(5)
NUM_ACTIONS = 5
UP, DOWN, WEST, EAST = range(4)  # of a robot: what the original calls up, down, left, right


@struct.dataclass
class State:
    """A warehouse. Bit x of word y is column x of row y; a shelf that is carried is on no map."""

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


def row_words(words: Array, y: Array) -> Array:
    """words[y] for y [K], and 0 off the map; a comparison is faster here than a gather."""
    rows = np.arange(words.shape[0], dtype=np.int32)
    here = y[:, None] == rows[None, :]
    return jnp.sum(jnp.where(here, words[None, :], 0), axis=1, dtype=jnp.uint32)


def has_bit(words: Array, x: Array, y: Array) -> Array:
    """Whether the bit of cell (x, y) is set, bool [K]."""
    return (row_words(words, y) >> x.astype(jnp.uint32)) & 1 == 1

"""Masks of steps [E, T] and of the columns [E, T + 1] that a file has for them."""

from __future__ import annotations

import numpy as np

from jaxshare.data.records import Array


def reached_by(mask: Array) -> Array:
    """Columns that are filled: the first, and those behind the steps that count, [E, T+1]."""
    return np.concatenate([np.ones_like(mask[:, :1]), mask], axis=1)


def with_last_column(values: Array, fill: float) -> Array:
    """Values [E, T, ...] with one column more, [E, T+1, ...]."""
    return np.concatenate([values, np.full_like(values[:, :1], fill)], axis=1)


def last_of(mask: Array) -> Array:
    """The last true place of each row of a mask [E, K] that is a run of ones."""
    return mask & ~with_last_column(mask[:, 1:], False)


def on(mask: Array, values: Array) -> Array:
    """A mask [E, K] with the rank of values [E, K, ...]."""
    return mask.reshape(mask.shape + (1,) * (values.ndim - 2))

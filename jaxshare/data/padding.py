"""Columns that only pad: published sets fill up the observations of agents that see less with -inf.

Source: the vaults of simple_tag and simple_world in OG-MARL (Formanek et al. 2023), made from
OMAR's sets (Pan et al. 2022). ours: a column of one agent that is infinite in every row says
nothing and is read as 0; infinity anywhere else is refused as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from jaxshare.data.records import Array

BLOCK = 4096  # rows that are looked at at a time


def blocks(count: int, size: int = BLOCK) -> Iterator[slice]:
    """Slices of `size` that cover 0 .. count - 1."""
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))


def infinite_columns(rows: Callable[[slice], Array], parts: Iterator[slice]) -> Array:
    """Which columns are infinite in every row, [...] bool.

    rows: of an array [M, ...], by each slice of `parts`.
    Reading stops as soon as none can be.
    """
    columns: Array = np.isinf(rows(slice(0, 1))[0])
    for part in parts:
        if not columns.any():
            break
        columns = columns & np.isinf(rows(part)).all(0)
    return columns


def without(values: Array, columns: Array) -> Array:
    """values [..., *columns.shape] with 0 in the columns."""
    return np.where(columns, values.dtype.type(0), values) if columns.any() else values


def note(name: str, columns: Array) -> list[str]:
    """What to tell of the columns that pad, [] if there are none."""
    if not columns.any():
        return []
    return [
        f"{int(columns.sum())} of {columns.size} columns of {name} are infinite throughout: "
        "padding, read as 0."
    ]

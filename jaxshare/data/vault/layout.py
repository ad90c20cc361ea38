"""Rows of episodes laid out with the episode first, and the end padded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxshare.data.records import Array
from jaxshare.data.vault.episodes import Rows


@dataclass(frozen=True)
class Layout:
    """Where rows of K episodes stand in arrays of T steps, and of T + 1 slots. M rows."""

    rows: Rows
    num_rows: Array  # [K]: rows of each episode
    num_steps: Array  # [K]: of them those whose step counts
    limit: int  # T

    def steps(self, values: Array) -> Array:
        """Values of rows [M, ...] at their steps, [K, T, ...], 0 where none counts."""
        counts = self.rows.step < self.num_steps[self.rows.place]
        out = np.zeros((len(self.num_steps), self.limit, *values.shape[1:]), values.dtype)
        out[self.rows.place[counts], self.rows.step[counts]] = values[counts]
        return out

    def slots(self, values: Array, fill: bool = False) -> Array:
        """Values of rows [M, ...] in their slots, [K, T + 1, ...].

        Where every step of an episode counts, the slot after the last one repeats it: what the
        last step led to is not stored.
        fill: what stands in all slots behind.
        """
        shape = (len(self.num_steps), self.limit + 1, *values.shape[1:])
        out = np.full(shape, fill, values.dtype)
        out[self.rows.place, self.rows.step] = values
        whole = np.flatnonzero(self.num_rows == self.num_steps)
        after = self.num_steps[whole]
        out[whole, after] = out[whole, after - 1]
        return out

"""What a warehouse is: its map, its robots, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Coordinate = Any  # numbers of numpy or of JAX
Cell = tuple[int, int]  # x, y


@dataclass(frozen=True)
class Layout:
    """What a scenario's name says, and what follows from it."""

    shelf_rows: int
    shelf_columns: int
    column_height: int
    num_agents: int
    num_requests: int
    sensor_range: int
    reward_type: str

    @property
    def height(self) -> int:
        """Rows of the map."""
        return (self.column_height + 1) * self.shelf_rows + 2

    @property
    def width(self) -> int:
        """Columns of the map."""
        return 3 * self.shelf_columns + 1

    @property
    def goals(self) -> tuple[Cell, Cell]:
        """Cells (x, y) in the middle of the last row, in the order of the original."""
        middle = self.width // 2
        return (middle - 1, self.height - 1), (middle, self.height - 1)

    def is_highway(self, x: Coordinate, y: Coordinate) -> Coordinate:
        """Whether no shelf may stand there: corridors, the last row, and the way to the goals."""
        left, right = self.goals
        above_goals = (x == left[0]) | (x == right[0])
        queue = (y > self.height - (self.column_height + 3)) & above_goals
        corridor = (x % 3 == 0) | (y % (self.column_height + 1) == 0)
        return corridor | (y == self.height - 1) | queue

    def shelf_cells(self) -> np.ndarray:
        """Where shelves stand at first, bool [rows, columns]."""
        y, x = np.indices((self.height, self.width))
        return ~np.asarray(self.is_highway(x, y))

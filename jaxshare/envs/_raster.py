"""A small painter for `Env.render`: discs and boxes in world coordinates, y upwards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
GREY: Colour = (170, 170, 170)
BLUE: Colour = (31, 92, 200)
RED: Colour = (205, 60, 50)
GREEN: Colour = (40, 160, 80)


@dataclass(frozen=True)
class Canvas:
    """A square window of the world, from (low, low) to (high, high). Painting changes `image`."""

    image: np.ndarray  # [side, side, 3] uint8
    low: float
    high: float

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Fills the circle around (x, y)."""
        world_x, world_y = self._pixel_centres()
        inside = (world_x - x) ** 2 + (world_y - y) ** 2 <= radius**2
        self.image[inside] = colour

    def box(self, left: float, bottom: float, width: float, height: float, colour: Colour) -> None:
        """Fills a rectangle."""
        world_x, world_y = self._pixel_centres()
        inside_x = (world_x >= left) & (world_x <= left + width)
        self.image[inside_x & (world_y >= bottom) & (world_y <= bottom + height)] = colour

    def _pixel_centres(self) -> tuple[np.ndarray, np.ndarray]:
        side = self.image.shape[0]
        line = self.low + (np.arange(side) + 0.5) * (self.high - self.low) / side
        return line[None, :], line[::-1, None]  # row 0 is the top


def canvas(low: float, high: float, side: int = 300) -> Canvas:
    """An empty white canvas."""
    return Canvas(np.full((side, side, 3), 255, np.uint8), low, high)

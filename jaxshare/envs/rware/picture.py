"""The picture of a warehouse."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from jaxshare.envs import _raster
from jaxshare.envs.rware.layout import Layout
from jaxshare.envs.rware.state import DOWN, EAST, UP, WEST, State

NOSE = 0.3  # from the middle of a robot


def painting(layout: Layout) -> Callable[[State], np.ndarray]:
    """The painter of a warehouse."""
    side = max(layout.height, layout.width)

    def paint(state: State) -> np.ndarray:
        """The map as uint8 [300, 300, 3].

        Shelves are grey, requested ones red, goals green, robots blue with a nose.
        """
        now = jax.device_get(state)
        picture = _raster.canvas(0.0, float(side))

        def square(x: float, y: float, margin: float, colour: _raster.Colour) -> None:
            width = 1 - 2 * margin
            picture.box(x + margin, side - 1 - y + margin, width, width, colour)

        # the map
        for y, x in np.ndindex(layout.height, layout.width):
            if (x, y) in layout.goals:
                square(x, y, 0.0, _raster.GREEN)
            if now.shelves[y] >> x & 1:
                square(x, y, 0.08, _shelf_colour(now.requests[y] >> x & 1))

        # robots, over what they carry
        for i in range(layout.num_agents):
            x = int(now.x[i])
            y = int(now.y[i])
            if now.carrying[i]:
                square(x, y, 0.08, _shelf_colour(now.wanted[i]))
            _robot(picture, x + 0.5, side - y - 0.5, int(now.direction[i]))
        return picture.image

    return paint


def _shelf_colour(requested: bool) -> _raster.Colour:
    return _raster.RED if requested else _raster.GREY


def _robot(picture: _raster.Canvas, x: float, y: float, direction: int) -> None:
    """A disc around (x, y), and a smaller one where it heads to."""
    picture.disc(x, y, 0.3, _raster.BLUE)
    right = NOSE * ((direction == EAST) - (direction == WEST))
    up = NOSE * ((direction == UP) - (direction == DOWN))
    picture.disc(x + right, y + up, 0.14, _raster.BLUE)

"""The picture of a battlefield."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxshare.envs import _raster
from jaxshare.envs.smax.units import AIR, GROUND, UNIT_TYPES

Game = Any  # of jaxmarl, or with its interface
State = Any  # its
BAR = 0.2  # height of a bar of health


def painting(game: Game) -> Callable[[State], np.ndarray]:
    """The painter of a game."""
    radii = np.asarray(game.unit_type_radiuses)
    full = np.asarray(game.unit_type_health)

    def paint(state: State) -> np.ndarray:
        """The battlefield as uint8 [300, 300, 3], a bar of health above each living unit.

        Allies are blue, enemies red. Air units are rings, Colossi have a grey head, and units that
        never move are square.
        """
        units = jax.device_get(state.state)
        picture = _raster.canvas(0.0, float(game.map_width))
        for i in np.flatnonzero(units.unit_alive):
            x, y = units.unit_positions[i]
            number = units.unit_types[i]
            radius = radii[number]
            colour = _raster.BLUE if i < game.num_allies else _raster.RED
            if UNIT_TYPES[number].speed == 0:
                picture.box(x - radius, y - radius, 2 * radius, 2 * radius, colour)
            else:
                picture.disc(x, y, radius, colour)

            # its middle tells its layer
            layer = UNIT_TYPES[number].layer
            if layer != GROUND:
                middle = _raster.WHITE if layer == AIR else _raster.GREY
                picture.disc(x, y, radius / 2, middle)

            # its health
            share = units.unit_health[i] / full[number]
            left = x - radius
            bottom = y + radius + 0.1
            picture.box(left, bottom, 2 * radius, BAR, _raster.GREY)
            picture.box(left, bottom, 2 * radius * share, BAR, _raster.GREEN)
        return picture.image

    return paint

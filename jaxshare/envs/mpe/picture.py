"""The picture of a particle world."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jaxshare.envs import _raster
from jaxshare.envs.mpe.particles import State

HALF_WIDTH = 1.5  # ours: of the rendered square


def painting(
    radius: tuple[float, ...], num_agents: int, landmark_radius: float
) -> Callable[[State], np.ndarray]:
    """The painter of moving bodies, whose first `num_agents` are the team, over landmarks."""
    num_others = len(radius) - num_agents
    colours = [_raster.BLUE] * num_agents + [_raster.GREEN] * num_others

    def paint(state: State) -> np.ndarray:
        """The arena as uint8 [300, 300, 3]: agents blue, prey green, landmarks grey."""
        picture = _raster.canvas(-HALF_WIDTH, HALF_WIDTH)
        for x, y in np.asarray(state.landmark):
            picture.disc(x, y, landmark_radius, _raster.GREY)

        # the first body is on top
        moving = list(zip(np.asarray(state.position), radius, colours, strict=True))
        for (x, y), size, colour in reversed(moving):
            picture.disc(x, y, size, colour)
        return picture.image

    return paint

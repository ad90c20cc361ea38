"""A picture of what agents of any game see."""

from __future__ import annotations

import math

import numpy as np

from jaxshare.envs import _raster
from jaxshare.types import Array


def paint(obs: Array) -> np.ndarray:
    """Observations [N, O] as uint8 [300, 300, 3].

    There is a band for each agent from top to bottom, and one cell for each number. White is 0,
    blue is positive, red is negative; the strongest colour is the largest number, or 1.
    """
    picture = _raster.canvas(0.0, 1.0).image
    numbers = np.asarray(obs, np.float64)
    shares = numbers / max(1.0, np.abs(numbers).max())
    bands = np.array_split(np.arange(picture.shape[0]), len(shares))
    for rows, view in zip(bands, shares, strict=True):
        strength = _cells(view, len(rows), picture.shape[1])[..., None]
        colour = np.where(strength > 0, np.array(_raster.BLUE), np.array(_raster.RED))
        picture[rows] = (255 + np.abs(strength) * (colour - 255)).astype(np.uint8)
        picture[rows[-1]] = _raster.GREY  # between two agents
    return picture


def _cells(view: np.ndarray, height: int, width: int) -> np.ndarray:
    """Numbers as cells in a band of so many pixels, [height, width]."""
    across = math.ceil(math.sqrt(len(view) * width / height))
    down = math.ceil(len(view) / across)
    cells = np.zeros((down, across))
    cells.reshape(-1)[: len(view)] = view

    # the cell of each pixel
    y = np.arange(height) * down // height
    x = np.arange(width) * across // width
    return cells[y][:, x]

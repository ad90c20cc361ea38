"""The picture of a game of level-based foraging."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxshare.envs import _raster
from jaxshare.envs.lbf.state import State

Mark = tuple[int, int, int]  # row, column, level


def painting(rows: int, cols: int) -> Callable[[State], np.ndarray]:
    """The painter of a grid."""
    size = max(rows, cols)

    def paint(state: State) -> np.ndarray:
        """The grid as uint8 [300, 300, 3]: blue discs are players, green boxes foods."""
        grid = jax.device_get(state)
        picture = _raster.canvas(0.0, float(size))
        for i, j in np.ndindex(rows, cols):
            bottom = size - 1 - i
            picture.box(j, bottom, 1, 1, _raster.GREY)
            picture.box(j + 0.03, bottom + 0.03, 0.94, 0.94, _raster.WHITE)

        # foods, then players on them
        marks = []
        for i in np.flatnonzero(grid.food_level):
            marks.append((grid.food_row[i], grid.food_col[i], grid.food_level[i]))
            left = grid.food_col[i] + 0.1
            bottom = size - 0.9 - grid.food_row[i]
            picture.box(left, bottom, 0.8, 0.8, _raster.GREEN)
        for i in np.arange(len(grid.row)):
            marks.append((grid.row[i], grid.col[i], grid.level[i]))
            x = grid.col[i] + 0.5
            y = size - 0.5 - grid.row[i]
            picture.disc(x, y, 0.45, _raster.BLUE)
        return _labelled(picture.image, marks, size)

    return paint


def _labelled(image: np.ndarray, marks: list[Mark], size: int) -> np.ndarray:
    """The image with a level in the middle of each marked cell."""
    page = Image.fromarray(image)
    pen = ImageDraw.Draw(page)
    pixels = page.size[0] / size  # of a cell
    font = ImageFont.load_default(size=0.6 * pixels)
    for row, col, level in marks:
        centre = ((col + 0.5) * pixels, (row + 0.5) * pixels)
        pen.text(centre, str(level), fill=_raster.WHITE, font=font, anchor="mm")
    return np.asarray(page)

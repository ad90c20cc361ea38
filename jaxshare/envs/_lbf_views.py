"""What agents and people see of level-based foraging: observations and the picture. Tables of (row, column, level)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.envs import _raster
from jaxshare.types import Array

# players [N, 3], foods [F, 3], which foods are there [F] -> observations [N, O] f32
Observe = Callable[[Array, Array, Array], Array]


def _close_up(table: Array, seen: Array) -> Array:
    """The seen rows of table [K, 3] first, in order, then (-1, -1, 0)."""
    k = seen.shape[0]
    before = jnp.sum(
        seen[None] & (np.arange(k)[None] < np.arange(k)[:, None]), axis=1
    )  # how many are seen before it
    here = (before[None] == np.arange(k)[:, None]) & seen[None]  # [slot, row of the table]
    absent = np.array([-1, -1, 0], np.int32)
    return (
        jnp.sum(jnp.where(here[..., None], (table - absent[None])[None], 0), axis=1) + absent[None]
    )


def _self_first(table: Array) -> Array:
    """table [N, 3] as each agent lists it: [N, N, 3], itself first and the others in order."""
    n = table.shape[0]
    behind = (np.arange(n - 1)[None] < np.arange(n)[:, None])[..., None]
    others = jnp.where(behind, table[None, :-1], table[None, 1:])
    return jnp.concatenate([table[:, None], others], axis=1)


def observe_all(players: Array, foods: Array, present: Array) -> Array:
    """Full sight: [N, 3 * (F + N)]."""
    n = players.shape[0]
    remaining = _close_up(foods, present)
    seen = jnp.concatenate(
        [jnp.broadcast_to(remaining[None], (n, *remaining.shape)), _self_first(players)], axis=1
    )
    return seen.reshape(n, -1).astype(jnp.float32)


def observe_near(sight: int) -> Observe:
    """Partial sight: [N, 3 * (F + N)], coordinates from the upper left corner of what each agent sees."""

    def observe(players: Array, foods: Array, present: Array) -> Array:
        here = players[:, None, :2]
        near = jnp.all(jnp.abs(foods[None, :, :2] - here) <= sight, axis=2) & present[None]
        corner = jnp.pad(jnp.maximum(here - sight, 0), ((0, 0), (0, 0), (0, 1)))  # levels have none
        listed = _self_first(players) - corner
        # code: at the top and left borders this reaches farther than the view of the foods
        visible = jnp.all((listed[..., :2] >= 0) & (listed[..., :2] <= 2 * sight), axis=2)
        seen = [
            jax.vmap(_close_up)(foods[None] - corner, near),
            jax.vmap(_close_up)(listed, visible),
        ]
        return jnp.concatenate(seen, axis=1).reshape(players.shape[0], -1).astype(jnp.float32)

    return observe


def observe_grid(rows: int, cols: int, sight: int) -> Observe:
    """Layers around each agent, flat [N, 3 * (2 * sight + 1)^2]: levels of agents, levels of foods, free cells."""
    offset = np.arange(-sight, sight + 1)

    def observe(players: Array, foods: Array, present: Array) -> Array:
        row, col = (
            players[:, k, None] + offset[None] for k in (0, 1)
        )  # [N, W] of the cells in view
        free = within(row, rows)[:, :, None] & within(col, cols)[:, None, :]
        agents, food = jnp.zeros(free.shape, jnp.int32), jnp.zeros(free.shape, jnp.int32)

        def at(thing: Array) -> Array:
            return (row == thing[0])[:, :, None] & (col == thing[1])[:, None, :]

        for j in range(len(players)):  # code: of two on one cell the later one's level is shown
            agents = jnp.where(at(players[j]), players[j, 2], agents)
            free &= ~at(players[j])
        for j in range(len(foods)):
            food = jnp.where(at(foods[j]) & present[j], foods[j, 2], food)
            free &= ~(at(foods[j]) & present[j])
        return (
            jnp.stack([agents, food, free.astype(jnp.int32)], axis=1)
            .reshape(len(players), -1)
            .astype(jnp.float32)
        )

    return observe


def within(x: Array, size: int) -> Array:
    """Which of these rows or columns the grid has."""
    return (x >= 0) & (x < size)


def render(rows: int, cols: int) -> Callable[[Any], np.ndarray]:
    """The painter of a grid."""

    def paint(state: Any) -> np.ndarray:
        """The grid as uint8 [300, 300, 3]: players are blue discs, foods green boxes, each with its level."""
        from PIL import Image, ImageDraw, ImageFont

        state = jax.device_get(state)
        size = max(rows, cols)
        picture = _raster.canvas(0.0, float(size))
        marks = []
        for i, j in np.ndindex(rows, cols):
            picture.box(j, size - 1 - i, 1, 1, _raster.GREY)
            picture.box(j + 0.03, size - 1 - i + 0.03, 0.94, 0.94, _raster.WHITE)
        for i in np.flatnonzero(state.food_level):
            marks.append((state.food_row[i], state.food_col[i], state.food_level[i]))
            picture.box(
                state.food_col[i] + 0.1, size - 0.9 - state.food_row[i], 0.8, 0.8, _raster.GREEN
            )
        for i in np.arange(len(state.row)):
            marks.append((state.row[i], state.col[i], state.level[i]))
            picture.disc(state.col[i] + 0.5, size - 0.5 - state.row[i], 0.45, _raster.BLUE)
        image = Image.fromarray(picture.image)
        pen, pixels = ImageDraw.Draw(image), image.size[0] / size
        font = ImageFont.load_default(size=0.6 * pixels)
        for row, col, level in marks:
            centre = ((col + 0.5) * pixels, (row + 0.5) * pixels)
            pen.text(centre, str(level), fill=_raster.WHITE, font=font, anchor="mm")
        return np.asarray(image)

    return paint

"""One action space for all agents of a game, and the way back to their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxshare.types import Array, Box, Discrete, RefusedError

Space = Any  # jaxmarl's


class Actions(NamedTuple):
    """The common action space."""

    space: Discrete | Box
    decode: Callable[[Array], list[Array]]  # action -> one per agent, as the game wants it
    choices: tuple[int, ...]  # number of actions of each agent; empty for continuous ones


class Bounds(NamedTuple):
    """Of the continuous actions of one agent, [U] each."""

    low: np.ndarray
    high: np.ndarray


def common_actions(name: str, spaces: Sequence[Space]) -> Actions:
    """name: the id. Raises RefusedError if there is no common space of these."""
    kinds = {type(space).__name__ for space in spaces}
    if kinds == {"Discrete"}:
        choices = tuple(width(space) for space in spaces)
        return Actions(Discrete(max(choices)), list, choices)
    if kinds != {"Box"}:
        raise RefusedError(
            f"env.id={name} has {' and '.join(sorted(kinds))} actions; Discrete or Box for all is "
            "needed."
        )

    # numbers, with bounds
    bounds = [Bounds(_flat(space, "low"), _flat(space, "high")) for space in spaces]
    if not all(np.isfinite(ends).all() for ends in bounds):
        raise RefusedError(
            f"env.id={name} has actions without bounds, which cannot be scaled or explored."
        )
    return _boxes(bounds, [space.shape for space in spaces])


def width(space: Space) -> int:
    """How many actions, or how many numbers one action has."""
    return int(np.prod(space.shape)) if hasattr(space, "low") else int(getattr(space, "n", 0))


def _flat(space: Space, side: str) -> np.ndarray:
    bound = np.asarray(getattr(space, side), np.float32)
    return np.broadcast_to(bound, space.shape).reshape(-1)


def _boxes(bounds: list[Bounds], shapes: list[tuple[int, ...]]) -> Actions:
    """The box of all, with their own bounds if these agree, else from -1 to 1."""
    dim = max(len(low) for low, _ in bounds)
    ends = [_ends(bounds, k) for k in range(dim)]
    same = all(len(pairs) == 1 for pairs in ends)
    common = [pairs.pop() for pairs in ends] if same else [(-1.0, 1.0)] * dim

    # the box, and shares of it where bounds differ
    low = tuple(float(low) for low, _ in common)
    high = tuple(float(high) for _, high in common)

    def decode(action: Array) -> list[Array]:
        lowest = np.array(low, np.float32)[None]
        highest = np.array(high, np.float32)[None]
        clipped = jnp.clip(action, lowest, highest)
        parts = []
        for i, (least, most) in enumerate(bounds):
            part = clipped[i, : len(least)]
            if not same:
                part = least + (part + 1) / 2 * (most - least)
            parts.append(part.reshape(shapes[i]))
        return parts

    return Actions(Box(dim, low, high), decode, ())


def _ends(bounds: list[Bounds], k: int) -> set[tuple[np.float32, np.float32]]:
    """The different bounds of number k."""
    return {(low[k], high[k]) for low, high in bounds if k < len(low)}

"""What the arrays of an HDF5 file must be before any is read as a data set."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np

from jaxshare.data.hdf5.file import REQUIRED
from jaxshare.data.hdf5.masks import last_of
from jaxshare.data.records import Array
from jaxshare.types import RefusedError

Shapes = Mapping[str, tuple[int, ...]]


def check_shapes(path: pathlib.Path, shapes: Shapes, discrete: bool, rewards: str) -> None:
    """Raise RefusedError unless the arrays of a file are there and agree in their sizes.

    shapes: of all arrays of the file.
    discrete: whether actions are choices.
    rewards: as they are asked for, see `open`.
    """
    # what there must be
    missing = [name for name in REQUIRED if name not in shapes]
    if missing:
        names = ", ".join(missing)
        has = ", ".join(shapes) or "nothing"
        raise RefusedError(
            f"{path} has no {names} (it has {has}): it is no data set of PyMARL. Choose another."
        )
    num, columns, agents, _ = _first_four(shapes["obs"])
    choices = _first_four(shapes.get("avail_actions", ()))[3]
    if discrete and not choices:
        raise RefusedError(f"{path} has discrete actions and no avail_actions. Choose another.")
    if num < 1 or columns < 2:
        raise RefusedError(f"{path} holds no episode with a step (obs has shape {shapes['obs']}).")
    each = agents if shapes["reward"][-1:] == (agents,) else 1
    if each == 1 < agents and rewards == "individual":
        raise RefusedError(
            f"{path}: dataset.rewards=individual has no effect on it: it has one reward for the "
            "team. Leave it out."
        )

    # shapes that agree
    for name, wanted in _expected(shapes, discrete, each).items():
        if shapes[name] != wanted:
            raise RefusedError(
                f"{path}: {name} has shape {shapes[name]}, the others ask for {wanted}."
            )


def _expected(shapes: Shapes, discrete: bool, each: int) -> dict[str, tuple[int, ...]]:
    """The shape that each array should have, by that of obs. each: rewards of a step."""
    # what every file has
    num, columns, agents, size = _first_four(shapes["obs"])
    action = 1 if discrete else _first_four(shapes["actions"])[3]
    expected: dict[str, tuple[int, ...]] = {}
    expected["terminated"] = (num, columns, 1)
    expected["filled"] = (num, columns, 1)
    expected["reward"] = (num, columns, each)
    expected["obs"] = (num, columns, agents, size)
    expected["actions"] = (num, columns, agents, action)

    # what some have besides
    if discrete:
        choices = _first_four(shapes["avail_actions"])[3]
        expected["avail_actions"] = (num, columns, agents, choices)
    optional: dict[str, tuple[int, ...]] = {}
    optional["state"] = (num, columns, _first_four(shapes.get("state", ()))[2])
    optional["alive"] = (num, columns, agents)
    optional["level"] = (num, agents)
    optional["policy"] = (num, agents)
    optional["component"] = (num,)
    return expected | {name: shape for name, shape in optional.items() if name in shapes}


def _first_four(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape with 0 for sizes that it does not have."""
    return (*shape, 0, 0, 0, 0)[:4]


def check_columns(path: pathlib.Path, filled: Array, terminated: Array) -> None:
    """Raise RefusedError for columns from which steps cannot be told.

    filled, terminated: [E, K] bool. Every episode fills a run of columns from the first on, at
    least two, and is not terminated in the last of them.
    """
    if not filled[:, :2].all():
        episode = int(np.flatnonzero(~filled[:, :2].all(1))[0])
        raise RefusedError(
            f"{path}: episode {episode} has no step (filled has fewer than two columns). Leave it "
            "out."
        )
    if (filled[:, 1:] & ~filled[:, :-1]).any():
        raise RefusedError(
            f"{path}: filled is not a run of ones from the first column on. Repair the file."
        )

    # what the last actions led to
    ended = terminated & last_of(filled)
    if ended.any():
        episode = int(np.flatnonzero(ended.any(1))[0])
        raise RefusedError(
            f"{path}: episode {episode} is terminated in its last filled column, so the file does "
            "not show what its last actions led to. Only files with one column more than steps can "
            "be read."
        )

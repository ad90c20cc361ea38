"""What an id of level-based foraging says: the grid, who is on it, and how far agents see."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from jaxshare.registry import suggest
from jaxshare.types import RefusedError

SCENARIOS = (
    "8x8-2p-2f-coop",  # SEAC, as the next three
    "10x10-3p-3f",
    "12x12-2p-1f",
    "15x15-3p-4f",
    "8x8-2p-3f",  # EPyMARL's example
    "2s-8x8-2p-2f-coop",  # EPyMARL's benchmark, as the rest
    "2s-10x10-3p-3f",
    "15x15-3p-5f",  # lbforaging 2.0.0 registers no ids with five foods
    "15x15-4p-3f",
    "15x15-4p-5f",
)
TASK = r"(\d+)x(\d+)-(\d+)p-(\d+)f(-coop)?"
PATTERN = re.compile(rf"(?:foraging-)?(?:(\d+)s-)?{TASK}(?:-v3)?", re.IGNORECASE)
OLDER = re.compile(r"(?:foraging-)?((?:\d+s-)?\d+x\d+-\d+p-\d+f(?:-coop)?)-(v[12])", re.IGNORECASE)


class Task(NamedTuple):
    """What an id says, with the settings that may add to it."""

    name: str
    rows: int
    cols: int
    players: int
    foods: int
    coop: bool
    sight: int


def parse(scenario: str, sight: int | None = None) -> Task:
    """An id in its parts. Raises RefusedError if it is not one, or contradicts `sight`."""
    match = PATTERN.fullmatch(scenario)
    if match is None:
        raise _unknown(scenario)
    sight_in_name, *numbers, coop = match.groups()
    rows, cols, players, foods = (int(number) for number in numbers)

    # sight: of the id, else of the settings, else the whole grid
    if sight_in_name is not None:
        if sight is not None and int(sight_in_name) != sight:
            raise RefusedError(
                f"env.sight={sight} contradicts env.scenario={scenario}: leave out one of them."
            )
        sight = int(sight_in_name)
    prefix = "" if sight is None else f"{sight}s-"
    suffix = "-coop" if coop else ""
    name = f"{prefix}{rows}x{cols}-{players}p-{foods}f{suffix}"
    if sight is None:
        sight = max(rows, cols)
    return Task(name, rows, cols, players, foods, coop is not None, sight)


def _unknown(scenario: str) -> RefusedError:
    """How to write the id that was meant."""
    older = OLDER.fullmatch(scenario)
    if older is not None:
        return RefusedError(
            f"env.scenario={scenario} is an id of an older lbforaging: take "
            f"env.scenario={older[1]} env.rules={older[2].lower()}."
        )
    return RefusedError(
        f"env.scenario={scenario} is not known.{suggest(scenario, SCENARIOS)} Expected sight "
        "(optional), size, players, foods and cooperation (optional) as in 2s-8x8-2p-2f-coop. "
        f"Usual: {', '.join(SCENARIOS)}."
    )


def room(task: Task) -> int:
    """How many foods a pattern of cells three moves apart fits into the grid without its border."""
    row, col = np.mgrid[: task.rows - 2, : task.cols - 2]
    return int(np.bincount(((row + 2 * col) % 5).ravel()).max())

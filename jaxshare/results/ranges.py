"""What counts as a score of 0 and of 1 on a task, so that tasks can be put together."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxshare.data import own
from jaxshare.types import RefusedError

WIN_RATE = "win_rate"


@dataclass(frozen=True)
class Range:
    """What counts as 0 and as 1 on a task, and who says so."""

    low: float
    high: float
    source: str

    def normalised(self, scores: np.ndarray) -> np.ndarray:
        """Scores [...], of any shape, with 0 at `low` and 1 at `high`."""
        return (scores - self.low) / (self.high - self.low)


def chosen(ranges: Mapping[Any, Any], tasks: Sequence[str]) -> dict[str, Range]:
    """The ranges that the user has named for tasks, as in {"2s3z": [0, 20]}.

    Raises RefusedError for a name that is no task, and for values that are no range.
    """
    # the range of each task
    named: dict[str, Range] = {}
    used = set()
    by_name = {str(name): values for name, values in ranges.items()}
    for task in tasks:
        name = next((name for name in by_name if name in _names(task)), None)
        if name is not None:
            used.add(name)
            named[task] = _checked(task, by_name[name])

    # names that are no task
    for name in by_name:
        if name not in used:
            names = ", ".join(tasks)
            raise RefusedError(f"ranges has {name}, which is no task here. Tasks: {names}.")
    return named


def _names(task: str) -> tuple[str, ...]:
    """What a task may be called: in full, or without its environment or what follows its name."""
    short = task.partition(" ")[0]
    return task, task.partition("/")[2], short, short.partition("/")[2]


def _checked(task: str, values: object) -> Range:
    """Two numbers, the smaller first, or RefusedError."""
    several = values if isinstance(values, list | tuple) else []
    numbers = [value for value in several if isinstance(value, int | float)]
    if len(numbers) != 2 or not numbers[0] < numbers[1]:
        remedy = "must be a lower and an upper score, as in [0,20]"
        raise RefusedError(f"ranges: {task} has {values}, which {remedy}.")
    return Range(float(numbers[0]), float(numbers[1]), "given")


def usual(task: str, metric: str, data: str, values: Iterable[np.ndarray]) -> Range:
    """What metric or data set say, or from the lowest to the highest of all values of a task.

    data: the data set of its runs, or "". Raises RefusedError if all values are the same.
    """
    # what is known
    if metric.endswith(WIN_RATE):
        return Range(0.0, 1.0, "a win rate")
    stored = _of_data_set(data) if data and metric == "return" else None
    if stored:
        return stored

    # what was reached
    every = np.concatenate(list(values))
    low = float(np.nanmin(every))
    high = float(np.nanmax(every))
    if not low < high:
        raise RefusedError(
            f"{task}: all evaluations are {low:g}, which gives no range to normalise by. Say what "
            f"is bad and good, as in ranges={{{task}:[{low:g},{low + 1:g}]}}."
        )
    return Range(low, high, "lowest and highest evaluation of the runs in this report")


def _of_data_set(data: str) -> Range | None:
    """From random play to the best of the policies that made a data set, if it says so."""
    path = pathlib.Path(data)
    if not (path / own.CARD).is_file():
        return None
    pools = own.open(path).card.get("pools") or {}
    if not ("low" in pools and "high" in pools and pools["low"] < pools["high"]):
        return None
    source = "random play and best policy of the data set's pool"
    return Range(float(pools["low"]), float(pools["high"]), source)

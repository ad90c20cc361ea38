"""What a run has logged as learning curves, and curves of several runs on one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxshare.results import statistics
from jaxshare.results.statistics import Bootstrap, Estimate, Statistic
from jaxshare.run.metrics import EVALUATED

POINTS = 100  # of a curve over several runs
SWEPT = "sweep."  # how a record names the values of its point of a sweep
RETURN = f"{EVALUATED}return"  # what every evaluation has
WIN_RATE = f"{EVALUATED}win_rate"

Record = dict[str, Any]  # a row of metrics.jsonl: counters and metrics, all numbers


# ------------------------------------------------------------------------------------------ records


def run_name(record: Record) -> str:
    """'seed 0, lr=0.001': which run a record belongs to."""
    names = [f"seed {record['seed']}"]
    names += [f"{key}={value}" for key, value in point_of(record).items()]
    return ", ".join(names)


def point_of(record: Record) -> dict[str, Any]:
    """{"lr": 0.001}: the point of a sweep that a record's run is, {} without a sweep."""
    return {key.removeprefix(SWEPT): x for key, x in record.items() if key.startswith(SWEPT)}


def by_run(records: Sequence[Record], metric: str) -> dict[str, list[Record]]:
    """The records of each run, by its name and in order, that have a metric."""
    runs: dict[str, list[Record]] = {}
    for record in records:
        if metric in record:
            runs.setdefault(run_name(record), []).append(record)
    return runs


def evaluations(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The evaluation records of each run, by its name and in order."""
    return by_run(records, RETURN)


def first_and_last(records: Sequence[Record]) -> list[dict[str, Any]]:
    """A row for each run, then their mean: {"run", "env_steps", "<metric> first", "<metric> last"}.

    Metrics that a run lacks at its first or last evaluation, or that other runs lack, are left out;
    [] without an evaluation.
    """
    # a row for each run
    rows: list[dict[str, Any]] = []
    for name, points in evaluations(records).items():
        first = points[0]
        last = points[-1]
        row: dict[str, Any] = {"run": name, "env_steps": last["env_steps"]}
        for key in last:
            if key.startswith(EVALUATED) and key in first:
                metric = key.removeprefix(EVALUATED)
                row[f"{metric} first"] = first[key]
                row[f"{metric} last"] = last[key]
        rows.append(row)
    if not rows:
        return []

    # the mean of what all rows have
    mean: dict[str, Any] = {"run": "mean"}
    for key in rows[0]:
        if key != "run" and all(key in row for row in rows):
            mean[key] = float(np.mean([row[key] for row in rows]))
    return [*rows, mean]


# ------------------------------------------------------------------------------------------- curves


@dataclass(frozen=True)
class Curve:
    """Values along an axis, of one run or of a statistic of several, perhaps with bounds."""

    x: np.ndarray  # [P], ascending
    y: np.ndarray  # [P]
    low: np.ndarray | None = None  # [P], pointwise; None or NaN: there is no interval
    high: np.ndarray | None = None  # [P]

    @property
    def has_band(self) -> bool:
        """Whether there is an interval at every point."""
        return self.low is not None and bool(np.isfinite(self.low).all())

    def estimates(self) -> list[Estimate]:
        """The value and its bounds at every point, NaN where there is no interval: [P]."""
        nothing = np.full(len(self.x), np.nan)
        low = nothing if self.low is None else self.low
        high = nothing if self.high is None else self.high
        return [Estimate(*bounds) for bounds in zip(self.y, low, high, strict=True)]


def learning_curves(records: Sequence[Record], metric: str) -> dict[str, Curve]:
    """The evaluations of each run, by its name: `metric`, such as eval/return, against progress."""
    curves = {}
    progress = progress_key(records[-1])
    for name, points in evaluations(records).items():
        x = [point[progress] for point in points]
        y = [point[metric] for point in points]
        curves[name] = Curve(np.array(x, float), np.array(y, float))
    return curves


def progress_key(record: Record) -> str:
    """What counts how far a run is: a learner from a data set makes updates, and no steps."""
    return "env_steps" if record["env_steps"] else "updates"


def common_grid(curves: Sequence[Curve], points: int = POINTS) -> np.ndarray:
    """Where curves of several runs are compared: as far as every one of them goes, [points]."""
    begin = max(curve.x[0] for curve in curves)
    end = min(curve.x[-1] for curve in curves)
    return np.linspace(begin, end, points)


def along(curves: Sequence[Curve], grid: np.ndarray) -> np.ndarray:
    """The values of N curves at P places, on a line between their points: [P, N]."""
    return np.stack([np.interp(grid, curve.x, curve.y) for curve in curves], axis=-1)


def mean_curve(curves: Sequence[Curve], points: int = POINTS) -> Curve:
    """The mean of several runs, as far as all of them go."""
    grid = common_grid(curves, points)
    return Curve(grid, along(curves, grid).mean(-1))


def statistic_curve(
    statistic: Statistic,
    curves: Sequence[Curve],
    bootstrap: Bootstrap,
    points: int = POINTS,
) -> Curve:
    """A statistic of several runs with its pointwise interval, as far as all of them go."""
    grid = common_grid(curves, points)
    return banded(statistic, grid, [along(curves, grid)], bootstrap)


def banded(
    statistic: Statistic,
    grid: np.ndarray,
    values: Sequence[np.ndarray],
    bootstrap: Bootstrap,
) -> Curve:
    """A statistic of values [P, N] of each task at P places, with its pointwise interval."""
    estimate = statistics.interval(statistic, values, *bootstrap.arguments())
    return Curve(grid, estimate.value, estimate.low, estimate.high)

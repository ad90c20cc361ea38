"""The numbers of a report: aggregates, probabilities of improvement, profiles and curves of a study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxshare.results import statistics
from jaxshare.results.statistics import Estimate
from jaxshare.results.study import Cell, Study

POINTS = 100  # of a curve
TAUS = 101  # of a profile
PER_TASK = {"iqm": statistics.iqm, "mean": statistics.mean, "median": statistics.median}
FEWER = 10  # how many times fewer bootstraps a curve or profile has than a table; paper: 2,000 to 50,000


@dataclass(frozen=True)
class Curve:
    """A statistic over P points, and its pointwise interval."""

    x: np.ndarray  # [P]
    y: Estimate  # [P]


@dataclass(frozen=True)
class Numbers:
    """All of a report."""

    aggregates: dict[str, dict[str, Estimate]]  # group -> statistic; normalised, over the common tasks
    by_task: dict[tuple[str, str], dict[str, Estimate]]  # (group, task) -> statistic; as measured
    improvement: dict[tuple[str, str], Estimate]  # (X, Y) -> P(X > Y), over the common tasks
    taus: np.ndarray  # [P]
    profiles: dict[str, Estimate]  # group -> [P]
    progress: dict[tuple[str, str], Curve]  # (group, task) -> IQM, against environment steps or updates
    wall: dict[tuple[str, str], Curve]  # (group, task) -> IQM, against seconds
    overall: dict[str, Curve]  # group -> normalised IQM over the common tasks, against the share of the steps


def make(study: Study, config: Any) -> Numbers:
    """All numbers; the same seed gives the same intervals. config: of jaxshare.report."""
    few = max(1, config.resamples // FEWER)

    def of(function: Any, *arguments: Any, count: int = config.resamples) -> Estimate:
        return function(*arguments, count, config.confidence, np.random.default_rng(config.seed))

    shown = study.groups if study.common else []
    scores = {group: study.normalised(group) for group in shown}
    every = np.concatenate([x for own in scores.values() for x in own]) if scores else np.zeros(1)
    taus = np.linspace(min(0.0, float(every.min())), max(1.0, float(every.max())), TAUS)
    bands = lambda grid, values: Curve(grid, of(statistics.interval, statistics.iqm, values, count=few))  # noqa: E731
    several = len(study.common) > 1
    return Numbers(
        aggregates={
            group: {name: of(statistics.interval, one, x) for name, one in statistics.AGGREGATES.items()}
            for group, x in scores.items()
        },
        by_task={
            key: {name: of(statistics.interval, one, [cell.scores]) for name, one in PER_TASK.items()}
            for key, cell in study.cells.items()
        },
        improvement={
            (x, y): of(statistics.improvement_interval, scores[x], scores[y])
            for i, x in enumerate(shown) for y in shown[i + 1 :]
        },
        taus=taus,
        profiles={group: of(statistics.profile, x, taus, count=few) for group, x in scores.items()},
        progress={key: bands(*_along(cell, study.metric, "progress")) for key, cell in study.cells.items()},
        wall={key: bands(*_along(cell, study.metric, "wall")) for key, cell in study.cells.items()},
        overall={group: bands(*_overall(study, group)) for group in shown if several},
    )  # fmt: skip


def _along(cell: Cell, metric: str, axis: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """(grid [P], [values [P, N]]) of the runs of a cell as far as all of them go, between evaluations a line."""
    x = [getattr(run, axis) for run in cell.runs]
    grid = np.linspace(max(each[0] for each in x), min(each[-1] for each in x), POINTS)
    values = [np.interp(grid, each, run.values[metric]) for each, run in zip(x, cell.runs, strict=True)]
    return grid, [np.stack(values, axis=-1)]


def _overall(study: Study, group: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """(share of the steps [P], normalised values [P, N] of each common task)."""
    ends = {task: end(study, task) for task in study.common}
    own = {task: study.cells[group, task].runs for task in study.common}
    first = max(run.progress[0] / ends[task] for task, runs in own.items() for run in runs)
    share, found = np.linspace(first, 1.0, POINTS), []
    for task, runs in own.items():
        values = [np.interp(share * ends[task], run.progress, run.values[study.metric]) for run in runs]
        found.append(study.ranges[task].normalised(np.stack(values, axis=-1)))
    return share, found


def end(study: Study, task: str) -> float:
    """How far all runs of all groups go on a task."""
    return min(run.progress[-1] for (_, t), cell in study.cells.items() if t == task for run in cell.runs)

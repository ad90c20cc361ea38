"""The numbers of a report: aggregates, probabilities of improvement, profiles and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from jaxshare.results import statistics
from jaxshare.results.curves import POINTS, Curve, along, banded, statistic_curve
from jaxshare.results.groups import Place
from jaxshare.results.statistics import Bootstrap, Estimate, Scores, Statistic
from jaxshare.results.study import Cell, Study

if TYPE_CHECKING:
    from jaxshare.results.settings import Config

TAUS = 101  # of a profile
PER_TASK = {"iqm": statistics.iqm, "mean": statistics.mean, "median": statistics.median}
FEWER = 10  # how many times fewer bootstraps a curve has than a table; paper: 2,000 to 50,000
MOST_GROUPS = 40  # in pictures, and in pairs: as many looks as there are


@dataclass(frozen=True)
class GroupNumbers:
    """Of a group over the common tasks, normalised."""

    aggregates: dict[str, Estimate]  # by the names of statistics.AGGREGATES
    profile: Curve  # share of runs above a score
    overall: Curve | None  # IQM against the share of the steps; None: there is one task


@dataclass(frozen=True)
class CellNumbers:
    """Of a group on a task, as measured."""

    statistics: dict[str, Estimate]  # by the names of PER_TASK
    progress: Curve  # IQM against environment steps or updates
    wall: Curve  # IQM against seconds


@dataclass(frozen=True)
class Pair:
    """P(X > Y) over the common tasks."""

    first: str  # X, a group
    second: str  # Y
    estimate: Estimate


@dataclass(frozen=True)
class Numbers:
    """All of a report."""

    groups: dict[str, GroupNumbers]  # {} without common tasks
    cells: dict[Place, CellNumbers]
    pairs: list[Pair]  # of the pictured groups
    pictured: list[str]  # the groups that pictures show


@dataclass(frozen=True)
class Report:
    """What is shown of a study."""

    study: Study
    numbers: Numbers
    config: Config

    @property
    def metric(self) -> str:
        """What is measured, in words."""
        return self.study.metric.replace("_", " ")

    @property
    def over(self) -> str:
        """The common tasks, in words."""
        tasks = self.study.common
        return tasks[0] if len(tasks) == 1 else f"{len(tasks)} tasks"

    @property
    def band(self) -> str:
        """What intervals are, in words."""
        return f"{100 * self.config.confidence:g} % bootstrap intervals"

    def count(self, group: str) -> str:
        """Number of seeds of a group on each of the common tasks."""
        return self.study.count(group, self.study.common)

    def named(self, group: str, tasks: Sequence[str] = ()) -> str:
        """'qmix (5 seeds)' on each of the tasks (all); no line ends within the brackets."""
        return f"{group} ({self.study.counted(group, tasks)})".replace(" seed", "\u00a0seed")


def make(study: Study, config: Config) -> Numbers:
    """All numbers; the same seed gives the same intervals."""
    tables = Bootstrap(config.resamples, config.confidence, config.seed)
    fewer = max(1, config.resamples // FEWER)
    curves = Bootstrap(fewer, config.confidence, config.seed)

    # groups over all common tasks
    scores: dict[str, Scores] = {}
    if study.common:
        scores = {group: study.normalised(group) for group in study.groups}
    taus = _taus(scores)
    groups = {}
    for group, of_group in scores.items():
        aggregates = _estimates(statistics.AGGREGATES, of_group, tables)
        profile = _profile(of_group, taus, curves)
        overall = _overall(study, group, curves) if len(study.common) > 1 else None
        groups[group] = GroupNumbers(aggregates, profile, overall)

    # pairs of groups
    pictured = _pictured(study, groups)
    pairs = []
    for first, second in combinations(pictured if groups else [], 2):
        estimate = statistics.improvement_interval(
            scores[first],
            scores[second],
            *tables.arguments(),
        )
        pairs.append(Pair(first, second, estimate))

    # groups on each task
    cells = {}
    for place, cell in study.cells.items():
        cells[place] = _of_cell(cell, study.metric, tables, curves)
    return Numbers(groups, cells, pairs, pictured)


def _pictured(study: Study, groups: Mapping[str, GroupNumbers]) -> list[str]:
    """All groups, or of very many those with the highest IQM, or else the first; in their order."""
    names = list(study.groups)
    if len(names) <= MOST_GROUPS:
        return names
    if groups:
        names.sort(key=lambda group: -float(groups[group].aggregates["iqm"].value))
    best = set(names[:MOST_GROUPS])
    return [group for group in study.groups if group in best]


def _taus(scores: Mapping[str, Scores]) -> np.ndarray:
    """The scores at which profiles are taken, [P]: from 0 to 1, or as far as runs go."""
    every = [x for of_group in scores.values() for x in of_group]
    low = min((float(x.min()) for x in every), default=0.0)
    high = max((float(x.max()) for x in every), default=0.0)
    return np.linspace(min(0.0, low), max(1.0, high), TAUS)


def _estimates(
    functions: Mapping[str, Statistic],
    scores: Scores,
    bootstrap: Bootstrap,
) -> dict[str, Estimate]:
    """Each statistic of scores, [N] per task."""
    estimates = {}
    for name, function in functions.items():
        estimates[name] = statistics.interval(function, scores, *bootstrap.arguments())
    return estimates


def _profile(scores: Scores, taus: np.ndarray, bootstrap: Bootstrap) -> Curve:
    estimate = statistics.profile(scores, taus, *bootstrap.arguments())
    return Curve(taus, estimate.value, estimate.low, estimate.high)


def _of_cell(cell: Cell, metric: str, tables: Bootstrap, curves: Bootstrap) -> CellNumbers:
    of_runs = [run.along_progress(metric) for run in cell.runs]
    of_runs_in_time = [run.along_wall_time(metric) for run in cell.runs]
    estimates = _estimates(PER_TASK, [cell.scores], tables)
    progress = statistic_curve(statistics.iqm, of_runs, curves)
    wall = statistic_curve(statistics.iqm, of_runs_in_time, curves)
    return CellNumbers(statistics=estimates, progress=progress, wall=wall)


def _overall(study: Study, group: str, bootstrap: Bootstrap) -> Curve:
    """The normalised IQM over the common tasks, against the share of the steps of all runs."""
    # from where on all runs of the group have been evaluated
    ends = {task: study.tasks[task].end for task in study.common}
    begin = 0.0
    for task, end in ends.items():
        for run in study.cells[Place(group, task)].runs:
            begin = max(begin, run.progress[0] / end)

    # each task by itself
    share = np.linspace(begin, 1.0, POINTS)
    values = []
    for task, end in ends.items():
        runs = study.cells[Place(group, task)].runs
        raw = along([run.along_progress(study.metric) for run in runs], share * end)  # [P, N]
        values.append(study.tasks[task].range.normalised(raw))
    return banded(statistics.iqm, share, values, bootstrap)

"""The tables of a report as rows of plain cells: for CSV files, the page and the console."""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxshare.results.curves import Curve
from jaxshare.results.numbers import PER_TASK, Report
from jaxshare.results.statistics import Estimate

STATISTICS = {
    "iqm": "IQM",
    "mean": "mean",
    "median": "median",
    "optimality_gap": "optimality gap",
}
BOUNDS = ("value", "low", "high")


@dataclass(frozen=True)
class Table:
    """A header and rows of as many cells."""

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]


def in_words(estimate: Estimate, space: str = " ", most: int = 3) -> str:
    """'0.512 [0.401, 0.623]', or the value alone where there is no interval.

    most: decimals, of small numbers.
    """
    numbers = [float(estimate.value), float(estimate.low), float(estimate.high)]
    finite = [x for x in numbers if np.isfinite(x)]
    largest = max(1.0, *map(abs, finite))
    digits = max(0, most - max(0, int(np.log10(largest))))
    value, *bounds = [f"{x:.{digits}f}" for x in finite]
    return f"{value} [{bounds[0]},{space}{bounds[1]}]" if bounds else value


def write(report: Report, out: pathlib.Path) -> list[pathlib.Path]:
    """All tables as CSV files. Raises OSError."""
    tables = {
        "scores": scores(report),
        "tasks": tasks(report),
        "aggregates": aggregates(report),
        "improvement": improvement(report),
        "profiles": profiles(report),
        "curves": curves(report),
        "settings": settings(report),
    }

    # a file for each
    files = []
    for name, table in tables.items():
        path = out / f"{name}.csv"
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(table.header)
            writer.writerows(table.rows)
        files.append(path)
    return files


def _cells(estimate: Estimate) -> list[Any]:
    """Value and interval; empty cells where there is none."""
    numbers = [float(estimate.value), float(estimate.low), float(estimate.high)]
    return [x if np.isfinite(x) else "" for x in numbers]


def scores(report: Report) -> Table:
    """Every run with its score."""
    study = report.study
    names = ["group", "task", "run_dir", "seed", "point", "unit", "finished"]
    rows: list[list[Any]] = []
    for place, cell in study.cells.items():
        task = study.tasks[place.task]
        for run, score in zip(cell.runs, cell.scores.tolist(), strict=True):
            row = [*place, str(run.path), run.seed, cell.point, task.unit, run.finished]
            rows.append([*row, score, float(task.range.normalised(np.array(score)))])
    return Table([*names, study.metric, "normalised"], rows)


def tasks(report: Report) -> Table:
    """Every group on every task, as measured, and how it was measured."""
    names = [f"{name} {bound}" for name in PER_TASK for bound in BOUNDS]
    about = ["policy", "episodes", "range low", "range high", "range from"]
    rows = []
    for place, numbers in report.numbers.cells.items():
        cell = report.study.cells[place]
        task = report.study.tasks[place.task]
        row: list[Any] = [*place, len(cell.runs)]
        for estimate in numbers.statistics.values():
            row += _cells(estimate)
        row += [float(cell.scores.min()), float(cell.scores.max())]
        row += [task.policy, task.episodes, task.range.low, task.range.high, task.range.source]
        rows.append(row)
    return Table(["group", "task", "seeds", *names, "lowest", "highest", *about], rows)


def aggregates(report: Report) -> Table:
    """Every group over the common tasks, normalised."""
    names = [f"{name} {bound}" for name in STATISTICS for bound in BOUNDS]
    rows = []
    for group, numbers in report.numbers.groups.items():
        row = _about(report, group)
        for name in STATISTICS:
            row += _cells(numbers.aggregates[name])
        rows.append(row)
    return Table(["group", "tasks", "seeds", *names], rows)


def _about(report: Report, group: str) -> list[Any]:
    """What a row on a group over the common tasks begins with."""
    return [group, len(report.study.common), report.count(group)]


def improvement(report: Report) -> Table:
    """P(X > Y) of pairs of groups."""
    rows = []
    for pair in report.numbers.pairs:
        seeds = [report.count(pair.first), report.count(pair.second)]
        about = [pair.first, pair.second, len(report.study.common)]
        rows.append([*about, *seeds, *_cells(pair.estimate)])
    header = ["X", "Y", "tasks", "seeds of X", "seeds of Y", "P(X > Y)", "low", "high"]
    return Table(header, rows)


def profiles(report: Report) -> Table:
    """The share of runs above each score."""
    rows = []
    for group, numbers in report.numbers.groups.items():
        about = _about(report, group)
        rows += [[*about, *point] for point in _points(numbers.profile)]
    return Table(["group", "tasks", "seeds", "tau", *BOUNDS], rows)


def curves(report: Report) -> Table:
    """Learning curves: against progress, against time, and over the common tasks."""
    study = report.study
    cells = report.numbers.cells
    rows: list[list[Any]] = []
    for place, numbers in cells.items():
        about = [*place, len(study.cells[place].runs), study.tasks[place.task].unit]
        rows += [[*about, *point] for point in _points(numbers.progress)]
    for place, numbers in cells.items():
        about = [*place, len(study.cells[place].runs), "seconds"]
        rows += [[*about, *point] for point in _points(numbers.wall)]
    for group, of_group in report.numbers.groups.items():
        if of_group.overall is not None:
            about = [group, "all, normalised", report.count(group), "share of the steps"]
            rows += [[*about, *point] for point in _points(of_group.overall)]
    return Table(["group", "task", "seeds", "against", "x", *BOUNDS], rows)


def _points(curve: Curve) -> Iterator[list[Any]]:
    for x, estimate in zip(curve.x, curve.estimates(), strict=True):
        yield [float(x), *_cells(estimate)]


def settings(report: Report) -> Table:
    """What differs between the groups."""
    rows = [[key, *values.values()] for key, values in report.study.settings.items()]
    return Table(["setting", *report.study.groups], rows)

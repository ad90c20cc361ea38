"""A report as plain values: what report.json holds, and what the command returns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxshare.results.groups import Place
from jaxshare.results.numbers import Report
from jaxshare.results.sentences import command
from jaxshare.results.statistics import Estimate


def plain(report: Report, how: Sequence[str]) -> dict[str, Any]:
    """Everything but curves and profiles, which are in their CSV files; how: what numbers are."""
    study = report.study

    # over the common tasks
    aggregates = {}
    for group, numbers in report.numbers.groups.items():
        aggregates[group] = {"seeds": report.count(group), **_estimates(numbers.aggregates)}
    pairs = []
    for pair in report.numbers.pairs:
        pairs.append({"x": pair.first, "y": pair.second, **_estimate(pair.estimate)})

    # what was compared, and how
    compared = {
        "command": command(report.config),
        "metric": study.metric,
        "score": report.config.score,
        "how": list(how),
        "notes": study.notes,
        "groups": study.groups,
        "common_tasks": study.common,
    }
    return {
        **compared,
        "tasks": {task: _task(report, task) for task in study.tasks},
        "aggregates": aggregates,
        "improvement": pairs,
        "settings": study.settings,
    }


def _task(report: Report, name: str) -> dict[str, Any]:
    task = report.study.tasks[name]
    groups = {}
    for group, cell in task.cells.items():
        # a list has an entry for each run
        numbers = report.numbers.cells[Place(group, name)]
        lists: dict[str, list[Any]] = {}
        lists["seeds"] = [run.seed for run in cell.runs]
        lists["run_dirs"] = [str(run.path) for run in cell.runs]
        lists["finished"] = [run.finished for run in cell.runs]
        lists["scores"] = cell.scores.tolist()
        groups[group] = {**lists, "point": cell.point, **_estimates(numbers.statistics)}
    ends = {"low": task.range.low, "high": task.range.high, "source": task.range.source}
    return {
        "unit": task.unit,
        "policy": task.policy,
        "episodes": task.episodes,
        "range": ends,
        "groups": groups,
    }


def _estimates(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, float | None]]:
    return {name: _estimate(estimate) for name, estimate in estimates.items()}


def _estimate(estimate: Estimate) -> dict[str, float | None]:
    """Value and interval; None where there is none."""
    bounds = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {name: None if math.isnan(x) else float(x) for name, x in bounds.items()}

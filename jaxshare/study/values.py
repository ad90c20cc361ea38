"""The numbers that checks compare, read from the runs of a plan: one for each seed."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxshare.results import curves
from jaxshare.results.runs import gather_versions
from jaxshare.run import metrics, reader
from jaxshare.run.versions import read_versions
from jaxshare.study.arrivals import Arrivals, of_seeds
from jaxshare.study.check import Check, Quantity, Series
from jaxshare.study.language import Study
from jaxshare.study.plan import Plan
from jaxshare.types import RefusedError

PREFIX = "eval/"
Records = list[dict[str, Any]]
AGAIN = "Delete it, and run the study again."
DECOMPOSITION = reader.Record({"runs": reader.ListOf(reader.Record({"types": reader.ANY}))})


@dataclass(frozen=True)
class Scoring:
    """What the score of a run is."""

    metric: str
    score: str  # final or curve
    last: int  # evaluations, of final


def scoring(study: Study, quantity: Quantity) -> Scoring:
    """Of a check, which may have its own, or the study's."""
    return Scoring(
        quantity.metric or study.metric,
        quantity.score or study.score,
        quantity.last or study.last,
    )


def scale(check: Check, task: str) -> float:
    """What a score is divided by: 1 unless the check says a number, or one for each task."""
    return check.scale[task] if isinstance(check.scale, dict) else check.scale


class Runs:
    """The runs of a plan, read once."""

    def __init__(self, plan: Plan, root: pathlib.Path) -> None:
        self.plan = plan
        self.root = root
        self._records: dict[str, Records] = {}

    def records(self, task: str, arm: str) -> Records:
        """All records of the runs of an arm on a task."""
        records: Records = []
        for piece in self.plan.cells[task, arm]:
            if piece.job not in self._records:
                run_dir = self.root / self.plan.jobs[piece.job].out
                self._records[piece.job] = metrics.records(run_dir)
            records += _of_point(self._records[piece.job], dict(piece.point))
        return records

    def evaluations(self, task: str, arm: str) -> list[Records]:
        """The evaluations of every seed."""
        return list(curves.evaluations(self.records(task, arm)).values())

    def scores(self, task: str, arm: str, how: Scoring) -> np.ndarray:
        """One number for each seed, [N]: of its last evaluations, or of all but the first."""
        key = PREFIX + how.metric
        by_seed = []
        for records in self.evaluations(task, arm):
            by_seed.append([record[key] for record in records if key in record])
        if not by_seed or not all(len(values) > 1 for values in by_seed):
            raise RefusedError(
                f"{arm} on {task} has no {how.metric}, or only once: choose another metric, or "
                f"a smaller eval.every. It has: {', '.join(self._metrics(task, arm))}.",
            )
        first = -how.last if how.score == "final" else 0
        return np.array([np.mean(values[1:][first:]) for values in by_seed])

    def _metrics(self, task: str, arm: str) -> list[str]:
        """What its evaluations have."""
        names: set[str] = set()
        for record in self.records(task, arm):
            names |= {key.removeprefix(PREFIX) for key in record if key.startswith(PREFIX)}
        return sorted(names)

    def untrained(self, task: str, arm: str, metric: str) -> float:
        """The mean over seeds of the evaluation before training."""
        key = PREFIX + metric
        return float(np.mean([records[0][key] for records in self.evaluations(task, arm)]))

    def reached(self, task: str, arm: str, value: float) -> np.ndarray:
        """1 for each seed whose last return is the value, else 0: [N]."""
        key = PREFIX + "return"
        ends = np.array([records[-1][key] for records in self.evaluations(task, arm)])
        return (np.abs(ends - value) < 1e-3).astype(float)

    def arrivals(self, task: str, arm: str, metric: str, level: float) -> Arrivals:
        """When each seed's evaluations reach a level."""
        unit = self.plan.jobs_of(task, arm)[0].unit
        key = PREFIX + metric
        points = []
        for records in self.evaluations(task, arm):
            points.append([(record[unit], record[key]) for record in records if key in record])
        if not points or not all(points):
            known = ", ".join(self._metrics(task, arm))
            raise RefusedError(f"{arm} on {task} has no {metric}. It has: {known}.")
        return of_seeds([np.array(of_seed, float) for of_seed in points], level)

    def series(self, task: str, arm: str, series: Series) -> np.ndarray:
        """A logged number over the last part of a run, perhaps set against another, [N]."""
        records = self.records(task, arm)
        if series.plus:
            records = [_added(record, series) for record in records]
        runs = curves.by_run(records, series.name)
        return np.array([_late(records, series) for records in runs.values()])

    def decomposition(self, task: str, arm: str, path: str) -> np.ndarray:
        """A number of decomposition.json, the mean over the types of agents that have it; [N]."""
        job = self.plan.jobs[self.plan.decompositions[task, arm]]
        whole = reader.read_json(self.root / job.out, DECOMPOSITION, AGAIN)
        return np.array([of_types(run["types"], path) for run in whole["runs"]])

    def json(self, quantity: Quantity) -> np.ndarray:
        """All numbers that a path of a script's result leads to, [N].

        With `near` their largest distance from these values, [1].
        """
        assert quantity.json is not None
        job = self.plan.jobs[self.plan.scripts[quantity.json]]
        tree = reader.read_json(self.root / job.out, reader.ANY, AGAIN)
        for key in quantity.path:
            tree = tree[key]
        numbers = np.asarray(tree, float)
        if quantity.near is not None:
            distances = np.abs(numbers - np.asarray(quantity.near, float))
            return distances.max(keepdims=True).ravel()
        return np.atleast_1d(numbers).ravel()

    def versions(self) -> dict[str, str]:
        """Those of the training runs; those that differ are listed together."""
        folders = dict.fromkeys(self.root / job.out for _, job in self.plan.each_run())
        versions = gather_versions(read_versions(run_dir) for run_dir in folders)
        return {package: ", ".join(versions[package]) for package in sorted(versions)}


def _of_point(records: Records, point: dict[str, float]) -> Records:
    """The records of a point of a sweep, as those of a run by itself; all without a point."""
    if not point:
        return records
    chosen = [record for record in records if curves.point_of(record) == point]
    swept = [f"{curves.SWEPT}{name}" for name in point]
    return [_without(record, swept) for record in chosen]


def _without(record: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in keys}


def _added(record: dict[str, Any], series: Series) -> dict[str, Any]:
    """The record with the sum of all numbers of the series, if it has them all."""
    if not all(name in record for name in (series.name, *series.plus)):
        return {key: value for key, value in record.items() if key != series.name}
    total = record[series.name] + sum(record[name] for name in series.plus)
    return {**record, series.name: total}


def _late(records: Records, series: Series) -> float:
    """A number of one run from a share of its length on."""
    unit = "env_steps" if records[-1]["env_steps"] else "updates"
    since = records[-1][unit] * series.since
    values = [record[series.name] for record in records]
    later = [record for record in records if record[unit] >= since]
    late = _mean(record[series.name] for record in later)
    if series.against is None:
        return late
    if series.against == "begin":
        other = _mean(values[: max(1, len(values) // 20)])
    elif series.against == "peak":
        other = float(max(values))
    else:
        other = _mean(record[series.against] for record in later)
    return late - other if series.by == "difference" else late / other


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def of_types(types: dict[str, Any], path: str) -> float:
    """The mean over types of agents of a number in the decomposition. Raises RefusedError."""
    numbers = []
    for value in types.values():
        for key in path.split("."):
            if not value:
                value = None
            elif key == "minus_uniform":  # how much oftener better ones are drawn than they occur
                value = value["probability"] - value["trajectories"]
            else:
                value = value.get(key)
        if value is not None:
            numbers.append(float(value))
    if not numbers:
        raise RefusedError(f"decomposition: no type of agents has {path}.")
    return float(np.mean(numbers))

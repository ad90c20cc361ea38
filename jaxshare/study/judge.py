"""What the runs of a study say: values, intervals, verdicts, and the curves of the page.

A check on several tasks is not confirmed if it is so on one of them. Of several checks, one not
confirmed makes the claim not confirmed, and all must be confirmed for it to be confirmed.
"""

from __future__ import annotations

import pathlib
from typing import cast

import numpy as np

from jaxshare.results import curves, statistics
from jaxshare.results.statistics import Bootstrap
from jaxshare.study import figures, rules
from jaxshare.study.arrivals import Arrivals, undecided
from jaxshare.study.check import TWO_ARMS, Check, Quantity
from jaxshare.study.figures import Cell, CheckResult, Curve, Result, Scores, Value
from jaxshare.study.job import STAGE
from jaxshare.study.language import Study
from jaxshare.study.plan import Plan
from jaxshare.study.rules import (
    MEASURED,
    NOT_CONFIRMED,
    NOT_RUN,
    UNDECIDED,
    UNFINISHED,
    Interval,
)
from jaxshare.study.values import PREFIX, Runs, scale, scoring
from jaxshare.types import RefusedError

POINTS = 25  # of a curve that is kept
FEWER = 10  # times fewer bootstraps for a curve
Missing = dict[str, str]  # job without result: why


def judge(
    study: Study,
    plan: Plan | None,
    budget: str,
    root: pathlib.Path,
    missing: Missing,
) -> Result:
    """Everything that the page and the tables need of a study."""
    if plan is None:
        reason = study.reason(budget)
        return {"verdict": NOT_RUN, "reason": reason, "checks": [], "cells": {}}

    # checks, and scores of every arm on every task
    judging = _Judging(plan, root, {name: missing[name] for name in missing if name in plan.jobs})
    checks = [judging.check(check) for check in study.checks]
    cells: dict[str, dict[str, Cell]] = {}
    for task, arm in plan.cells:
        cell = judging.cell(task, arm)
        if cell is not None:
            cells.setdefault(task, {})[arm] = cell
    return {
        "verdict": _verdict(checks, cells, plan),
        "budget": plan.budget,
        "seeds": plan.seeds,
        "checks": checks,
        "cells": cells,
        "commands": plan.commands(),
        "missing": judging.missing,
        "versions": judging.runs.versions(),
    }


def describe(study: Study, result: Result, machine: str) -> Result:
    """The result with what the page says of the study."""
    texts = cast(Result, figures.texts(study))
    return {**texts, "machine": machine, **result}


def _verdict(checks: list[CheckResult], cells: dict[str, dict[str, Cell]], plan: Plan) -> str:
    if checks:
        return rules.together([check["verdict"] for check in checks if check["decides"]])
    if not cells:
        return NOT_RUN
    return MEASURED if sum(map(len, cells.values())) == len(plan.cells) else UNFINISHED


class _Judging:
    """The checks and cells of one plan."""

    def __init__(self, plan: Plan, root: pathlib.Path, missing: Missing) -> None:
        self.plan = plan
        self.runs = Runs(plan, root)
        self.missing = missing

    def check(self, check: Check) -> CheckResult:
        """A check with its value, bounds, verdict, and the same of each of its tasks."""
        tasks = [task for task in check.tasks or self.plan.tasks if task in self.plan.tasks]
        result: CheckResult = {
            "says": check.says, "paper": check.paper, "compare": check.compare,
            "bound": check.bound, "decides": check.decides, "tasks": tasks,
        }  # fmt: skip
        complete = [task for task in tasks if self._has(task, check.arms)]
        why = self._lacking(check, complete)
        if why:
            return {**result, "verdict": NOT_RUN, "reason": why}
        try:
            result = {**result, **self.value(check, complete)}
            if len(complete) > 1:
                result["each"] = {task: self.value(check, [task]) for task in complete}
                if NOT_CONFIRMED in [each["verdict"] for each in result["each"].values()]:
                    result["verdict"] = NOT_CONFIRMED
        except (RefusedError, KeyError, ValueError, ZeroDivisionError) as error:
            return {**result, "verdict": NOT_RUN, "reason": f"{type(error).__name__}: {error}"}
        return result

    def _has(self, task: str, arms: list[str]) -> bool:
        return all((task, arm) in self.plan.cells for arm in arms)

    def _lacking(self, check: Check, tasks: list[str]) -> str:
        """Why a check cannot be made, or nothing."""
        quantity = check.quantity
        if quantity.json is not None:
            needed = [self.plan.scripts[quantity.json]]
        elif not tasks:
            return f"not part of the {self.plan.budget} budget"
        else:
            of_runs = quantity.decomposition is None
            pairs = [(task, arm) for task in tasks for arm in check.arms]
            if of_runs:
                needed = [job.name for pair in pairs for job in self.plan.jobs_of(*pair)]
            else:
                source = self.plan.decompositions
                lost = next((arm for task, arm in pairs if (task, arm) not in source), "")
                if lost:
                    return f"{lost} has no decomposition: only algo=sit has"
                needed = [source[pair] for pair in pairs]

        # the first of these jobs that has no result
        return next((f"{job}: {self.missing[job]}" for job in needed if job in self.missing), "")

    def value(self, check: Check, tasks: list[str]) -> Value:
        """The value of a check on some tasks."""
        quantity = check.quantity
        statistic = statistics.AGGREGATES[check.statistic]
        note = ""
        if quantity.json is not None:
            values = [self.runs.json(quantity)]
            interval = rules.exact(values[0], check.compare)
        elif quantity.reached is not None:
            # seeds that have reached it
            arm = check.arms[0]
            values = [self.runs.reached(task, arm, quantity.reached) for task in tasks]
            hits = np.concatenate(values)
            interval = rules.share(int(hits.sum()), len(hits))
        else:
            # one arm, or two against each other
            values = [self._numbers(check, check.arms[0], task) for task in tasks]
            if check.compare in TWO_ARMS:
                others = [self._numbers(check, check.arms[1], task) for task in tasks]
                interval = rules.difference(values, others, statistic)
                note = self._unlearned(check, tasks, values, others)
            else:
                interval = rules.single(values, statistic)
        if quantity.steps_to is not None:
            for task in tasks:
                arms = [self._arrivals(check, arm, task) for arm in check.arms]
                note = note or undecided(check, interval, arms)
        return _value(check, interval, note, sum(len(numbers) for numbers in values))

    def _numbers(self, check: Check, arm: str, task: str) -> np.ndarray:
        """What a check compares, of one arm on one task, [N]."""
        quantity = check.quantity
        if quantity.series is not None:
            return self.runs.series(task, arm, quantity.series)
        if quantity.steps_to is not None:
            steps = self._arrivals(check, arm, task).steps
            return np.log2(np.maximum(steps, 1.0)) if quantity.steps_to.as_power else steps
        if quantity.decomposition is not None:
            return self.runs.decomposition(task, arm, quantity.decomposition)
        how = scoring(self.plan.study, quantity)
        return self.runs.scores(task, arm, how) / scale(check, task)

    def _arrivals(self, check: Check, arm: str, task: str) -> Arrivals:
        """Of a check of steps until a level is reached."""
        quantity = check.quantity
        assert quantity.steps_to is not None
        metric = scoring(self.plan.study, quantity).metric
        return self.runs.arrivals(task, arm, metric, quantity.steps_to.level)

    def _unlearned(
        self,
        check: Check,
        tasks: list[str],
        first: list[np.ndarray],
        second: list[np.ndarray],
    ) -> str:
        """Arms that are equal because neither has learned anything show nothing."""
        quantity = check.quantity
        of_scores = not (quantity.series or quantity.decomposition or quantity.steps_to)
        if check.compare != "equal" or not of_scores:
            return ""
        metric = scoring(self.plan.study, quantity).metric
        for task, *pair in zip(tasks, first, second, strict=True):
            gains = []
            for arm, numbers in zip(check.arms, pair, strict=True):
                begin = self.runs.untrained(task, arm, metric) / scale(check, task)
                gains.append(float(np.mean(numbers)) - begin)
            if max(gains) <= check.bound:
                return f"neither learned more than the margin on {task}"
        return ""

    def cell(self, task: str, arm: str) -> Cell | None:
        """Scores of an arm on a task with their IQM, the paper's value, and the curve."""
        plan = self.plan
        jobs = plan.jobs_of(task, arm)
        if any(job.name in self.missing for job in jobs):
            return None

        # scores of all seeds, and their interval
        how = scoring(plan.study, Quantity())
        scores = self.runs.scores(task, arm, how)
        interval = rules.percentiles([scores], statistics.iqm)
        low = None if interval.is_open else interval.low
        high = None if interval.is_open else interval.high

        rounded = [round(float(score), 6) for score in scores]
        reached: Scores = {
            "metric": how.metric,
            "score": how.score,
            "last": how.last,
            "scores": rounded,
            "iqm": interval.value,
        }

        # what it is compared with, and how it came about
        paper = plan.study.values.get(task, {}).get(arm)
        unit = "updates" if jobs[0].offline else "environment steps"
        run = ", ".join(job.name for job in jobs)
        curve = self._curve(task, arm, how.metric)
        return {
            **reached,
            "paper": paper,
            "run": run,
            "low": low,
            "high": high,
            "total": jobs[0].total,
            "unit": unit,
            "curve": curve,
        }

    def _curve(self, task: str, arm: str, metric: str) -> Curve:
        """IQM and its interval over seeds on a grid, as far as all seeds go.

        Of SIT from the end of its first stage on.
        """
        job = self.plan.jobs_of(task, arm)[0]
        first = int(job.settings.get(STAGE, "0"))
        seeds = []
        for records in self.runs.evaluations(task, arm):
            later = [record for record in records if record[job.unit] >= first]
            x = np.array([record[job.unit] - first for record in later], float)
            y = np.array([record[PREFIX + metric] for record in later], float)
            seeds.append(curves.Curve(x, y))

        # their IQM; without a band the interval is the curve itself
        bootstrap = Bootstrap(rules.RESAMPLES // FEWER, rules.CONFIDENCE, rules.SEED)
        curve = curves.statistic_curve(statistics.iqm, seeds, bootstrap, POINTS)
        low = curve.low if curve.has_band else None
        high = curve.high if curve.has_band else None
        if low is None:
            low = curve.y
        if high is None:
            high = curve.y
        return {
            "x": _short(curve.x),
            "y": _short(curve.y),
            "low": _short(low),
            "high": _short(high),
        }


def _value(check: Check, interval: Interval, note: str, runs: int) -> Value:
    """An interval with its verdict."""
    if interval.is_open:
        return {"value": interval.value, "low": None, "high": None, "verdict": UNDECIDED,
                "note": note or "one seed", "runs": runs}  # fmt: skip
    decided = rules.verdict(check.compare, interval.low, interval.high, check.bound)
    return {"value": interval.value, "low": interval.low, "high": interval.high,
            "verdict": UNDECIDED if note else decided, "note": note, "runs": runs}  # fmt: skip


def _short(numbers: np.ndarray) -> list[float]:
    """Five digits of each."""
    return [float(f"{number:.5g}") for number in numbers]

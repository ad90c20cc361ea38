"""What the runs of benchmarks/claims.py say about a claim: values, bootstrap intervals, verdicts. numpy and scipy only.

A check compares one number for each seed (`values`), of one arm with a threshold or of two arms, on one task or on
several; of several the mean over tasks of each one's statistic counts, with scores divided by the task's range where
ranges differ. Intervals are stratified bootstraps (jaxshare.reporting): seeds are drawn anew within each task and arm.
With n seeds a percentile interval is too narrow, so that both sides are stretched by sqrt(n / (n - 1)) and by Student's
quantile over the normal one, for sum (n_i - 1) degrees of freedom. Of two equal normal arms with three seeds each, 10 %
would else be called different each way, and 2.5 to 3 % are now (1,500 draws; with four or five seeds 1 %).
With x the interval [low, high] of a difference or of a value:

    greater   x = first - second:  confirmed if low > margin,    not confirmed if high < margin,     else undecided
    equal     x = first - second:  confirmed if [low, high] lies within [-margin, margin], not confirmed if outside
    at_least  x = value:           confirmed if low >= threshold, not confirmed if high < threshold, else undecided
    above     x = value:           confirmed if low > threshold,  not confirmed if high <= threshold, else undecided
    at_most   x = value:           confirmed if high <= threshold, not confirmed if low > threshold, else undecided

A number without chance in it (an identity, a ratio of times) has no interval: low = high = value. A check on several
tasks is not confirmed if it is so on one of them. Of several checks, one not confirmed makes the claim not confirmed,
and all must be confirmed for it to be confirmed.
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from _claims_plan import Plan

from jaxshare.types import RefusedError

CONFIRMED, NOT_CONFIRMED, UNDECIDED, NOT_RUN = "confirmed", "not confirmed", "undecided", "not run"
RESAMPLES, CONFIDENCE, SEED = 10_000, 0.95, 0
POINTS = 25  # of a curve that is kept
Z = 1.959963984540054  # of 95 %
PREFIX = "eval/"


# ------------------------------------------------------------------------------------------------------------ verdicts


def verdict(compare: str, low: float, high: float, bound: float) -> str:
    """Of an interval; bound: the margin, or the threshold. See the top of the file."""
    rules: dict[str, tuple[bool, bool]] = {
        "greater": (low > bound, high < bound),
        "equal": (-bound <= low and high <= bound, low > bound or high < -bound),
        "at_least": (low >= bound, high < bound),
        "above": (low > bound, high <= bound),
        "at_most": (high <= bound, low > bound),
    }
    yes, no = rules[compare]
    return CONFIRMED if yes else NOT_CONFIRMED if no else UNDECIDED


def together(verdicts: list[str]) -> str:
    """Of the checks that decide a claim: one against it is enough, and all must have been made to confirm it."""
    if NOT_CONFIRMED in verdicts:
        return NOT_CONFIRMED
    if all(found == NOT_RUN for found in verdicts):
        return NOT_RUN
    return CONFIRMED if all(found == CONFIRMED for found in verdicts) else UNDECIDED


def difference(
    first: list[np.ndarray], second: list[np.ndarray], statistic: Callable[[Any], np.ndarray]
) -> tuple[float, float, float]:
    """Mean over tasks of statistic(first) - statistic(second), and its bounds; one array [N] per task.

    NaN bounds if a task has one run.
    """
    from jaxshare.reporting import statistics

    whole = _of_tasks(statistic)
    value = float(whole(first) - whole(second))
    if not (statistics.enough(first) and statistics.enough(second)):
        return value, math.nan, math.nan
    draw = np.random.default_rng(SEED)
    found = whole(statistics.resampled(first, RESAMPLES, draw)) - whole(statistics.resampled(second, RESAMPLES, draw))
    low, high = np.quantile(found, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return stretched(value, float(low), float(high), [*first, *second])


def single(values: list[np.ndarray], statistic: Callable[[Any], np.ndarray]) -> tuple[float, float, float]:
    """Mean over tasks of statistic(values), and its bounds; one array [N] per task."""
    from jaxshare.reporting import statistics

    found = statistics.interval(_of_tasks(statistic), values, RESAMPLES, CONFIDENCE, np.random.default_rng(SEED))
    return stretched(float(found.value), float(found.low), float(found.high), values)


def _of_tasks(statistic: Callable[[Any], np.ndarray]) -> Callable[[Any], np.ndarray]:
    """Not pooled: where one task's scores are all below another's, a trimmed mean of all drops those in between."""
    return lambda scores: np.mean([statistic([x]) for x in scores], axis=0)


def stretched(value: float, low: float, high: float, groups: list[np.ndarray]) -> tuple[float, float, float]:
    """The bounds for as few seeds as these groups [N] have; see the top of the file."""
    from scipy import stats

    n, freedom = min(map(len, groups)), sum(len(x) - 1 for x in groups)
    if n < 2:
        return value, low, high
    factor = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) / Z * math.sqrt(n / (n - 1))
    return value, value - factor * (value - low), value + factor * (high - value)


def share(successes: int, trials: int) -> tuple[float, float, float]:
    """successes / trials with Wilson's interval."""
    p, n = successes / trials, trials
    middle, half = p + Z * Z / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    return p, max(0.0, (middle - half) / (1 + Z * Z / n)), min(1.0, (middle + half) / (1 + Z * Z / n))


# -------------------------------------------------------------------------------------------------------------- values


class Runs:
    """The runs of a plan, read once. Curves are {seed: records}."""

    def __init__(self, plan: Plan, root: pathlib.Path) -> None:
        self.plan, self.root = plan, root
        self._records: dict[str, list[dict[str, Any]]] = {}

    def records(self, task: str, arm: str) -> list[dict[str, Any]]:
        """All records of a run."""
        from jaxshare import results

        name = self.plan.cells[task, arm]
        if name not in self._records:
            self._records[name] = results.load(self.root / self.plan.jobs[name].out)
        return self._records[name]

    def evaluations(self, task: str, arm: str) -> list[list[dict[str, Any]]]:
        """The evaluations of every seed."""
        from jaxshare import results

        return list(results.evaluations(self.records(task, arm)).values())

    def scores(self, task: str, arm: str, how: dict[str, Any]) -> np.ndarray:
        """One number for each seed, [N]: of its last evaluations, or of all but the first."""
        key = PREFIX + how["metric"]
        curves = [[r[key] for r in records if key in r] for records in self.evaluations(task, arm)]
        if not all(len(curve) > 1 for curve in curves):
            raise RefusedError(f"{arm} on {task} has no {how['metric']}: it was evaluated too rarely, or never.")
        last = how["last"] if how["score"] == "final" else 10**9
        return np.array([np.mean(curve[1:][-last:]) for curve in curves])

    def first(self, task: str, arm: str, metric: str) -> float:
        """The mean over seeds of the evaluation before training."""
        return float(np.mean([records[0][PREFIX + metric] for records in self.evaluations(task, arm)]))

    def reached(self, task: str, arm: str, value: float) -> np.ndarray:
        """1 for each seed whose last return is the value, else 0."""
        ends = [records[-1][PREFIX + "return"] for records in self.evaluations(task, arm)]
        return (np.abs(np.array(ends) - value) < 1e-3).astype(float)

    def series(self, task: str, arm: str, how: dict[str, Any]) -> np.ndarray:
        """A logged number over the last part of a run, perhaps less, or divided by, another or its own beginning; [N].

        how: name, from (share of the run, 0.5), against (`begin`, `peak`, or a logged number), by (ratio, difference).
        """
        from jaxshare import results

        runs: dict[str, list[dict[str, Any]]] = {}
        for record in self.records(task, arm):
            if how["name"] in record:
                runs.setdefault(results.run_name(record), []).append(record)
        return np.array([_late(records, how) for records in runs.values()])

    def decomposition(self, task: str, arm: str, path: str) -> np.ndarray:
        """A number of decomposition.json, the mean over the types of agents that have it; [N]."""
        job = self.plan.jobs[self.plan.decompositions[task, arm]]
        whole = json.loads((self.root / job.out).read_text(encoding="utf-8"))
        return np.array([_of_types(run["types"], path) for run in whole["runs"]])

    def json(self, how: dict[str, Any]) -> np.ndarray:
        """Numbers of a script's result, [N]: all that a path leads to, as distances from `near` if that is given."""
        job = self.plan.jobs[self.plan.scripts[how["json"]]]
        found: Any = json.loads((self.root / job.out).read_text(encoding="utf-8"))
        for key in how["path"]:
            found = found[key]
        found = np.asarray(found, float)
        if "near" in how:
            found = np.abs(found - np.asarray(how["near"], float)).max(keepdims=True)
        return np.atleast_1d(found).ravel()


def _late(records: list[dict[str, Any]], how: dict[str, Any]) -> float:
    key = "env_steps" if records[-1]["env_steps"] else "updates"
    since = records[-1][key] * float(how.get("from", 0.5))
    values = [r[how["name"]] for r in records]
    late = float(np.mean([r[how["name"]] for r in records if r[key] >= since]))
    against = how.get("against")
    if against is None:
        return late
    if against == "begin":
        other = float(np.mean(values[: max(1, len(values) // 20)]))
    elif against == "peak":
        other = max(values)
    else:
        other = float(np.mean([r[against] for r in records if r[key] >= since]))
    return late - other if how.get("by") == "difference" else late / other


def _of_types(types: dict[str, Any], path: str) -> float:
    found = []
    for own in types.values():
        value: Any = own
        for key in path.split("."):
            if key == "minus_uniform":  # how much more is drawn of better ones than there is in the data
                value = value["probability"] - value["trajectories"] if value else None
            else:
                value = None if value is None else value.get(key)
        if value is not None:
            found.append(float(value))
    if not found:
        raise RefusedError(f"decomposition: no type of agents has {path}.")
    return float(np.mean(found))


# -------------------------------------------------------------------------------------------------------------- claims


def judge(
    plan: Plan | None, claim: dict[str, Any], budget: str, root: pathlib.Path, reasons: dict[str, str]
) -> dict[str, Any]:
    """Everything the page and the table need of a claim, as plain values. reasons: {job without result: why}."""
    if plan is None:
        return {"verdict": NOT_RUN, "reason": claim.get("not_run") or claim[budget], "checks": [], "cells": {}}
    runs, missing = Runs(plan, root), {name: why for name, why in reasons.items() if name in plan.jobs}
    checks = [_check(check, plan, runs, missing) for check in claim["checks"]]
    deciding = [c["verdict"] for c, given in zip(checks, claim["checks"], strict=True) if given.get("decides", True)]
    cells: dict[str, dict[str, Any]] = {}
    for (task, arm), name in plan.cells.items():
        if name not in missing:
            cells.setdefault(task, {})[arm] = _cell(task, arm, plan, runs)
    return {
        "verdict": together(deciding), "budget": plan.budget, "seeds": plan.seeds, "checks": checks, "cells": cells,
        "commands": [job.shown(f"runs/claims/{plan.budget}") for job in plan.jobs.values()],
        "missing": missing, "versions": _versions(plan, root),
    }  # fmt: skip


def carried(old: dict[str, Any], new: dict[str, Any], plan: Plan, claim: dict[str, Any]) -> dict[str, Any]:
    """The new result, and of its checks that were not made those of the old one whose commands are the same.

    Those are checks of scripts: curves and scores of a claim's runs are compared with each other, and stand or fall
    together. Each of the others says that its settings have changed.
    """
    earlier = {check["says"]: check for check in old["checks"]}
    checks = []
    for check, given in zip(new["checks"], claim["checks"], strict=True):
        if check["verdict"] == NOT_RUN:
            script = plan.scripts.get(given.get("quantity", {}).get("json", ""))
            same = script and plan.jobs[script].shown(f"runs/claims/{plan.budget}") in old.get("commands", ())
            changed = {**check, "reason": "its settings have changed since it was run"}
            check = earlier.get(check["says"], changed) if same else changed
        checks.append(check)
    deciding = [c["verdict"] for c, given in zip(checks, claim["checks"], strict=True) if given.get("decides", True)]
    return {**new, "checks": checks, "verdict": together(deciding)}


def scoring(claim: dict[str, Any], check: dict[str, Any]) -> dict[str, Any]:
    """Metric, score and last of a check, its own or the claim's."""
    usual = {"metric": "return", "score": "final", "last": 3}
    return {key: check.get("quantity", {}).get(key, claim.get(key, value)) for key, value in usual.items()}


def _check(check: dict[str, Any], plan: Plan, runs: Runs, missing: dict[str, str]) -> dict[str, Any]:
    """A check with its value, bounds, verdict, and the same of each of its tasks."""
    tasks = [t for t in check.get("tasks", plan.tasks) if t in plan.tasks]
    result = {"says": check["says"], "paper": check.get("paper", ""), "compare": check["compare"],
              "bound": check.get("margin", check.get("threshold", 0.0)), "decides": check.get("decides", True),
              "tasks": tasks}  # fmt: skip
    tasks = [t for t in tasks if all((t, arm) in plan.cells for arm in check.get("arms", []))]
    why = _lacking(check, plan, tasks, missing)
    if why:
        return {**result, "verdict": NOT_RUN, "reason": why}
    try:
        result |= _value(check, plan, runs, tasks)
        if len(tasks) > 1:
            result["each"] = {task: _value(check, plan, runs, [task]) for task in tasks}
            if NOT_CONFIRMED in [each["verdict"] for each in result["each"].values()]:
                result["verdict"] = NOT_CONFIRMED
    except (RefusedError, KeyError, ValueError, ZeroDivisionError) as error:
        return {**result, "verdict": NOT_RUN, "reason": f"{type(error).__name__}: {error}"}
    return result


def _lacking(check: dict[str, Any], plan: Plan, tasks: list[str], missing: dict[str, str]) -> str:
    """Why a check cannot be made, or nothing."""
    if "json" in check.get("quantity", {}):
        needed = [plan.scripts[check["quantity"]["json"]]]
    elif not tasks:
        return f"not part of the {plan.budget} budget"
    else:
        source = plan.decompositions if "decomposition" in check.get("quantity", {}) else plan.cells
        needed = [source[task, arm] for task in tasks for arm in check["arms"]]
    return next((f"{name}: {missing[name]}" for name in needed if name in missing), "")


def _value(check: dict[str, Any], plan: Plan, runs: Runs, tasks: list[str]) -> dict[str, Any]:
    from jaxshare.reporting import statistics

    quantity, compare = check.get("quantity", {}), check["compare"]
    statistic = statistics.AGGREGATES[check.get("statistic", "iqm")]
    bound, note = float(check.get("margin", check.get("threshold", 0.0))), ""
    if "json" in quantity:
        values = [runs.json(quantity)]
        worst = max if compare == "at_most" else min
        found = (float(worst(values[0])),) * 3  # no chance: every one must hold
    elif "reached" in quantity:
        hits = np.concatenate([runs.reached(task, check["arms"][0], float(quantity["reached"])) for task in tasks])
        values, found = [hits], share(int(hits.sum()), len(hits))
    else:
        values = [_numbers(check, check["arms"][0], plan, runs, task) for task in tasks]
        if compare in ("greater", "equal"):
            other = [_numbers(check, check["arms"][1], plan, runs, task) for task in tasks]
            found = difference(values, other, statistic)
            note = _not_learned(check, plan, runs, tasks, values, other, bound)
        else:
            found = single(values, statistic)
    value, low, high = found
    decided = UNDECIDED if note or math.isnan(low) else verdict(compare, low, high, bound)
    bounds = {"low": None, "high": None} if math.isnan(low) else {"low": low, "high": high}
    return {"value": value, **bounds, "verdict": decided, "note": note or ("one seed" if math.isnan(low) else ""),
            "runs": int(sum(len(x) for x in values))}  # fmt: skip


def _numbers(check: dict[str, Any], arm: str, plan: Plan, runs: Runs, task: str) -> np.ndarray:
    quantity = check.get("quantity", {})
    if "series" in quantity:
        return runs.series(task, arm, quantity["series"])
    if "decomposition" in quantity:
        return runs.decomposition(task, arm, quantity["decomposition"])
    return runs.scores(task, arm, scoring(plan.claim, check)) / scale(check, task)


def scale(check: dict[str, Any], task: str) -> float:
    """What a score is divided by: nothing unless the check says so, a number or one for each task."""
    given = check.get("scale", 1.0)
    return float(given[task] if isinstance(given, dict) else given)


def _not_learned(
    check: dict[str, Any], plan: Plan, runs: Runs, tasks: list[str], values: list[Any], other: list[Any], margin: float
) -> str:
    """Arms that are equal because neither has learned anything show nothing."""
    if check["compare"] != "equal" or any(k in check.get("quantity", {}) for k in ("series", "decomposition")):
        return ""
    metric = scoring(plan.claim, check)["metric"]
    for task, x, y in zip(tasks, values, other, strict=True):
        begins = [runs.first(task, arm, metric) / scale(check, task) for arm in check["arms"]]
        if max(float(np.mean(x)) - begins[0], float(np.mean(y)) - begins[1]) <= margin:
            return f"neither learned more than the margin on {task}"
    return ""


def _cell(task: str, arm: str, plan: Plan, runs: Runs) -> dict[str, Any]:
    """Scores of an arm on a task with their IQM, the paper's value, and the curve that is drawn."""
    from jaxshare.reporting import statistics

    how = scoring(plan.claim, {})
    scores = runs.scores(task, arm, how)
    found = statistics.interval(statistics.iqm, [scores], RESAMPLES, CONFIDENCE, np.random.default_rng(SEED))
    value, low, high = float(found.value), float(found.low), float(found.high)
    paper = plan.claim.get("values", {}).get(task, {}).get(arm)
    job = plan.jobs[plan.cells[task, arm]]
    return {
        **how, "scores": [round(float(x), 6) for x in scores], "iqm": value, "paper": paper, "run": job.name,
        "low": None if math.isnan(low) else low, "high": None if math.isnan(high) else high,
        "total": job.total, "unit": "updates" if job.offline else "environment steps",
        "curve": _curve(task, arm, plan, runs, how["metric"]),
    }  # fmt: skip


def _curve(task: str, arm: str, plan: Plan, runs: Runs, metric: str) -> dict[str, list[float]]:
    """IQM and its interval over seeds on a grid, as far as all seeds go; of SIT from the end of its first stage on."""
    from jaxshare.reporting import statistics

    job = plan.jobs[plan.cells[task, arm]]
    key = "updates" if job.offline else "env_steps"
    first = next((int(a.partition("=")[2]) for a in job.arguments if a.startswith("algo.stage1_updates=")), 0)
    seeds = [
        np.array([(r[key] - first, r[PREFIX + metric]) for r in records if r[key] >= first]).T
        for records in runs.evaluations(task, arm)
    ]
    grid = np.linspace(max(x[0][0] for x in seeds), min(x[0][-1] for x in seeds), POINTS)
    values = np.stack([np.interp(grid, x, y) for x, y in seeds], axis=-1)  # [P, N]
    found = statistics.interval(statistics.iqm, [values], RESAMPLES // 10, CONFIDENCE, np.random.default_rng(SEED))
    bounds = (found.value, found.value) if np.isnan(found.low).any() else (found.low, found.high)
    lines = {"x": grid, "y": found.value, "low": bounds[0], "high": bounds[1]}
    return {name: [float(f"{v:.5g}") for v in line] for name, line in lines.items()}


def _versions(plan: Plan, root: pathlib.Path) -> dict[str, str]:
    """Those of its training runs; those that differ are listed together."""
    found: dict[str, set[str]] = {}
    for name in plan.cells.values():
        path = root / plan.jobs[name].out / "versions.json"
        if path.is_file():
            for package, version in json.loads(path.read_text(encoding="utf-8")).items():
                found.setdefault(package, set()).add(version)
    return {package: ", ".join(sorted(versions)) for package, versions in sorted(found.items())}

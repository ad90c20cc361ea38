"""What was found, as it is kept in a JSON file: {"claims": {study: {budget: Result}}}."""

from __future__ import annotations

import json
import pathlib
from typing import Any, TypedDict

from jaxshare import durable
from jaxshare.study.language import Study
from jaxshare.study.plan import Plan
from jaxshare.study.rules import NOT_RUN, together
from jaxshare.types import RefusedError

ROOT = "claims"
OTHER_SETTINGS = "its settings are others than those of the figures kept: only the rest stays"
TEXTS = ("title", "statement", "source", "reference", "comparable", "because", "instead")


class Value(TypedDict, total=False):
    """A number with its interval and verdict."""

    value: float
    low: float | None  # None: there is none
    high: float | None
    verdict: str
    note: str
    runs: int  # numbers behind it
    reason: str  # why there is no value


class CheckResult(Value, total=False):
    """What came of a check."""

    says: str
    paper: str
    compare: str
    bound: float
    decides: bool
    tasks: list[str]
    each: dict[str, Value]  # by task


class Curve(TypedDict):
    """Points of a learning curve with bounds, [P] each."""

    x: list[float]
    y: list[float]
    low: list[float]
    high: list[float]


class Scores(TypedDict):
    """What an arm has reached on a task, and by which rule that is counted."""

    metric: str
    score: str
    last: int
    scores: list[float]  # of every seed
    iqm: float


class Cell(Scores):
    """An arm on a task."""

    low: float | None
    high: float | None
    paper: list[float] | None
    run: str
    total: int
    unit: str
    curve: Curve


class Result(TypedDict, total=False):
    """A study with a budget."""

    title: str
    statement: str
    source: str
    reference: str
    comparable: str
    because: str
    instead: str
    machine: str
    verdict: str
    reason: str  # why nothing was run
    budget: str
    seeds: int
    checks: list[CheckResult]
    cells: dict[str, dict[str, Cell]]  # by task and arm
    commands: list[str]
    missing: dict[str, str]  # job: why there is no result
    versions: dict[str, str]


Figures = dict[str, dict[str, Result]]  # by study and budget


def read(path: pathlib.Path) -> Figures:
    """The figures of earlier calls, {} if there are none. Raises RefusedError for damage."""
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))[ROOT])
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError(
            f"--out {path} cannot be read ({error}): remove it, or name another.",
        ) from error


def write(figures: Figures, path: pathlib.Path) -> None:
    """Replace the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({ROOT: figures}, indent=1, allow_nan=False)
    durable.write_text(path, text + "\n")


def texts(study: Study) -> dict[str, str]:
    """What the page says of a study."""
    return {name: getattr(study, name) for name in TEXTS if getattr(study, name)}


def is_claim(result: Result) -> bool:
    """Whether it tests what a publication claims."""
    return "source" in result


def count(result: Result) -> int:
    """How many values of checks and cells there are."""
    checks = sum(check.get("value") is not None for check in result["checks"])
    return checks + (0 if result["checks"] else sum(map(len, result["cells"].values())))


def merged(old: Result, new: Result, plan: Plan | None) -> tuple[Result, str]:
    """What is kept of a new result and the one before, and what a person should know of it.

    Figures whose runs are not here stay as they are, if they are of the same commands.
    """
    if plan is None or not new.get("missing") or count(old) <= count(new):
        return new, ""
    if old.get("commands") == new["commands"]:
        why = next(iter(new["missing"].values()))
        return old, f"kept as it was: {why}"
    return carried(old, new, plan), OTHER_SETTINGS


def carried(old: Result, new: Result, plan: Plan) -> Result:
    """The new result, with those old checks that it lacks and whose commands are the same.

    Those are checks of scripts: curves and scores of a study's runs are compared with each other,
    and stand or fall together. Each of the others says that its settings have changed.
    """
    if not new["checks"]:
        return new
    earlier = {check["says"]: check for check in old["checks"]}
    checks = []
    for result, check in zip(new["checks"], plan.study.checks, strict=True):
        if result["verdict"] == NOT_RUN:
            script = plan.scripts.get(check.quantity.json or "")
            result["reason"] = "its settings have changed since it was run"
            if script and plan.jobs[script].command_line(plan.folder) in old.get("commands", ()):
                result = earlier.get(result["says"], result)
        checks.append(result)
    verdict = together([check["verdict"] for check in checks if check.get("decides", True)])
    return {**new, "checks": checks, "verdict": verdict}


def ordered(figures: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """In the order of the studies; what is in them no more comes last."""
    order = [*names, *(name for name in figures if name not in names)]
    return {name: figures[name] for name in order if name in figures}

"""How long jobs take: estimates from a table of the kinds of runs, in seconds of one core.

    rate        environment steps, or updates with a data set, per core second, evaluations left out
    first_rate  the same in SIT's first stage
    eval_s      core seconds of an evaluation
    start_s     core seconds until the first record: imports, compilation, replay filled; of jobs
                that are no runs all they take

`measure.py` fills the table; of kinds that are not measured, a job that is done in one piece adds
its start and the rate over all that follows. A policy that has just begun plays shorter or longer
episodes than later on: read totals as estimates.
"""

from __future__ import annotations

import json
import pathlib
from dataclasses import dataclass

from jaxshare import durable
from jaxshare.study.job import STAGE, Job
from jaxshare.study.machine import machine
from jaxshare.types import RefusedError

Table = dict[str, dict[str, float]]  # by what speed depends on


@dataclass(frozen=True)
class Ended:
    """A job that was done in one piece."""

    job: Job
    core_seconds: float
    start_seconds: float  # of a training run: until its first record


def read(path: pathlib.Path) -> Table:
    """The table. Raises RefusedError if it cannot be read."""
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["costs"])
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError(f"costs={path} cannot be read ({error}): remove it.") from error


def add(path: pathlib.Path, kind: str, cost: dict[str, float]) -> None:
    """Write a kind into the table."""
    whole = {"machine": machine(), "costs": {**read(path), kind: cost}}
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.write_text(path, json.dumps(whole, indent=1) + "\n")
    print(f"{kind}: {cost}", flush=True)


def seconds(job: Job, table: Table) -> float | None:
    """Estimated core seconds of a job; None if its kind is not in the table."""
    cost = table.get(job.speed)
    if cost is None:
        return None
    if job.kind != "train":
        return float(cost["start_s"])
    settings = job.settings
    first = int(settings.get(STAGE, "0")) if cost.get("first_rate") else 0
    evaluations = job.total // int(settings["eval.every"]) + 1
    each = (job.total - first) / cost["rate"] + evaluations * cost["eval_s"]
    if first:
        each += first / cost["first_rate"]
    return cost["start_s"] + job.seeds * each


def note(path: pathlib.Path, ended: Ended) -> None:
    """Keep what a whole job took, if its kind is not in the table."""
    job = ended.job
    if job.speed in read(path):
        return
    if job.kind != "train":
        add(path, job.speed, {"start_s": round(ended.core_seconds, 1)})
    elif 0 < ended.start_seconds < ended.core_seconds:  # its first record was noticed in time
        rate = job.seeds * job.total / (ended.core_seconds - ended.start_seconds)
        start = round(ended.start_seconds, 1)
        add(path, job.speed, {"rate": round(rate, 3), "eval_s": 0.0, "start_s": start})

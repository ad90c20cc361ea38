"""Measures how long kinds of runs take: a short run of each, in seconds of one core.

Of each kind that is not in the table of costs a run is begun on one core and stopped a little after
its second log record. What counts is the time of the process on its core, so that other work on
the machine does not (but for caches).
"""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from jaxshare.run import metrics
from jaxshare.study import cost
from jaxshare.study.done import is_done
from jaxshare.study.engine import Jobs, task
from jaxshare.study.executors.base import Executor, Task
from jaxshare.study.job import STAGE, Job
from jaxshare.study.logs import last_line

ENOUGH = 10.0  # core seconds after the first record
AT_MOST = 1200.0  # wall seconds in all
FIRST_STAGE = 40  # updates of SIT's, when it is measured
EVERY = 20  # updates between the evaluations of a run from a data set, when it is measured
STAGES: tuple[set[float], ...] = (
    set(),
    {1.0, 3.0},
    {3.0},
)  # of SIT, that a measurement must have seen; set(): of others
LOOK = 0.1  # seconds between looks


@dataclass(frozen=True)
class _Mark:
    """A log record, and the core seconds when it was noticed."""

    at: float
    record: dict[str, Any]

    @property
    def is_evaluation(self) -> bool:
        return "eval/return" in self.record


@dataclass
class _Short:
    """A short run of a kind, or a whole job of one that is short anyway."""

    job: Job  # that is measured
    task: Task
    log: pathlib.Path | None  # of the records; None: a whole job
    spent: float = 0.0  # core seconds
    marks: list[_Mark] = field(default_factory=list)


def measure(jobs: Jobs, root: pathlib.Path, executor: Executor, path: pathlib.Path) -> None:
    """Measure the kinds of these jobs that are not in the table at `path`.

    root: a folder that may hold data sets; short runs go into `measured` there.
    """
    unknown = {job.speed for job in jobs.values()} - set(cost.read(path))
    possible = [job for job in jobs.values() if job.speed in unknown and _possible(job, jobs, root)]
    waiting = list({job.speed: job for job in possible}.values())
    rest = len(unknown) - len(waiting)
    print(f"{len(waiting)} kinds to measure, {rest} whose data sets or runs are not in {root}")

    # as many at a time as the executor takes
    at_work: list[_Short] = []
    try:
        while waiting or at_work:
            while waiting and len(at_work) < executor.at_once:
                at_work.append(_begin(waiting.pop(0), root, executor))
            time.sleep(LOOK)
            for short in list(at_work):
                if _is_over(short, executor):
                    at_work.remove(short)
                    _keep(short, path)
    finally:
        executor.cancel([short.task.name for short in at_work], grace=0)


def _possible(job: Job, jobs: Jobs, root: pathlib.Path) -> bool:
    return all(is_done(jobs[name], root) for name in job.needs)


def _begin(job: Job, root: pathlib.Path, executor: Executor) -> _Short:
    # a new cache: all is compiled, as in a start that is measured
    cache = root / "measured" / f"cache-{os.getpid()}"
    if job.kind != "train":
        whole = replace(task(job, root, AT_MOST), cache=cache)
        executor.submit([whole])
        return _Short(job, whole, None)

    # the same run, but short
    out = f"measured/{job.name}-{os.getpid()}"
    settings = job.settings | {
        "seeds": "1",
        "checkpoint.every": "0",
        "checkpoint.best": "false",
        "run_dir": f"{{root}}/{out}",
    }
    if job.offline:
        settings["eval.every"] = str(EVERY)
    if settings.get(STAGE, "0") != "0":
        settings[STAGE] = str(FIRST_STAGE)
    words = tuple(f"{name}={value}" for name, value in settings.items())
    short = replace(job, arguments=words, out=out, seeds=1)
    told = replace(task(short, root, AT_MOST), cache=cache)
    executor.submit([told])
    return _Short(job, told, root / out / "metrics.jsonl")


def _is_over(short: _Short, executor: Executor) -> bool:
    """Note the core time of each new record; stop what has run long enough."""
    state = executor.poll(short.task.name)
    short.spent = max(short.spent, state.core_seconds)
    if short.log is None or not state.running:
        return not state.running

    # new records
    if short.log.is_file():
        rows = [row for row in metrics.rows(short.log) if row.whole and row.record]
        for row in rows[len(short.marks) :]:
            short.marks.append(_Mark(state.core_seconds, row.record or {}))

    # records of learning that lie far enough apart, in all stages
    learning = [mark.at for mark in short.marks if not mark.is_evaluation]
    stages = {mark.record.get("sit/stage") for mark in short.marks} - {None}
    if len(learning) > 2 and learning[-1] - learning[0] > ENOUGH and stages in STAGES:
        executor.cancel([short.task.name], grace=0)
        return True
    return False


def _keep(short: _Short, path: pathlib.Path) -> None:
    """Write down what was measured, or say that nothing was."""
    if short.log is not None:
        cost_of_kind = _cost(short.marks, short.job.unit)
    else:
        out = short.task.log.parent.parent / short.job.out
        cost_of_kind = {"start_s": round(short.spent, 1)} if out.exists() else None
    if cost_of_kind is None:
        print(f"not measured: {short.job.speed}: {last_line(short.task.log)}", flush=True)
    else:
        cost.add(path, short.job.speed, cost_of_kind)


def _cost(marks: Iterable[_Mark], unit: str) -> dict[str, float] | None:
    """rate, eval_s, start_s (and first_rate), or None if there were too few records."""
    marks = list(marks)
    steps = {"rate": 0.0, "first_rate": 0.0}
    spent = {"rate": 0.0, "first_rate": 0.0}
    evaluations: list[float] = []
    compiled = False  # the first chunk is compiled before it runs
    for before, mark in pairwise(marks):
        if mark.is_evaluation:
            evaluations.append(mark.at - before.at)
        elif compiled and mark.record[unit] > before.record[unit]:
            kind = "first_rate" if mark.record.get("sit/stage") == 1.0 else "rate"
            steps[kind] += mark.record[unit] - before.record[unit]
            spent[kind] += mark.at - before.at
        compiled = compiled or not mark.is_evaluation
    if spent["rate"] <= 0:
        return None

    # steps a second, and how long an evaluation takes
    rates = {}
    for kind, num_steps in steps.items():
        if num_steps:
            rates[kind] = round(num_steps / max(spent[kind], 0.01), 3)
    first = next(mark for mark in marks if not mark.is_evaluation)
    start = first.at - first.record[unit] / rates.get("first_rate", rates["rate"])
    usual = sorted(evaluations)[len(evaluations) // 2] if evaluations else 0.0
    return {**rates, "eval_s": round(usual, 2), "start_s": round(max(start, 0.0), 1)}

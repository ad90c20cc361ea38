"""Runs what is missing of a plan, what others need first. It goes on where it was stopped.

A job that fails or takes longer than its limit is a failure, with the reason, and those that wait
for it are not started.
"""

from __future__ import annotations

import pathlib
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from jaxshare.study import cost
from jaxshare.study.bars import Bars
from jaxshare.study.done import is_done, sign
from jaxshare.study.job import Job
from jaxshare.study.jobs import Executor, Task

LEAST_MINUTES = 20.0  # of a job's limit, at least
SLACK = 6.0  # a job may take so many times what is estimated
UNKNOWN_MINUTES = 12 * 60.0  # where nothing is estimated
POLL = 0.5  # seconds between looks at the jobs
LOGS = "logs"
Jobs = dict[str, Job]
Heard = Callable[[cost.Ended], None]


def _nothing(ended: cost.Ended) -> None:
    """Hear nothing."""


@dataclass
class _AtWork:
    job: Job
    log: pathlib.Path
    fresh: bool  # it was begun from nothing
    limit: float  # seconds
    began: float = field(default_factory=time.monotonic)
    start_seconds: float = 0.0  # core seconds until the first record of a training run


def run_all(
    jobs: Jobs,
    root: pathlib.Path,
    executor: Executor,
    table: cost.Table,
    heard: Heard = _nothing,
) -> dict[str, str]:
    """Do what is missing: {job without result: reason}. Ctrl-C goes through, after all have saved.

    heard: is told of each job that was done in one piece.
    """
    waiting = [job for job in jobs.values() if not is_done(job, root)]
    with Bars(len(waiting)) as bars:
        engine = _Engine(jobs, root, executor, bars)
        return engine.run(waiting, table, heard)


def limit(job: Job, table: cost.Table) -> float:
    """Seconds that a job may take."""
    if job.minutes is not None:
        return 60 * job.minutes
    expected = cost.seconds(job, table)
    if expected is None:
        return 60 * UNKNOWN_MINUTES
    return max(60 * LEAST_MINUTES, SLACK * expected)


def task(job: Job, root: pathlib.Path, seconds: float) -> Task:
    """What an executor is told of a job. Its folder is made."""
    (root / job.out).parent.mkdir(parents=True, exist_ok=True)
    command = tuple(job.command(str(root)))
    log = root / LOGS / f"{job.name}.log"
    cache = root.resolve() / ".cache"
    seeds = job.seeds if job.kind == "train" else 0
    return Task(job.name, command, log, cache, seconds, seeds)


def last_line(log: pathlib.Path) -> str:
    """The last error a log has, or its last line; without the paths of the machine."""
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"error:|[\w.]*(Error|Exception)\b", line)]
    line = (errors or lines or [""])[-1]
    here = str(pathlib.Path.cwd())
    return line.replace(here, ".").replace(str(log.parent.parent), "RUNS")[:300]


class _Engine:
    """The jobs at work, and what went wrong."""

    def __init__(self, jobs: Jobs, root: pathlib.Path, executor: Executor, bars: Bars) -> None:
        self._jobs = jobs
        self._root = root
        self._executor = executor
        self._bars = bars
        self._at_work: dict[str, _AtWork] = {}
        self._failed: dict[str, str] = {}

    def run(self, waiting: list[Job], table: cost.Table, heard: Heard) -> dict[str, str]:
        """Until nothing waits that can be begun."""
        try:
            while waiting or self._at_work:
                self._give_up(waiting)
                self._begin(waiting, table)
                if not self._at_work:
                    break
                time.sleep(POLL)
                for work in list(self._at_work.values()):
                    self._look(work, heard)
                self._bars.look([work.job for work in self._at_work.values()], self._root)
        except BaseException:
            self._stop()
            raise
        return self._failed

    def _give_up(self, waiting: list[Job]) -> None:
        """Jobs whose needs have failed."""
        for job in list(waiting):
            need = next((name for name in job.needs if name in self._failed), None)
            if need:
                why = self._failed[need]
                chained = why.startswith("it needs ")  # whose own reason is told once
                self._failed[job.name] = why if chained else f"it needs {need}, which {why}"
                waiting.remove(job)
                self._bars.end(job, self._failed[job.name], 0.0)

    def _begin(self, waiting: list[Job], table: cost.Table) -> None:
        """As many as may be at work."""
        for job in list(waiting):
            if len(self._at_work) >= self._executor.at_once:
                return
            if not all(is_done(self._jobs[name], self._root) for name in job.needs):
                continue
            waiting.remove(job)
            fresh = not (self._root / job.out).exists()
            told = task(job, self._root, limit(job, table))
            self._at_work[job.name] = _AtWork(job, told.log, fresh, told.seconds)
            if not self._executor.resume(told):
                self._executor.submit(told)
            self._bars.begin(job)

    def _look(self, work: _AtWork, heard: Heard) -> None:
        """How a job is; what went wrong is noted, and what was done in one piece is told."""
        job = work.job
        state = self._executor.poll(job.name)
        if not work.start_seconds and _has_content(self._root / job.out / "metrics.jsonl"):
            work.start_seconds = state.core_seconds
        if state.running:
            return

        # how it ended
        del self._at_work[job.name]
        if state.expired:
            minutes = work.limit / 60
            self._failed[job.name] = f"was stopped at its limit of {minutes:.0f} minutes"
        elif state.status:
            why = last_line(work.log) or f"exit status {state.status}"
            self._failed[job.name] = f"failed: {why}"
        elif not is_done(job, self._root):
            self._failed[job.name] = "failed: it ended without a result"
        else:
            sign(job, self._jobs, self._root)
            if work.fresh:
                heard(cost.Ended(job, state.core_seconds, work.start_seconds))
        self._bars.end(job, self._failed.get(job.name), time.monotonic() - work.began)

    def _stop(self) -> None:
        """End all jobs; runs save first."""
        if self._at_work:
            print(
                f"stopping {len(self._at_work)} job(s), which save first; the same command goes on",
                file=sys.stderr,
            )
        self._executor.cancel(list(self._at_work))


def _has_content(path: pathlib.Path) -> bool:
    """A log is opened long before its first record."""
    return path.is_file() and path.stat().st_size > 0

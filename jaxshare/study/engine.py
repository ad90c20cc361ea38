"""Runs what is missing of a plan, what others need first. It goes on where it was stopped.

A job that fails or takes longer than its limit is a failure, with the reason, and those that wait
for it are not started. One whose process or machine is lost is begun again.
"""

from __future__ import annotations

import pathlib
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from jaxshare.study import cost, ledger
from jaxshare.study.bars import Bars
from jaxshare.study.done import is_done, sign
from jaxshare.study.executors.base import Executor, State, Task
from jaxshare.study.job import Job
from jaxshare.study.logs import last_line, log_of, size_of

LEAST_MINUTES = 20.0  # of a job's limit, at least
SLACK = 6.0  # a job may take so many times what is estimated
UNKNOWN_MINUTES = 12 * 60.0  # where nothing is estimated
POLL = 0.5  # seconds between looks at the jobs
STALLED_GRACE = 30.0  # seconds that a job has to save which shows no sign of life
ATTEMPTS = 5  # at a job whose process or machine is lost
Jobs = dict[str, Job]
Heard = Callable[[cost.Ended], None]


def _nothing(ended: cost.Ended) -> None:
    """Hear nothing."""


@dataclass(frozen=True)
class Rules:
    """How jobs are dealt with that do not come to their end."""

    attempts: int = ATTEMPTS
    stalled_minutes: float = 0.0  # without a sign of life: begun again elsewhere; 0: never


@dataclass
class _AtWork:
    job: Job
    task: Task
    fresh: bool  # it was begun from nothing
    began: float = field(default_factory=time.monotonic)
    start_seconds: float = 0.0  # core seconds until the first record of a training run
    attempt: int = 1
    waiting: bool = True  # for its turn, as far as is known
    size: int = -1  # of what it has written, when that last grew
    grew: float = field(default_factory=time.monotonic)

    def is_stalled(self, root: pathlib.Path, minutes: float) -> bool:
        """Whether it has written nothing for so long, though it is at work."""
        size = size_of(self.task.log) + size_of(root / self.job.out / "metrics.jsonl")
        if size != self.size or self.waiting:
            self.size = size
            self.grew = time.monotonic()
        return time.monotonic() - self.grew > 60 * minutes


def run_all(
    jobs: Jobs,
    root: pathlib.Path,
    executor: Executor,
    table: cost.Table,
    heard: Heard = _nothing,
    rules: Rules = Rules(),
) -> dict[str, str]:
    """Do what is missing: {job without result: reason}. Ctrl-C goes through, after all have saved.

    Jobs that failed before are left alone: `ledger.forget` lets them be tried again.
    heard: is told of each job that was done in one piece.
    """
    waiting = [job for job in jobs.values() if not is_done(job, root)]
    with Bars(len(waiting)) as bars:
        engine = _Engine(jobs, root, executor, bars, rules)
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
    is_run = job.kind == "train"
    return Task(
        job.name,
        tuple(job.command(str(root))),
        log_of(job.name, root),
        root.resolve() / ".cache",
        seconds,
        job.seeds if is_run else 0,
        root / job.out if is_run else None,
    )


class _Engine:
    """The jobs at work, and what went wrong."""

    def __init__(
        self, jobs: Jobs, root: pathlib.Path, executor: Executor, bars: Bars, rules: Rules
    ) -> None:
        self._jobs = jobs
        self._root = root
        self._executor = executor
        self._bars = bars
        self._rules = rules
        self._at_work: dict[str, _AtWork] = {}
        self._failed: dict[str, str] = {}
        self._ledger = ledger.Ledger(root, type(executor).__name__.lower())

    def run(self, waiting: list[Job], table: cost.Table, heard: Heard) -> dict[str, str]:
        """Until nothing waits that can be begun."""
        # what has failed in an earlier call
        for name, why in ledger.failures(self._root, waiting).items():
            self._failed[name] = why
            self._bars.end(self._jobs[name], f"{why}, in an earlier call; retry tries again", 0.0)
        waiting[:] = [job for job in waiting if job.name not in self._failed]

        # the others
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
                self._note(waiting)
        except BaseException:
            self._stop(self._at_work)
            raise
        finally:
            self._ledger.close()
        return self._failed

    def _note(self, waiting: list[Job]) -> None:
        """Let other processes know how jobs are, and hear what they ask for."""
        running = {
            work.job.name: work.attempt for work in self._at_work.values() if not work.waiting
        }
        queued = [work.job.name for work in self._at_work.values() if work.waiting]
        self._ledger.write(running, [*queued, *(job.name for job in waiting)])
        cancelled = ledger.cancelled(self._root)
        if not cancelled:
            return

        # end those at work, and begin none of the others
        works = {name: self._at_work[name] for name in cancelled if name in self._at_work}
        self._stop(works)
        ended = [work.job for work in works.values()]
        ended += [job for job in waiting if job.name in cancelled]
        for job in ended:
            self._at_work.pop(job.name, None)
            self._fail(job, "was cancelled", 0.0)
        waiting[:] = [job for job in waiting if job.name not in cancelled]
        ledger.answer_cancel(self._root)

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
        # those that there is room for, and whose needs are there
        tasks = []
        begun = set()
        for job in waiting:
            if len(self._at_work) >= self._executor.at_once:
                break
            if job.needs and not all(is_done(self._jobs[name], self._root) for name in job.needs):
                continue
            begun.add(job.name)
            fresh = not (self._root / job.out).exists()
            told = task(job, self._root, limit(job, table))
            self._at_work[job.name] = _AtWork(job, told, fresh)
            if not self._executor.resume(told):
                tasks.append(told)
        waiting[:] = [job for job in waiting if job.name not in begun]

        # all at once: a cluster takes them as one array
        if tasks:
            self._executor.submit(tasks)

    def _look(self, work: _AtWork, heard: Heard) -> None:
        """How a job is; what went wrong is noted, and what was done in one piece is told."""
        # it has begun, and logged: looked at first, so that what it had spent by then is counted
        job = work.job
        has_logged = size_of(self._root / job.out / "metrics.jsonl") > 0
        state = self._executor.poll(job.name)
        if work.waiting and not state.waiting:
            work.waiting = False
            self._bars.begin(job)
        if has_logged and not work.start_seconds:
            work.start_seconds = state.core_seconds

        # it is at work, lost, or over
        if state.running:
            minutes = self._rules.stalled_minutes
            if minutes and work.is_stalled(self._root, minutes):
                self._executor.cancel([job.name], STALLED_GRACE)
                self._again(work, f"it has written nothing for {minutes:g} minutes")
            return
        if state.lost and not is_done(job, self._root):
            self._again(work, state.lost)
            return
        self._end(work, state, heard)

    def _again(self, work: _AtWork, why: str) -> None:
        """Begin a job again that was lost, unless that has happened too often."""
        job = work.job
        if work.attempt >= self._rules.attempts:
            del self._at_work[job.name]
            spent = time.monotonic() - work.began
            self._fail(job, f"was lost in {work.attempt} attempts: {why}", spent)
            return
        work.attempt += 1
        work.fresh = False
        work.waiting = True
        work.size = -1
        self._bars.again(job, why, work.attempt)
        self._executor.submit([work.task])

    def _end(self, work: _AtWork, state: State, heard: Heard) -> None:
        job = work.job
        del self._at_work[job.name]

        # what went wrong, if something did
        why = ""
        if state.expired:
            why = f"was stopped at its limit of {work.task.seconds / 60:.0f} minutes"
        elif state.status and not state.lost:
            why = f"failed: {last_line(work.task.log) or f'exit status {state.status}'}"
        elif not is_done(job, self._root):
            why = "failed: it ended without a result"
        if why:
            self._fail(job, why, time.monotonic() - work.began)
            return

        # it is done
        sign(job, self._jobs, self._root)
        if work.fresh:
            heard(cost.Ended(job, state.core_seconds, work.start_seconds))
        self._bars.end(job, None, time.monotonic() - work.began)

    def _fail(self, job: Job, why: str, seconds: float) -> None:
        """Keep why a job has no result."""
        self._failed[job.name] = why
        ledger.note_failure(self._root, job, why)
        self._bars.end(job, why, seconds)

    def _stop(self, works: Iterable[str]) -> None:
        """End jobs; runs save first."""
        names = list(works)
        if names:
            print(
                f"stopping {len(names)} job(s), which save first; the same command goes on",
                file=sys.stderr,
            )
        self._executor.cancel(names)

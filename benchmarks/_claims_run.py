"""Runs the jobs of benchmarks/claims.py: what is missing, several at a time, each on cores of its own and with a limit.

A job that was stopped goes on where it was (resume=auto of jaxshare.train); one that fails or takes longer than its
limit is a failure, with the reason, and the jobs that wait for it are not started.
"""

from __future__ import annotations

import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import _claims_plan as planning
from _claims_plan import Job

REPOSITORY = pathlib.Path(__file__).parent.parent
LEAST_MINUTES, SLACK = 20.0, 6.0  # of a job's limit: at least so long, and so many times what is estimated
UNKNOWN_MINUTES = 12 * 60.0  # where nothing is estimated
POLL, SHOW = 0.5, 5.0  # seconds between looks at processes, and at how far they are
GRACE = 180.0  # seconds that a stopped run has to save


@dataclass
class Running:
    """A job at work."""

    job: Job
    process: subprocess.Popen[bytes]
    slot: int
    log: pathlib.Path
    limit: float  # seconds
    began: float = field(default_factory=time.monotonic)
    stopping: bool = False
    fresh: bool = True  # it was begun from nothing
    start_s: float = 0.0  # core seconds until the first record of a training run
    spent: float = 0.0  # core seconds, known when it has ended


def run_all(
    jobs: dict[str, Job],
    root: pathlib.Path,
    at_once: int,
    table: dict[str, Any],
    ended: Callable[[Running], None] = lambda one: None,
) -> dict[str, str]:
    """Do what is missing, what others need first. Returns {job without result: reason}. Ctrl-C goes through.

    `ended` hears of each job that was done in one piece.
    """
    waiting = [job for job in jobs.values() if not planning.done(job, root)]
    failed: dict[str, str] = {}
    running: list[Running] = []
    total = len(waiting)
    (root / "logs").mkdir(parents=True, exist_ok=True)
    with _Bars(total) as bars:
        try:
            while waiting or running:
                _give_up(waiting, jobs, failed, bars)
                while len(running) < at_once and (job := _next(waiting, jobs, root)):
                    waiting.remove(job)
                    free = next(i for i in range(at_once) if i not in [one.slot for one in running])
                    running.append(start(job, root, free, at_once, limit(job, table)))
                    bars.begin(job)
                if not running:
                    break
                time.sleep(POLL)
                for one in [one for one in running if _over(one, root, failed)]:
                    running.remove(one)
                    if one.job.name not in failed:
                        planning.sign(one.job, jobs, root)
                        if one.fresh:
                            ended(one)
                    bars.end(one.job, failed.get(one.job.name), time.monotonic() - one.began)
                bars.look(running, root)
        except BaseException:
            _stop(running)
            raise
    return failed


def limit(job: Job, table: dict[str, Any]) -> float:
    """Seconds that a job may take."""
    if job.minutes is not None:
        return 60 * job.minutes
    expected = planning.seconds(job, table)
    return 60 * UNKNOWN_MINUTES if expected is None else max(60 * LEAST_MINUTES, SLACK * expected)


def start(job: Job, root: pathlib.Path, slot: int, at_once: int, seconds: float) -> Running:
    """Begin a job on its share of the cores, with a log of its own."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    own = cores[slot::at_once] or cores
    fresh = not (root / job.out).exists()
    command = [sys.executable, *job.command(str(root))]
    if job.kind == "train":
        command.append(f"parallel.devices={min(len(own), job.seeds)}")
    (root / job.out).parent.mkdir(parents=True, exist_ok=True)
    log = root / "logs" / f"{job.name}.log"
    with log.open("ab") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, cwd=REPOSITORY, env=environment(root),
            start_new_session=True,  # Ctrl-C reaches this process only, which then stops them in order
        )  # fmt: skip
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):  # it has ended already
            os.sched_setaffinity(process.pid, own)
    return Running(job, process, slot, log, seconds, fresh=fresh)


def environment(root: pathlib.Path) -> dict[str, str]:
    """Of the jobs: compiled programs are kept, so that seeds and restarts do not compile anew."""
    return {"JAX_COMPILATION_CACHE_DIR": str(root.resolve() / ".cache"), **os.environ}


def _next(waiting: list[Job], jobs: dict[str, Job], root: pathlib.Path) -> Job | None:
    for job in waiting:
        if all(planning.done(jobs[name], root) for name in job.needs):
            return job
    return None


def _give_up(waiting: list[Job], jobs: dict[str, Job], failed: dict[str, str], bars: _Bars) -> None:
    """Jobs whose needs have failed."""
    for job in list(waiting):
        bad = next((name for name in job.needs if name in failed), None)
        if bad:
            failed[job.name] = f"it needs {bad}, which {failed[bad]}"
            waiting.remove(job)
            bars.end(job, failed[job.name], 0.0)


def _over(one: Running, root: pathlib.Path, failed: dict[str, str]) -> bool:
    """Whether a job has ended; what went wrong goes to `failed`."""
    late, before = time.monotonic() - one.began - one.limit, _spent_by_children()
    metrics = root / one.job.out / "metrics.jsonl"
    if (
        not one.start_s and metrics.is_file() and metrics.stat().st_size > 0
    ):  # it is opened long before the first record
        one.start_s = core_seconds(one.process.pid)
    ended = one.process.poll() is not None
    one.spent = _spent_by_children() - before
    if not ended:
        if late > 0 and not one.stopping:
            one.stopping = True
            _signal(one, signal.SIGTERM)
        elif late > GRACE:
            _signal(one, signal.SIGKILL)
        return False
    if one.stopping:
        failed[one.job.name] = f"was stopped at its limit of {one.limit / 60:.0f} minutes"
    elif one.process.returncode:
        failed[one.job.name] = f"failed: {last_line(one.log) or f'exit status {one.process.returncode}'}"
    elif not planning.done(one.job, root):
        failed[one.job.name] = "failed: it ended without a result"
    return True


def core_seconds(pid: int) -> float:
    """User and system time of a process; 0 if that cannot be read."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):  # it has ended, or there is no such file
        return 0.0


def _spent_by_children() -> float:
    """Core seconds of the processes that have ended and been waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def last_line(log: pathlib.Path) -> str:
    """The last error a log has, or its last line; without the paths of the machine."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"error:|[\w.]*(Error|Exception)\b", line)]
    found = (errors or lines or [""])[-1]
    return found.replace(str(REPOSITORY), ".").replace(str(log.parent.parent), "RUNS")[:300]


def _signal(one: Running, signum: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(one.process.pid, signum)


def _stop(running: list[Running]) -> None:
    """End all jobs; runs save first."""
    for one in running:
        _signal(one, signal.SIGTERM)
    if running:
        print(f"stopping {len(running)} job(s), which save first; the same command goes on …", file=sys.stderr)
    deadline = time.monotonic() + GRACE
    for one in running:
        try:
            one.process.wait(max(0.1, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            _signal(one, signal.SIGKILL)
            one.process.wait()


class _Bars(AbstractContextManager["_Bars"]):
    """A bar over all jobs and one for each at work; off a terminal a line for each that begins and ends."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._console = Console(highlight=False, soft_wrap=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
        terminal = self._console.is_terminal
        self._bar: Any = (
            Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self._console)
            if terminal
            else nullcontext()
        )
        self._terminal, self._total, self._ended, self._seen = terminal, total, 0, 0.0
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> _Bars:
        self._bar.__enter__()
        if self._terminal:
            self._all = self._bar.add_task(f"{self._total} jobs", total=max(1, self._total))
        return self

    def __exit__(self, *exc: Any) -> None:
        self._bar.__exit__(*exc)

    def begin(self, job: Job) -> None:
        """A job starts."""
        if self._terminal:
            self._tasks[job.name] = self._bar.add_task(job.name, total=1.0)
        else:
            self._console.print(f"begins: {job.name}", markup=False)

    def end(self, job: Job, reason: str | None, seconds: float) -> None:
        """A job is over, well or not."""
        self._ended += 1
        what = f"[{self._ended}/{self._total}] {job.name}: {reason or 'done'} ({seconds:.0f} s)"
        self._console.print(what, markup=False)
        if self._terminal:
            if job.name in self._tasks:
                self._bar.remove_task(self._tasks.pop(job.name))
            self._bar.update(self._all, completed=self._ended)

    def look(self, running: list[Running], root: pathlib.Path) -> None:
        """Move the bars of training runs."""
        if not self._terminal or time.monotonic() - self._seen < SHOW:
            return
        self._seen, parts = time.monotonic(), 0.0
        for one in running:
            if one.job.kind == "train":
                ends = planning.progress(one.job, root)
                share = sum(ends.values()) / (one.job.seeds * one.job.total)
                self._bar.update(self._tasks[one.job.name], completed=min(1.0, share))
                parts += min(1.0, share)
        self._bar.update(self._all, completed=self._ended + parts)

"""What a person sees while jobs are at work: bars; off a terminal a line for each begin and end."""

from __future__ import annotations

import pathlib
import time
from contextlib import AbstractContextManager

from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from jaxshare.study.done import look
from jaxshare.study.job import Job
from jaxshare.terminal import open_console

SHOW = 5.0  # seconds between looks at how far runs are


class Bars(AbstractContextManager["Bars"]):
    """A bar over all jobs and one for each at work."""

    def __init__(self, total: int) -> None:
        self._console = open_console()
        self._terminal = self._console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._terminal,
        )

        # jobs over, and bars of those at work
        self._total = total
        self._ended = 0
        self._looked = 0.0
        self._bars: dict[str, TaskID] = {}
        self._all = self._progress.add_task(f"{total} jobs", total=max(1, total))

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def begin(self, job: Job) -> None:
        """A job starts."""
        self._bars[job.name] = self._progress.add_task(job.name, total=1.0)
        if not self._terminal:
            self._console.print(f"begins: {job.name}")

    def again(self, job: Job, why: str, attempt: int) -> None:
        """A job that was lost is begun again."""
        self._console.print(f"lost: {job.name}: {why}; attempt {attempt}")
        if job.name in self._bars:
            self._progress.remove_task(self._bars.pop(job.name))

    def end(self, job: Job, reason: str | None, seconds: float) -> None:
        """A job is over, well or not."""
        self._ended += 1
        outcome = reason or "done"
        count = f"[{self._ended}/{self._total}]"
        self._console.print(f"{count} {job.name}: {outcome} ({seconds:.0f} s)")
        if job.name in self._bars:
            self._progress.remove_task(self._bars.pop(job.name))
        self._progress.update(self._all, completed=self._ended)

    def look(self, jobs: list[Job], root: pathlib.Path) -> None:
        """Move the bars of training runs."""
        if not self._terminal or time.monotonic() - self._looked < SHOW:
            return
        self._looked = time.monotonic()
        parts = 0.0
        for job in jobs:
            if job.kind == "train" and job.name in self._bars:
                part = look(job, root).share()
                self._progress.update(self._bars[job.name], completed=part)
                parts += part
        self._progress.update(self._all, completed=self._ended + parts)

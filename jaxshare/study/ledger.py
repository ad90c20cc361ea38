"""How the jobs of a folder of runs are, for other processes: who is at work, and what failed.

study.json               written by the process that runs the study, every few seconds
logs/<job>.failed.json   why a job has no result, until it is to be tried again
cancel.json              jobs that another process wants to end
"""

from __future__ import annotations

import json
import os
import pathlib
import platform
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from jaxshare import durable
from jaxshare.run import processes, reader
from jaxshare.study.job import Job
from jaxshare.study.logs import LOGS
from jaxshare.types import RefusedError

DRIVER = "study.json"
CANCEL = "cancel.json"
EVERY = 5.0  # seconds between entries
SILENT = 60.0  # seconds after which nobody is at work
FAILURE = reader.Record({"reason": reader.TEXT}, others=reader.ANY)
ENTRY = reader.Record(
    {
        "host": reader.TEXT,
        "pid": reader.WHOLE,
        "executor": reader.TEXT,
        "at": reader.NUMBER,
        "running": reader.Record(others=reader.WHOLE),
        "waiting": reader.ListOf(reader.TEXT),
    }
)
AGAIN = "Delete it."


@dataclass(frozen=True)
class Entry:
    """What the process that runs a study says of it."""

    host: str
    pid: int
    executor: str
    at: float  # seconds since 1970
    running: dict[str, int] = field(default_factory=dict)  # job: number of its attempt
    waiting: list[str] = field(default_factory=list)

    @property
    def is_alive(self) -> bool:
        """Whether its process lives here, or elsewhere has said something a moment ago."""
        if self.host == platform.node():
            return bool(processes.started(self.pid))
        return time.time() - self.at < SILENT


class Ledger:
    """Where the process that runs a study says how jobs are."""

    def __init__(self, root: pathlib.Path, executor: str) -> None:
        self._path = root / DRIVER
        self._executor = executor
        self._written = 0.0

    def write(self, running: dict[str, int], waiting: list[str]) -> None:
        """Say it, if the last time is a while ago."""
        if time.monotonic() - self._written < EVERY:
            return
        self._written = time.monotonic()
        entry = {
            "host": platform.node(),
            "pid": os.getpid(),
            "executor": self._executor,
            "at": time.time(),
            "running": running,
            "waiting": waiting,
        }
        durable.write_text(self._path, json.dumps(entry))

    def close(self) -> None:
        """Say no more: nobody is at work."""
        self._path.unlink(missing_ok=True)


def driver(root: pathlib.Path) -> Entry | None:
    """What the process at work says; None if there is none."""
    if not (root / DRIVER).is_file():
        return None
    with suppress(RefusedError, OSError):
        entry = Entry(**reader.read_json(root / DRIVER, ENTRY, AGAIN))
        return entry if entry.is_alive else None
    return None


def check_alone(root: pathlib.Path) -> None:
    """Raise RefusedError if another process is at work: its jobs would be begun twice."""
    other = driver(root)
    if other is not None and (other.host, other.pid) != (platform.node(), os.getpid()):
        raise RefusedError(
            f"process {other.pid} on {other.host} runs the jobs in {root} already: `status` shows "
            "how far it is, and `cancel` ends it.",
        )


# ---------------------------------------------------------------------------------------- failures


def note_failure(root: pathlib.Path, job: Job, reason: str) -> None:
    """Keep why a job has no result."""
    path = _failure(root, job.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.write_text(path, json.dumps({"reason": reason, "at": time.time()}))


def failures(root: pathlib.Path, jobs: Iterable[Job]) -> dict[str, str]:
    """{job: why it failed}, of those that did."""
    reasons = {}
    for job in jobs:
        path = _failure(root, job.name)
        if path.is_file():
            reasons[job.name] = str(reader.read_json(path, FAILURE, AGAIN)["reason"])
    return reasons


def forget(root: pathlib.Path, jobs: Iterable[Job]) -> int:
    """Let failed jobs be tried again: how many."""
    count = 0
    for job in jobs:
        path = _failure(root, job.name)
        count += path.is_file()
        path.unlink(missing_ok=True)
    return count


def _failure(root: pathlib.Path, name: str) -> pathlib.Path:
    return root / LOGS / f"{name}.failed.json"


# ----------------------------------------------------------------------------------------- cancel


def ask_cancel(root: pathlib.Path, names: Iterable[str]) -> None:
    """Ask the process at work to end jobs."""
    durable.write_text(root / CANCEL, json.dumps(sorted(names)))


def cancelled(root: pathlib.Path) -> set[str]:
    """Jobs that somebody wants to end."""
    path = root / CANCEL
    if not path.is_file():
        return set()
    wanted: Any = reader.read_json(path, reader.ListOf(reader.TEXT), AGAIN)
    return set(wanted)


def answer_cancel(root: pathlib.Path) -> None:
    """They have ended."""
    (root / CANCEL).unlink(missing_ok=True)

"""What an executor is told of a task, and what it tells of it.

An executor is told of tasks by `submit` and asked by `poll`; `cancel` ends tasks, which save
first. To go on, the same task is submitted again: its command says resume=auto. `resume` follows a
task that an earlier process submitted and that is still at work, as it may be on a cluster.
"""

from __future__ import annotations

import os
import pathlib
import resource
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

Process = subprocess.Popen[bytes]
GRACE = 180.0  # seconds that a task has to save


@dataclass(frozen=True)
class Resources:
    """What one task is given of a machine."""

    cpus: int = 0  # cores; 0: on this machine its share, elsewhere one
    gpus: float = 0.0  # a part of one, or some
    memory_gb: float = 0.0  # 0: not counted


@dataclass(frozen=True)
class Task:
    """A command that is to be run."""

    name: str
    command: tuple[str, ...]  # arguments of python
    log: pathlib.Path  # what it prints is added to it
    cache: pathlib.Path  # folder of compiled programs, so that restarts do not compile anew
    seconds: float  # its time limit
    seeds: int = 0  # of a training run, which is told how many devices it has; 0: of no such run
    run_dir: pathlib.Path | None = None  # of a training run


@dataclass(frozen=True)
class State:
    """What an executor knows of a task."""

    running: bool
    core_seconds: float  # that it has taken; 0 if that cannot be told
    status: int = 0  # exit status, when it has ended
    expired: bool = False  # it was stopped at its limit
    waiting: bool = False  # it is in a queue, and counts as running
    lost: str = ""  # why it ended without being asked: its process or machine is gone


class Executor(ABC):
    """Runs tasks, several at a time."""

    at_once: int  # tasks that it may be told of

    @abstractmethod
    def submit(self, tasks: Sequence[Task]) -> None:
        """Begin tasks, or queue them. At most `at_once` are at work."""

    @abstractmethod
    def poll(self, name: str) -> State:
        """How a task is; one that is over its limit is stopped. Of an ended task the last call."""

    @abstractmethod
    def cancel(self, names: Iterable[str], grace: float = GRACE) -> None:
        """End those of these tasks that are at work, and wait for them: they save first.

        grace: seconds that they have; 0: they are ended at once.
        """

    @abstractmethod
    def resume(self, task: Task) -> bool:
        """Whether an earlier process submitted this task and it is at work; it is followed then."""

    def close(self) -> None:  # noqa: B027
        """Let go of what the executor holds, when no task is at work."""


def send(process: Process, signum: int) -> None:
    """A signal to a process that leads a session, and to its children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signum)


def spent_by_children() -> float:
    """Core seconds of the processes that have ended and been waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def loss(status: int) -> str:
    """Why a process that was not told to end has ended, or "" if it ended by itself."""
    if status < 0:
        return f"its process was killed by signal {-status}"
    if status in (130, 143):  # of a command that saved after Ctrl-C or SIGTERM
        return f"its process was stopped by signal {status - 128}"
    return ""

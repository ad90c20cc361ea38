"""How jobs are executed: one small interface, and the local machine behind it.

An executor is told of a task by `submit` and asked by `poll`; `cancel` ends tasks, which save
first. To go on, the same task is submitted again: its command says resume=auto. `resume` follows a
task that an earlier process submitted and that is still at work, as it may be on a cluster.
"""

from __future__ import annotations

import os
import pathlib
import resource
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

GRACE = 180.0  # seconds that a task has to save


@dataclass(frozen=True)
class Task:
    """A command that is to be run."""

    name: str
    command: tuple[str, ...]  # arguments of python
    log: pathlib.Path  # what it prints is added to it
    cache: pathlib.Path  # folder of compiled programs, so that restarts do not compile anew
    seconds: float  # its time limit
    seeds: int = 0  # of a training run, which is told how many devices it has; 0: of no such run


@dataclass(frozen=True)
class State:
    """What an executor knows of a task."""

    running: bool
    core_seconds: float  # that it has taken; 0 if that cannot be told
    status: int = 0  # exit status, when it has ended
    expired: bool = False  # it was stopped at its limit


class Executor(ABC):
    """Runs tasks, several at a time."""

    at_once: int

    @abstractmethod
    def submit(self, task: Task) -> None:
        """Begin a task. At most `at_once` are at work."""

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


@dataclass
class _Process:
    """A task at work here."""

    task: Task
    process: subprocess.Popen[bytes]
    slot: int
    began: float = field(default_factory=time.monotonic)
    stopping: bool = False

    def send(self, signum: int) -> None:
        """A signal to it and its children."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signum)


class Local(Executor):
    """This machine: a process for each task, on cores of its own, with a time limit."""

    def __init__(self, at_once: int, folder: pathlib.Path) -> None:
        """folder: where commands are given."""
        self.at_once = at_once
        self._folder = folder
        self._processes: dict[str, _Process] = {}

    def submit(self, task: Task) -> None:
        """Begin a task on its share of the cores."""
        slots = {process.slot for process in self._processes.values()}
        slot = next(number for number in range(self.at_once) if number not in slots)
        cores = self._cores(slot)
        command = [sys.executable, *task.command]
        if task.seeds:
            command.append(f"parallel.devices={min(len(cores), task.seeds)}")

        environment = {"JAX_COMPILATION_CACHE_DIR": str(task.cache), **os.environ}
        task.log.parent.mkdir(parents=True, exist_ok=True)
        with task.log.open("ab") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=self._folder,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches this process, which stops them in order
            )  # fmt: skip
        if hasattr(os, "sched_setaffinity"):
            with suppress(OSError):  # it has ended already
                os.sched_setaffinity(process.pid, cores)
        self._processes[task.name] = _Process(task, process, slot)

    def _cores(self, slot: int) -> list[int]:
        if hasattr(os, "sched_getaffinity"):
            cores = sorted(os.sched_getaffinity(0))
        else:
            cores = list(range(os.cpu_count() or 1))
        return cores[slot :: self.at_once] or cores

    def poll(self, name: str) -> State:
        """How a task is: stopped at its limit, and killed if it takes too long to save."""
        task = self._processes[name]
        before = _spent_by_children()
        status = task.process.poll()
        if status is not None:
            del self._processes[name]
            return State(False, _spent_by_children() - before, status, task.stopping)

        late = time.monotonic() - task.began - task.task.seconds
        if late > 0 and not task.stopping:
            task.stopping = True
            task.send(signal.SIGTERM)
        elif late > GRACE:
            task.send(signal.SIGKILL)
        return State(True, _spent_by(task.process.pid))

    def cancel(self, names: Iterable[str], grace: float = GRACE) -> None:
        """End tasks: all are told first, and then waited for."""
        known = [name for name in names if name in self._processes]
        tasks = [self._processes.pop(name) for name in known]
        for task in tasks:
            task.send(signal.SIGTERM if grace else signal.SIGKILL)
        deadline = time.monotonic() + grace
        for task in tasks:
            try:
                task.process.wait(max(0.1, deadline - time.monotonic()))
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                task.send(signal.SIGKILL)
                task.process.wait()

    def resume(self, task: Task) -> bool:
        """Processes end with the one that began them, so there is none."""
        return False


def _spent_by(pid: int) -> float:
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

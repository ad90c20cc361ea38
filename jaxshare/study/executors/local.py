"""This machine: a process for each task, on cores and GPUs of its own, with a time limit."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from jaxshare.study.executors.base import (
    GRACE,
    Executor,
    Process,
    Resources,
    State,
    Task,
    loss,
    send,
    spent_by_children,
)

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass
class _Process:
    """A task at work here."""

    task: Task
    process: Process
    slot: int
    began: float = field(default_factory=time.monotonic)
    stopping: bool = False


class Local(Executor):
    """This machine."""

    def __init__(self, at_once: int, folder: pathlib.Path, resources: Resources) -> None:
        """folder: where commands are given. See `choose.room` for how many fit at once."""
        self.at_once = at_once
        self._folder = folder
        self._resources = resources
        self._processes: dict[str, _Process] = {}

    def submit(self, tasks: Sequence[Task]) -> None:
        """Begin tasks, each on its share of the cores."""
        for task in tasks:
            self._begin(task)

    def _begin(self, task: Task) -> None:
        # the first place that is free, and what belongs to it
        slots = {process.slot for process in self._processes.values()}
        slot = next(number for number in range(self.at_once) if number not in slots)
        cores = self._cores(slot)
        gpus = self._gpus(slot)
        command = [sys.executable, *task.command]
        if task.seeds:
            devices = len(gpus) or len(cores)
            command.append(f"parallel.devices={min(devices, task.seeds)}")

        # begin it there
        task.log.parent.mkdir(parents=True, exist_ok=True)
        variables = {"JAX_COMPILATION_CACHE_DIR": str(task.cache), **os.environ}
        if self._resources.gpus:
            variables[VISIBLE] = ",".join(gpus)
        with task.log.open("ab") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=self._folder, env=variables,
                start_new_session=True,  # Ctrl-C reaches this process, which stops them in order
            )  # fmt: skip
        if hasattr(os, "sched_setaffinity"):
            with suppress(OSError):  # it has ended already
                os.sched_setaffinity(process.pid, cores)
        self._processes[task.name] = _Process(task, process, slot)

    def _cores(self, slot: int) -> list[int]:
        cores = all_cores()
        if self._resources.cpus:
            first = slot * self._resources.cpus % len(cores)
            return (cores + cores)[first : first + min(self._resources.cpus, len(cores))]
        return cores[slot :: self.at_once] or cores

    def _gpus(self, slot: int) -> list[str]:
        """The GPUs of a place: some, or one that it shares with other places."""
        gpus = all_gpus()
        wanted = self._resources.gpus
        if not wanted or not gpus:
            return []
        if wanted < 1:
            return [gpus[int(slot * wanted) % len(gpus)]]
        first = slot * int(wanted) % len(gpus)
        return gpus[first : first + int(wanted)]

    def poll(self, name: str) -> State:
        """How a task is: stopped at its limit, and killed if it takes too long to save."""
        # it has ended
        task = self._processes[name]
        before = spent_by_children()
        status = task.process.poll()
        if status is not None:
            del self._processes[name]
            lost = "" if task.stopping else loss(status)
            spent = spent_by_children() - before
            return State(False, spent, status, expired=task.stopping, lost=lost)

        # it is late
        late = time.monotonic() - task.began - task.task.seconds
        if late > 0 and not task.stopping:
            task.stopping = True
            send(task.process, signal.SIGTERM)
        elif late > GRACE:
            send(task.process, signal.SIGKILL)
        return State(True, _spent_by(task.process.pid))

    def cancel(self, names: Iterable[str], grace: float = GRACE) -> None:
        """End tasks: all are told first, and then waited for."""
        # tell all, then wait for each
        known = [name for name in names if name in self._processes]
        tasks = [self._processes.pop(name) for name in known]
        for task in tasks:
            send(task.process, signal.SIGTERM if grace else signal.SIGKILL)
        deadline = time.monotonic() + grace
        for task in tasks:
            try:
                task.process.wait(max(0.1, deadline - time.monotonic()))
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                send(task.process, signal.SIGKILL)
                task.process.wait()

    def resume(self, task: Task) -> bool:
        """Processes end with the one that began them, so there is none."""
        return False


def all_cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def all_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if VISIBLE in os.environ:
        return [name for name in os.environ[VISIBLE].split(",") if name]
    devices = pathlib.Path("/dev").glob("nvidia[0-9]*")
    return [str(number) for number in range(len(list(devices)))]


def _spent_by(pid: int) -> float:
    """User and system time of a process; 0 if that cannot be read."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):  # it has ended, or there is no such file
        return 0.0

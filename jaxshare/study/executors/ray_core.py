"""Ray: a task of its core for each job, on whatever machine has room.

What is lost with a machine or a worker is told to the engine, which submits it again. The driver
owns its tasks: if it dies, they end, and the same command goes on.
"""

from __future__ import annotations

import logging
import os
import pathlib
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from jaxshare.study.executors import attempt
from jaxshare.study.executors.attempt import Outcome
from jaxshare.study.executors.base import GRACE, Executor, Resources, State, Task
from jaxshare.study.logs import size_of

MOST = 10_000  # tasks that Ray is told of at a time
FRESH = 0.3  # seconds for which what Ray said of all tasks is believed
LOOKS = 200  # queued tasks that are looked at each time: folders may be far away
GIGABYTE = 1024**3
FROZEN = 20.0  # seconds in which a task that Ray has cancelled must be over, beside its grace


class Ray(Executor):
    """A cluster, or this machine as one."""

    at_once = MOST

    def __init__(self, address: str, folder: pathlib.Path, resources: Resources) -> None:
        """address: auto (the cluster of this machine), local (start one here), or host:port.

        folder: where commands are given; all machines have it. Raises ConnectionError.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
        import ray

        self._ray = ray
        dashboard = None if address != "local" else False
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=dashboard,
        )
        self._folder = str(folder)
        self._resources = resources

        # the function that a worker runs; what is lost is submitted again by the engine
        options: dict[str, Any] = {
            "num_cpus": resources.cpus or 1,
            "num_gpus": resources.gpus,
            "max_retries": 0,
        }
        if resources.memory_gb:
            options["memory"] = int(resources.memory_gb * GIGABYTE)
        self._remote = ray.remote(**options)(attempt.run)
        self._refs: dict[str, Any] = {}
        self._ready: set[Any] = set()
        self._queued: dict[str, _Queued] = {}
        self._asked = 0.0

    def submit(self, tasks: Sequence[Task]) -> None:
        """Queue tasks."""
        for task in tasks:
            self._queued[task.name] = _Queued(task.log, size_of(task.log))
            self._refs[task.name] = self._remote.remote(task, self._resources, self._folder)

    def poll(self, name: str) -> State:
        """How a task is. Its core seconds are told at its end."""
        self._ask()
        ref = self._refs[name]
        if ref not in self._ready:
            return State(True, 0.0, waiting=name in self._queued)

        # it is over: its outcome, or why there is none
        del self._refs[name]
        self._queued.pop(name, None)
        try:
            outcome: Outcome = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            return State(False, 0.0, 1, lost=_first_line(error.cause or error))
        except self._ray.exceptions.RayError as error:
            return State(False, 0.0, 1, lost=_first_line(error))
        return outcome.state

    def _ask(self) -> None:
        """Which tasks are over or have begun, not too often."""
        if time.monotonic() - self._asked < FRESH:
            return
        refs = list(self._refs.values())
        if refs:
            ready, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
            self._ready = set(ready)
        for name in list(self._queued)[:LOOKS]:
            queued = self._queued.pop(name)
            if size_of(queued.log) <= queued.size:
                self._queued[name] = queued  # behind the others
        self._asked = time.monotonic()

    def cancel(self, names: Iterable[str], grace: float = GRACE) -> None:
        """End tasks: those that have begun save, and those in the queue are dropped."""
        known = [name for name in names if name in self._refs]
        refs = [self._refs.pop(name) for name in known]
        for name in known:
            self._queued.pop(name, None)
        for ref in refs:
            with suppress(self._ray.exceptions.RayError):
                self._ray.cancel(ref, force=grace == 0)
        if refs:
            self._ray.wait(refs, num_returns=len(refs), timeout=grace + FROZEN)

    def resume(self, task: Task) -> bool:
        """Tasks end with the driver that submitted them, so there is none."""
        return False

    def close(self) -> None:
        """Leave the cluster."""
        self._ray.shutdown()


@dataclass(frozen=True)
class _Queued:
    """A task that may not have begun: an attempt writes into its log at once."""

    log: pathlib.Path
    size: int  # of the log when the task was submitted


def _first_line(error: BaseException) -> str:
    """What a person needs of an error of Ray's."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"

"""Slurm by submitit: arrays of jobs, which are put back into the queue when their time is over.

Slurm warns a job before its time limit, or before another job takes its place; the command then
saves, and the same job waits for its next turn. Jobs outlive the command that submitted them: it
finds them again by a file in the folder of the runs.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from jaxshare import durable
from jaxshare.run import reader
from jaxshare.study.executors import attempt
from jaxshare.study.executors.base import GRACE, Executor, Resources, State, Task
from jaxshare.types import RefusedError

NUMBERS = reader.Record(others=reader.TEXT)  # of Slurm's jobs, by task
ARRAY = 1000  # jobs of an array: Slurm's own default is 1001 (MaxArraySize)
KNOWN = "jobs.json"  # which job of Slurm's a task is
TIMEOUT = 240  # minutes of a turn, ours; slurm.timeout_min=… says another
OVER = ("FAILED", "CANCELLED", "NODE_FAIL", "BOOT_FAIL", "OUT_OF_MEMORY", "DEADLINE", "TIMEOUT")


class Attempt:
    """What a job of Slurm's does; submitit asks it to save when its time is over."""

    def __init__(self, task: Task, resources: Resources, folder: str) -> None:
        self._arguments = (task, resources, folder)
        self._process: attempt.Process | None = None

    def __call__(self) -> attempt.Outcome:
        """Run the command."""
        return attempt.run(*self._arguments, begun=self._note)

    def _note(self, process: attempt.Process) -> None:
        self._process = process

    def checkpoint(self) -> Any:
        """Save and end; the same attempt again, for the queue."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            attempt.stop(self._process)
        return DelayedSubmission(Attempt(*self._arguments))


@dataclass(frozen=True)
class Cluster:
    """Where jobs are sent, and with which settings."""

    settings: Mapping[str, str]  # of submitit, such as partition; without their slurm_
    kind: str = "slurm"  # local: processes of submitit's on this machine
    at_once: int = 100  # of an array
    timeouts: int = 1000  # how often a job goes back into the queue


class Slurm(Executor):
    """A cluster with Slurm."""

    at_once = 1_000_000  # Slurm queues them

    def __init__(
        self, root: pathlib.Path, folder: pathlib.Path, resources: Resources, cluster: Cluster
    ) -> None:
        """root: of the runs. folder: where commands are given; all machines have both."""
        import submitit

        self._submitit = submitit
        self._folder = str(folder)
        self._resources = resources
        self._cluster = cluster
        self._place = root / "slurm"
        self._jobs: dict[str, Any] = {}
        self._earlier = _numbers(self._place / KNOWN)  # of an earlier command's jobs

        # what Slurm is asked for
        self._executor = submitit.AutoExecutor(
            folder=self._place / "%j",
            cluster=cluster.kind,
            **{f"{cluster.kind}_max_num_timeout": cluster.timeouts},
        )
        wanted: dict[str, Any] = {
            "name": "jaxshare",
            "cpus_per_task": resources.cpus or 1,
            "timeout_min": TIMEOUT,
        }
        if resources.memory_gb:
            wanted["mem_gb"] = resources.memory_gb
        if resources.gpus:
            wanted["gpus_per_node"] = int(resources.gpus)
        if cluster.kind == "slurm":
            wanted["slurm_array_parallelism"] = cluster.at_once
        wanted |= _typed(cluster.settings, cluster.kind)
        self._executor.update_parameters(**wanted)

    def submit(self, tasks: Sequence[Task]) -> None:
        """Send tasks as arrays."""
        for first in range(0, len(tasks), ARRAY):
            part = tasks[first : first + ARRAY]
            attempts = [Attempt(task, self._resources, self._folder) for task in part]
            with self._executor.batch():
                jobs = [self._executor.submit(each) for each in attempts]
            self._jobs |= {task.name: job for task, job in zip(part, jobs, strict=True)}
            self._note()

    def poll(self, name: str) -> State:
        """How a task is. Its core seconds are told at its end."""
        job = self._jobs[name]
        if not job.done():
            return State(True, 0.0, waiting=job.state in ("PENDING", "REQUEUED", "UNKNOWN"))

        # it is over: its outcome, or why there is none
        del self._jobs[name]
        self._note()
        error = job.exception()
        if error is not None:
            lines = (str(error).strip() or type(error).__name__).splitlines()
            lost = f"Slurm says {job.state}" if job.state in OVER else lines[-1][:200]
            return State(False, 0.0, 1, lost=lost)
        outcome: attempt.Outcome = job.result()
        return outcome.state

    def cancel(self, names: Iterable[str], grace: float = GRACE) -> None:
        """End tasks: scancel warns them, and they save in the time that Slurm leaves them."""
        for name in names:
            job = self._jobs.pop(name, None)
            if job is not None:
                job.cancel(check=False)
        self._note()

    def resume(self, task: Task) -> bool:
        """Follow the job of an earlier command, if Slurm still has it."""
        number = self._earlier.pop(task.name, None)
        if number is None:
            return False
        kind = {"slurm": self._submitit.SlurmJob, "local": self._submitit.LocalJob}
        job = kind[self._cluster.kind](folder=self._place / "%j", job_id=number)
        if job.done():
            return False
        self._jobs[task.name] = job
        return True

    def _note(self) -> None:
        """Keep which jobs are at work."""
        self._place.mkdir(parents=True, exist_ok=True)
        numbers = {**self._earlier, **{name: job.job_id for name, job in self._jobs.items()}}
        durable.write_text(self._place / KNOWN, json.dumps(numbers))


def _numbers(path: pathlib.Path) -> dict[str, str]:
    """Slurm's numbers of tasks, as they were kept; none if that cannot be read."""
    with suppress(OSError, RefusedError):
        return dict(reader.read_json(path, NUMBERS, "Delete it."))
    return {}


def _typed(settings: Mapping[str, str], kind: str) -> dict[str, Any]:
    """Settings of the command line as submitit wants them: whole numbers as such."""
    general = ("timeout_min", "nodes", "tasks_per_node", "stderr_to_stdout", "name")
    typed: dict[str, Any] = {}
    for name, value in settings.items():
        key = name if name in general else f"{kind}_{name}"
        typed[key] = int(value) if value.isdigit() else value
    return typed

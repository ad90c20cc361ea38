"""One attempt at a task on a machine of a cluster: a process of its own, watched until it ends.

Workers of a cluster are used again and again, and JAX cannot be started anew in one, so that the
command runs in a child. This module knows nothing heavy: it is imported by every worker.
"""

from __future__ import annotations

import math
import os
import pathlib
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from jaxshare.run import processes
from jaxshare.run.lease import LEASE, LOCK, silence
from jaxshare.study.executors.base import (
    GRACE,
    Process,
    Resources,
    State,
    Task,
    loss,
    send,
    spent_by_children,
)

POLL = 0.2  # seconds between looks; a cancellation is an exception that needs Python to run
CHILD = pathlib.Path(__file__).with_name("child.py")
MOST = 4096  # characters of a lock that are looked at
GPU_SHARE = 0.9  # of a task's part of a GPU, which JAX may take for itself


Begun = Callable[[Process], None]


def _nothing(process: Process) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended."""

    status: int
    core_seconds: float
    expired: bool = False  # it was stopped at its time limit

    @property
    def lost(self) -> str:
        """Why it ended without being asked, or ""."""
        return "" if self.expired else loss(self.status)

    @property
    def state(self) -> State:
        """What an executor tells of it."""
        return State(False, self.core_seconds, self.status, expired=self.expired, lost=self.lost)


def run(task: Task, resources: Resources, folder: str, begun: Begun = _nothing) -> Outcome:
    """Run the command in a folder until it ends or its time is over.

    An exception of the cluster's, which cancels the attempt, goes through after the command has
    saved. begun: is given the process.
    """
    _wait_for_lock(task)
    before = spent_by_children()
    began = time.monotonic()
    process = start(task, resources, folder)
    begun(process)

    # look again and again: what cancels the attempt is an exception in this thread
    expired = False
    try:
        while process.poll() is None:
            time.sleep(POLL)
            if time.monotonic() - began > task.seconds:
                expired = True
                stop(process)
    except BaseException:
        stop(process)
        raise
    core_seconds = spent_by_children() - before
    return Outcome(process.returncode, core_seconds, expired)


def start(task: Task, resources: Resources, folder: str) -> Process:
    """The process of a task. What it prints is added to the task's log."""
    task.log.parent.mkdir(parents=True, exist_ok=True)
    # told to end with this process, and how many devices it has
    command = [sys.executable, str(CHILD), str(os.getpid()), *task.command]
    if task.seeds:
        command.append(f"parallel.devices={devices(task, resources)}")
    with task.log.open("ab") as log:
        log.write(f"[{time.strftime('%Y-%m-%d %H:%M:%S')} on {platform.node()}]\n".encode())
        log.flush()
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**environment(task, resources), **os.environ},
            start_new_session=True,
        )


def devices(task: Task, resources: Resources) -> int:
    """How many devices a training run may use: its GPUs, or as many of a CPU as it has cores."""
    many = math.ceil(resources.gpus) or resources.cpus or 1
    return min(many, task.seeds)


def environment(task: Task, resources: Resources) -> dict[str, str]:
    """Variables that a task is given where the machine does not say otherwise."""
    variables = {"JAX_COMPILATION_CACHE_DIR": str(task.cache)}
    if resources.gpus == 0:
        variables["JAX_PLATFORMS"] = "cpu"  # a cluster hides no GPU from a task that has none
    elif resources.gpus < 1:
        variables["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{GPU_SHARE * resources.gpus:.3f}"
    return variables


def stop(process: Process, grace: float = GRACE) -> None:
    """Tell a process to save and end, and wait for it; kill it when its grace is over."""
    send(process, signal.SIGTERM)
    try:
        process.wait(grace)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        send(process, signal.SIGKILL)
        process.wait()


def _wait_for_lock(task: Task) -> None:
    """Wait while another attempt at the task seems to be at work.

    If its machine is gone, the lock of the run directory is free after a while; if it is not, the
    command is refused in words.
    """
    if task.run_dir is None:
        return
    path = task.run_dir / LOCK
    until = time.monotonic() + LEASE + POLL
    with suppress(OSError):  # there is no lock any more
        while time.monotonic() < until and _is_held(path):
            time.sleep(POLL)


def _is_held(path: pathlib.Path) -> bool:
    """Whether the holder of a lock seems to live. Raises OSError."""
    with path.open(encoding="utf-8", errors="replace") as file:
        text = file.read(MOST)
    pid = re.search(r'"pid": (\d+)', text)
    if pid and f'"host": "{platform.node()}"' in text:
        return bool(processes.started(int(pid[1])))
    return silence(path) < LEASE

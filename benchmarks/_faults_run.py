"""The run that faults.py interrupts, how it goes on, and whether it ends with the same bits."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare import cli
from jaxshare.run import build
from jaxshare.run.checkpoint.checkpoints import Checkpoints
from jaxshare.run.checkpoint.contents import Restored, Wanted
from jaxshare.run.checkpoint.step_folders import UNFINISHED
from jaxshare.run.train import train

REPOSITORY = pathlib.Path(__file__).parent.parent
# 50 chunks and 13 checkpoints in about two seconds once it is compiled
TASK = (
    "env=matrix", "env.game=two_step", "algo=iql", "algo.recurrent=false", "algo.hidden_dim=8",
    "num_envs=4", "batch_size=4", "replay.capacity=16", "eval.every=16", "eval.episodes=4",
    "total_env_steps=800", "checkpoint.every=64", "progress=false", "parallel.devices=1",
)  # fmt: skip
ENVIRONMENT = {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", str(REPOSITORY / ".cache" / "jax")),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}
LIMIT = 300.0  # seconds a run may take
AT_MOST = 2.5  # seconds that a fault waits for after the first checkpoint


@dataclass(frozen=True)
class Outcome:
    """What became of one trial."""

    survived: bool  # the same command went on, or started anew where nothing was to lose, to the end
    same_bits: bool | None  # as the run that nothing happened to; None: it was not taken to the end
    note: str = ""  # what else is counted
    message: str = ""  # what the command said, if it did not survive


def command(run_dir: pathlib.Path, *more: str) -> list[str]:
    """The command line; the same starts a run and goes on with it."""
    arguments = [f"run_dir={run_dir}", *TASK, "resume=auto", *more]
    return [sys.executable, "-m", "jaxshare.train", *arguments]


def start(run_dir: pathlib.Path) -> subprocess.Popen[str]:
    """The run as a process."""
    return subprocess.Popen(
        command(run_dir), cwd=REPOSITORY, env=ENVIRONMENT, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def train_here(run_dir: pathlib.Path) -> None:
    """The run in this process, without a word."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        train(cli.settings([f"run_dir={run_dir}", *TASK]))


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for its end: what it wrote to stderr."""
    try:
        return process.communicate(timeout=LIMIT)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[1] + f"\nno end after {LIMIT:.0f} s"


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str], pause: float = 0.001) -> bool:
    """Whether the condition came true before the process ended."""
    until = time.monotonic() + LIMIT
    while time.monotonic() < until and process.poll() is None:
        if condition():
            return True
        time.sleep(pause)
    return condition()


def checkpoint_names(run_dir: pathlib.Path) -> list[str]:
    """Names in the folder of checkpoints, complete or not."""
    try:
        return os.listdir(run_dir / "checkpoints")
    except FileNotFoundError:
        return []


@functools.cache
def wanted() -> Wanted:
    """What a run that goes on reads."""
    settings = cli.settings(["run_dir=anywhere", *TASK])
    return Wanted(jax.eval_shape(build.prepare(settings).init, jnp.int32(0)), 1, replay=True)


def newest(run_dir: pathlib.Path, warn: Callable[[str], None]) -> Restored | None:
    """The newest sound checkpoint."""
    checkpoints = Checkpoints(run_dir, read_only=True)
    pair = checkpoints.newest(lambda step: checkpoints.load(step, wanted()), warn)
    return pair[1] if pair else None


def records(run_dir: pathlib.Path) -> list[dict[str, Any]]:
    """The metrics but for the time they took."""
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows:
        row.pop("wall_s")
    return rows


def same_bits(run_dir: pathlib.Path, whole: pathlib.Path) -> bool:
    """Whether two runs ended with the same numbers in their checkpoints and metrics."""
    one = newest(run_dir, print)
    other = newest(whole, print)
    if one is None or other is None:
        return False
    pairs = zip(jax.tree.leaves((one.clock, one.runs)), jax.tree.leaves((other.clock, other.runs)), strict=True)
    equal = all(np.array_equal(x, y, equal_nan=True) for x, y in pairs)
    return equal and records(run_dir) == records(whole)


def go_on(run_dir: pathlib.Path, whole: pathlib.Path, note: str = "") -> Outcome:
    """Run the same command to its end, and compare with the run that nothing happened to."""
    process = start(run_dir)
    message = finish(process)
    if process.returncode != 0:
        return Outcome(False, False, note, message.strip()[-2000:])
    return Outcome(True, same_bits(run_dir, whole), note)


def said_in_one_sentence(message: str) -> bool:
    """Whether a command that failed said so without tracebacks, in a few lines at most."""
    return "Traceback" not in message and len(message.strip().splitlines()) <= 3


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL, and wait."""
    process.send_signal(signal.SIGKILL)
    process.communicate()


# ---------------------------------------------------------------------------------------------- moments


def at_checkpoint(process: subprocess.Popen[str], run_dir: pathlib.Path, after: int) -> None:
    """Wait until a checkpoint is being written, the one after so many."""
    seen: set[str] = set()

    def writing() -> bool:
        seen.update(name for name in checkpoint_names(run_dir) if UNFINISHED in name)
        return len(seen) > after

    wait_until(writing, process)


def after_first_checkpoint(process: subprocess.Popen[str], run_dir: pathlib.Path) -> None:
    """Wait for the first checkpoint, and then any time."""
    wait_until(lambda: any(n.isdigit() for n in checkpoint_names(run_dir)), process)
    time.sleep(random.uniform(0, AT_MOST))


def interrupted(run_dir: pathlib.Path) -> pathlib.Path:
    """A run that was killed when it had two checkpoints and nothing else in their folder."""
    process = start(run_dir)
    wait_until(lambda: sum(n.isdigit() for n in checkpoint_names(run_dir)) >= 2, process)
    kill(process)
    for name in checkpoint_names(run_dir):
        if not name.isdigit():
            shutil.rmtree(run_dir / "checkpoints" / name)
    return run_dir

"""Where metrics go: metrics.jsonl always, TensorBoard and Weights & Biases on request.

One stream per run.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from jaxshare import registry
from jaxshare.types import RefusedError

METRICS = "metrics.jsonl"
COMMON = ("seed", "env_steps", "updates", "wall_s")


def require(names: tuple[str, ...]) -> None:
    """Raise RefusedError for a logger that is not known or not installed, before a run is begun."""
    for name in names:
        factory = registry.get("logger", name)
        for package in getattr(factory, "PACKAGES", ()):
            try:
                importlib.import_module(package)
            except ImportError as error:
                raise RefusedError(
                    f"logger=[{name}] needs the package {package}: {factory.INSTALL}."
                ) from error


class Logger(Protocol):
    """Takes flat records.

    They hold `seed`, `env_steps`, `updates`, `wall_s`, the sweep's values, then metrics.
    """

    def write(self, run: int, record: dict[str, Any]) -> None:
        """Log one record of run `run`."""

    def close(self) -> None:
        """Flush."""


class JsonLines:
    """metrics.jsonl, one record per line, behind those that are there.

    Raises RefusedError if it cannot be written.
    """

    def __init__(self, run_dir: pathlib.Path) -> None:
        self._path = run_dir / METRICS
        # O_NOFOLLOW: a link leads elsewhere
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._descriptor = os.open(self._path, flags, 0o666)
        except OSError as error:
            raise self._refusal(error) from error

    def write(self, run: int, record: dict[str, Any]) -> None:
        """Append a line, past all buffers of this process, so that a kill loses nothing."""
        line = (json.dumps(record) + "\n").encode()
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError as error:
            raise self._refusal(error) from error

    def sync(self) -> int:
        """Bytes written so far, which are on the disk now.

        So that a checkpoint may name their number.
        """
        try:
            os.fsync(self._descriptor)
            return os.fstat(self._descriptor).st_size
        except OSError as error:
            raise self._refusal(error) from error

    def close(self) -> None:
        """Close the file. Idempotent."""
        descriptor = self._descriptor
        self._descriptor = -1
        if descriptor != -1:
            os.close(descriptor)

    def _refusal(self, error: OSError) -> RefusedError:
        return RefusedError(
            f"{self._path} cannot be written ({error.strerror or error}). The run is stopped; what "
            "the checkpoints in this folder hold is kept. Once it can be written, the same command "
            f"with resume=auto run_dir={self._path.parent} goes on."
        )


class TensorBoard:
    """One event folder per run."""

    def __init__(self, run_dir: pathlib.Path, names: list[str], settings: dict[str, Any]) -> None:
        from tensorboardX import SummaryWriter

        self._writers = [SummaryWriter(str(run_dir / "tensorboard" / name)) for name in names]

    def write(self, run: int, record: dict[str, Any]) -> None:
        """Scalars against environment steps."""
        for name, value in record.items():
            if name not in COMMON:
                self._writers[run].add_scalar(name, value, record["env_steps"])

    def close(self) -> None:
        """Flush the event files."""
        for writer in self._writers:
            writer.close()


class WandB:
    """One W&B run per run, grouped by run directory."""

    def __init__(self, run_dir: pathlib.Path, names: list[str], settings: dict[str, Any]) -> None:
        import wandb

        # a resumed run goes on in its own W&B run
        tag = hashlib.sha1(str(run_dir.resolve()).encode()).hexdigest()[:8]
        self._runs = []
        for name in names:
            run = wandb.init(
                project="jaxshare",
                group=run_dir.name,
                name=f"{run_dir.name}-{name}",
                id=f"{name}-{tag}",
                dir=str(run_dir),
                config=settings,
                resume="allow",
                reinit="create_new",
            )
            self._runs.append(run)

    def write(self, run: int, record: dict[str, Any]) -> None:
        """Scalars, with env_steps as a column of its own."""
        self._runs[run].log(record)

    def close(self) -> None:
        """Finish all runs."""
        for run in self._runs:
            run.finish()


@dataclass(frozen=True)
class Factory:
    """One logger as an entry of the registry.

    make: (run directory, names of the runs, plain settings) -> Logger.
    PACKAGES, INSTALL: what it imports, and how that is installed.
    """

    make: Callable[[pathlib.Path, list[str], dict[str, Any]], Logger]
    text: str
    PACKAGES: tuple[str, ...]
    INSTALL: str


OURS = {
    "tensorboard": Factory(
        TensorBoard,
        "TensorBoard event files in the run directory.",
        ("tensorboardX",),
        "pip install 'jaxshare[tensorboard]'",
    ),
    "wandb": Factory(
        WandB,
        "Weights & Biases, one W&B run for each run.",
        ("wandb",),
        "pip install 'jaxshare[wandb]'",
    ),
}

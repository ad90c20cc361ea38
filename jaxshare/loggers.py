"""Where metrics go: metrics.jsonl always, TensorBoard and Weights & Biases on request. One stream per run."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import pathlib
from typing import Any, Protocol

from jaxshare.types import RefusedError

METRICS = "metrics.jsonl"
COMMON = ("seed", "env_steps", "updates", "wall_s")


def require(names: tuple[str, ...]) -> None:
    """Raise RefusedError for a logger whose package is not installed, before a run is begun."""
    for name in names:
        package = {"tensorboard": "tensorboardX", "wandb": "wandb"}[name]
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise RefusedError(
                f"logger=[{name}] needs the package {package}: pip install 'jaxshare[{name}]'."
            ) from error


class Logger(Protocol):
    """Takes flat records: `seed`, `env_steps`, `updates`, `wall_s`, the sweep's values, then metrics."""

    def write(self, run: int, record: dict[str, Any]) -> None:
        """Log one record of run `run`."""

    def close(self) -> None:
        """Flush."""


class JsonLines:
    """metrics.jsonl, one record per line; `offset` is what a resumed run cuts the file back to."""

    def __init__(self, run_dir: pathlib.Path, offset: int | None = None) -> None:
        path = run_dir / METRICS
        if offset is not None and path.exists():
            os.truncate(path, min(offset, path.stat().st_size))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115

    def write(self, run: int, record: dict[str, Any]) -> None:
        """Append and flush, so that a killed process loses nothing."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def sync(self) -> int:
        """Bytes written so far, which are on the disk now, so that a checkpoint may name their number."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoard:
    """One event folder per run."""

    def __init__(self, run_dir: pathlib.Path, names: list[str]) -> None:
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

    def __init__(self, run_dir: pathlib.Path, names: list[str], config: dict[str, Any]) -> None:
        import wandb

        tag = hashlib.sha1(str(run_dir.resolve()).encode()).hexdigest()[:8]  # a resumed run goes on in its own W&B run
        self._runs = [
            wandb.init(
                project="jaxshare", group=run_dir.name, name=f"{run_dir.name}-{name}", id=f"{name}-{tag}",
                dir=str(run_dir), config=config, resume="allow", reinit="create_new",
            )
            for name in names
        ]  # fmt: skip

    def write(self, run: int, record: dict[str, Any]) -> None:
        """Scalars, with env_steps as a column of its own."""
        self._runs[run].log(record)

    def close(self) -> None:
        """Finish all runs."""
        for run in self._runs:
            run.finish()

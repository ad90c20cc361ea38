"""What watches a run.

Logging, keeping the best and stopping are callbacks, and users add their own.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxshare.run.fleet import Counters
from jaxshare.types import RefusedError

if TYPE_CHECKING:
    from jaxshare.run.training import Training


@dataclass(frozen=True)
class Chunk:
    """Some iterations of all runs.

    metrics: as `Program.chunk` returns them, with leading [R, iterations]: "active", "ended",
    "collect" {name}, "update" {name: [R, iterations, updates]}, "done" [R, iterations, updates].
    """

    metrics: dict[str, Any]
    before: Counters
    after: Counters


@dataclass(frozen=True)
class Evaluation:
    """Test episodes of all runs."""

    scores: dict[str, np.ndarray]  # {name: [R]}, such as "return" and "win_rate"
    due: np.ndarray  # [R] bool: whose turn it was; the scores of the others are not kept
    at: Counters


class Callback:
    """Base class of what watches a run. Every method may be left out.

    They are called in the thread that trains, between compiled chunks, with the `Training` that
    goes on: its `settings`, `run_dir`, `labels`, `counters`, `params(run)`, and `stop(reason)`,
    which ends the run after a checkpoint. What they do cannot change what a run computes.
    """

    def on_start(self, training: Training) -> None:
        """First of all: replays are filled, or a checkpoint is restored."""

    def on_chunk(self, training: Training, chunk: Chunk) -> None:
        """After every chunk of iterations, and before its evaluation."""

    def on_evaluation(self, training: Training, evaluation: Evaluation) -> None:
        """After every evaluation."""

    def on_record(self, training: Training, run: int, record: dict[str, Any]) -> None:
        """With every record of metrics.jsonl, of run `run`: seed, env_steps, updates, metrics."""

    def on_checkpoint(self, training: Training, path: pathlib.Path) -> None:
        """After every checkpoint, with its folder."""

    def on_end(self, training: Training) -> None:
        """After the last checkpoint of a run that came to its end or was stopped by a callback."""


def checked(callbacks: Iterable[object]) -> list[Callback]:
    """The callbacks of a user. Raises RefusedError for what is none."""
    chosen = []
    for callback in callbacks:
        if not isinstance(callback, Callback):
            what = "a class, not an object of it" if isinstance(callback, type) else "no Callback"
            raise RefusedError(
                f"callbacks=[{callback!r}] holds {what}: derive a class from jaxshare.Callback, "
                "and give an object of it."
            )
        chosen.append(callback)
    return chosen

"""A handle on a run directory: its settings, and what its checkpoints hold."""

from __future__ import annotations

import dataclasses
import operator
import pathlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.run import BEST, LATEST, build
from jaxshare.run.checkpoint.checkpoints import Checkpoints
from jaxshare.run.checkpoint.contents import Best, Restored, Wanted
from jaxshare.settings.records import Settings
from jaxshare.training.program import Program
from jaxshare.trust import Permission, run_settings
from jaxshare.types import Clock, RefusedError, TrainState


def open_run(
    run_dir: str | pathlib.Path,
    checkpoint: int | str | None = LATEST,
    permission: Permission | None = None,
    suitable: Callable[[Settings], None] | None = None,
) -> SavedRun:
    """A handle on a run directory; nothing is compiled or restored before it is asked for.

    checkpoint: LATEST, BEST (each run's parameters at its best evaluation) or an iteration.
    permission: what the caller says of code that the directory names; see `jaxshare.trust`.
    suitable: raises RefusedError for runs that the caller has no use for.
    Raises RefusedError if it is no run directory, names code without permission, or `checkpoint`
    is none of these.
    """
    checkpoint = _checkpoint(checkpoint)
    run_dir = pathlib.Path(run_dir)
    settings = run_settings(run_dir, permission or Permission(), suitable)
    return SavedRun(run_dir, settings, checkpoint)


def _checkpoint(wanted: SupportsIndex | str | None) -> int | str:
    """LATEST, BEST or an iteration. Raises RefusedError for anything else."""
    if wanted is None:
        return LATEST
    if isinstance(wanted, str) and wanted in (LATEST, BEST):
        return wanted
    with suppress(TypeError):
        if isinstance(wanted, SupportsIndex):
            return operator.index(wanted)
    raise RefusedError(
        f"checkpoint={wanted} is neither the iteration of a checkpoint nor {BEST} nor {LATEST}."
    )


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """What a run directory holds. R runs: seeds by sweep points."""

    run_dir: pathlib.Path
    settings: Settings
    checkpoint: int | str = LATEST

    def with_settings(self, settings: Settings) -> SavedRun:
        """The same directory with other settings of what is played, such as eval.episodes."""
        return SavedRun(self.run_dir, settings, self.checkpoint)

    @property
    def labels(self) -> list[dict[str, Any]]:
        """How records name each run, [R]."""
        return self.settings.labels()

    @cached_property
    def program(self) -> Program:
        """What the run is made of, anew. `close` ends what its environments have started."""
        return build.prepare(self.settings)

    def close(self) -> None:
        """End what the environments have started outside this process."""
        if "program" in self.__dict__:
            self.program.close()

    # ------------------------------------------------------------------------------- checkpoints

    @cached_property
    def restored(self) -> Restored:
        """The checkpoint, without its replay.

        Raises RefusedError if there is none that is sound.
        """
        # read the one that was chosen, or the newest sound one
        wanted = self.wanted(best=self.checkpoint == BEST)
        with self.checkpoints() as checkpoints:
            steps = checkpoints.steps()
            if isinstance(self.checkpoint, int):
                restored = None
                if self.checkpoint in steps:
                    restored = checkpoints.load(self.checkpoint, wanted)
            else:
                newest = checkpoints.newest(lambda step: checkpoints.load(step, wanted))
                restored = newest[1] if newest else None

        # say what is missing
        if restored is None:
            raise self._missing(steps)
        if self.checkpoint == BEST and restored.best is None:
            raise RefusedError(
                f"checkpoint=best: run_dir={self.run_dir} holds none. Train with "
                "checkpoint.best=true."
            )
        return restored

    def _missing(self, steps: list[int]) -> RefusedError:
        if not steps:
            return RefusedError(
                f"run_dir={self.run_dir} has no checkpoint. Train it first: it has one after a few "
                "seconds."
            )
        available = ", ".join(map(str, steps))
        number = f" {self.checkpoint}" if isinstance(self.checkpoint, int) else ""
        return RefusedError(
            f"run_dir={self.run_dir} has no checkpoint{number}; it has: {available}."
        )

    def checkpoints(self) -> Checkpoints:
        """All checkpoints, for reading: a context."""
        return Checkpoints(self.run_dir, read_only=True, spec=self.program.env.spec)

    def wanted(self, best: bool = False, replay: bool = False) -> Wanted:
        """What to ask of a checkpoint. Without `replay` the ring is left out."""
        shapes = jax.eval_shape(self.program.init, jnp.int32(0))
        if not replay:
            shapes = shapes.replace(replay=None)
        return Wanted(shapes, len(self.settings.runs()), replay=replay, best=best)

    @property
    def step(self) -> int:
        """The iteration of the checkpoint."""
        return self.restored.step

    @property
    def clock(self) -> Clock:
        """The counters common to all runs."""
        return self.restored.clock

    @property
    def states(self) -> Sequence[TrainState]:
        """Every run at the checkpoint, or at its best, [R] of numpy arrays."""
        if self.restored.best is None:
            return self.restored.runs
        pairs = zip(self.restored.runs, self.restored.best, strict=True)
        return [at_best(state, best) for state, best in pairs]

    def hparams(self, run: int) -> dict[str, jax.Array]:
        """The scalars that a sweep may vary, of one run."""
        _, point = self.settings.runs()[run]
        values = {**self.program.algorithm.hparams, **point}
        return {name: jnp.float32(value) for name, value in values.items()}


def at_best(state: TrainState, best: Best) -> TrainState:
    """A run as far as acting goes: parameters, and the steps that exploration depends on."""
    changes: dict[str, Any] = {
        "learner": dataclasses.replace(state.learner, params=best.params),
        "env_steps": np.int32(best.env_steps),
    }
    return dataclasses.replace(state, **changes)

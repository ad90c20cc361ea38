"""A handle on a run directory: its settings, what it has logged, and what its checkpoints hold."""

from __future__ import annotations

import dataclasses
import operator
import pathlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, SupportsIndex, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.run import BEST, EVALUATION, LATEST, build, folder, metrics, reader
from jaxshare.run.checkpoint.checkpoints import Checkpoints
from jaxshare.run.checkpoint.contents import Best, Restored, Wanted
from jaxshare.run.versions import read_versions
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
    """A handle on a run directory; nothing is read, compiled or restored before it is asked for.

    checkpoint: LATEST, BEST (each run's parameters at its best evaluation) or an iteration.
    permission: what the caller says of code that the directory names; see `jaxshare.trust`. With
    it the settings are read at once; without it, when they are asked for, and no such code may run.
    suitable: raises RefusedError for runs that the caller has no use for; needs `permission`.
    Raises RefusedError if it is no run directory, names code without permission, or `checkpoint`
    is none of these.
    """
    run = SavedRun(pathlib.Path(run_dir), _checkpoint(checkpoint))
    folder.check_is_run(run.run_dir)
    if permission is None:
        return run
    return run.with_settings(run_settings(run.run_dir, permission, suitable))


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
    checkpoint: int | str = LATEST
    chosen: Settings | None = None  # instead of those that config.yaml has

    def with_settings(self, settings: Settings) -> SavedRun:
        """The same directory with other settings of what is played, such as eval.episodes."""
        return SavedRun(self.run_dir, self.checkpoint, settings)

    @cached_property
    def settings(self) -> Settings:
        """Those from which the run can be built. Raises RefusedError if it names foreign code."""
        return self.chosen or run_settings(self.run_dir, Permission())

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

    # ---------------------------------------------------------------------------- what is written
    # Nothing here runs code that the directory names, or needs a checkpoint.

    @cached_property
    def config(self) -> dict[str, Any]:
        """The plain settings, as config.yaml has them. Raises RefusedError if it is damaged."""
        return folder.read_config(self.run_dir)

    def completed_config(self) -> dict[str, Any]:
        """The plain settings; what did not exist when they were written has today's default.

        For comparing, not for building. Raises RefusedError for settings of another version, and of
        entries from outside that are not imported.
        """
        return folder.plain(folder.read_settings(self.run_dir))

    @cached_property
    def versions(self) -> dict[str, str]:
        """The version of each package that it was made with; {} if they were not written."""
        return read_versions(self.run_dir)

    def records(self, counters: tuple[str, ...] = ("seed",)) -> list[dict[str, Any]]:
        """All rows of its log, as they are now; see `jaxshare.run.metrics.records`."""
        return metrics.records(self.run_dir, counters)

    @cached_property
    def evaluation(self) -> dict[str, Any] | None:
        """What jaxshare.evaluate has played, if it has. Raises RefusedError if that is damaged."""
        path = self.run_dir / EVALUATION
        if not path.is_file():
            return None
        command = f"python -m jaxshare.evaluate run_dir={self.run_dir}"
        remedy = f"Make it anew with {command}, or delete it."
        return reader.read_json(path, reader.EVALUATION, remedy)

    # ------------------------------------------------------------------------------- checkpoints

    @cached_property
    def restored(self) -> Restored:
        """The checkpoint, without its replay.

        Raises RefusedError if there is none that is sound.
        """
        # the checkpoint that is named, or the newest one that can be read
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

        # its best parameters, if they are asked for
        if self.checkpoint == BEST and restored.best is None:
            remedy = "Train with checkpoint.best=true"
            raise RefusedError(f"checkpoint=best: run_dir={self.run_dir} holds none. {remedy}.")
        return restored

    def _missing(self, steps: list[int]) -> RefusedError:
        if not steps:
            remedy = "Train it first: it has one after a few seconds"
            return RefusedError(f"run_dir={self.run_dir} has no checkpoint. {remedy}.")
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
    learner = dataclasses.replace(state.learner, params=best.params)
    env_steps = cast(jax.Array, np.int32(best.env_steps))  # of numpy, as all of a restored state
    return dataclasses.replace(state, learner=learner, env_steps=env_steps)

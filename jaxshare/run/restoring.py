"""Checkpoints of a run directory, for commands that go on with its policies and not with the run."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.checkpoint import (
    Checkpoints,
    DamagedError,
    GoneError,
    Restored,
    Wanted,
    to_stderr,
)
from jaxshare.config import Settings
from jaxshare.evaluation import BEST
from jaxshare.types import RefusedError

if TYPE_CHECKING:
    from jaxshare.runner import Program


def restore(
    run_dir: pathlib.Path, settings: Settings, program: Program, checkpoint: int | str | None = None
) -> Restored:
    """One checkpoint of a run directory, without its replay.

    checkpoint: its iteration; None for the newest sound one; BEST for the newest with each run's
    best parameters beside the last ones.
    Raises RefusedError if there is no such checkpoint.
    """
    wanted = dataclasses.replace(_wanted(settings, program), best=checkpoint == BEST)
    with closing(Checkpoints(run_dir, read_only=True, spec=program.env.spec)) as checkpoints:
        restored = None
        if isinstance(checkpoint, int):
            if checkpoint in checkpoints.steps():
                restored = checkpoints.load(checkpoint, wanted)
        else:
            newest = checkpoints.newest(lambda step: checkpoints.load(step, wanted))
            restored = newest[1] if newest else None
        if restored is None:
            raise _missing(run_dir, checkpoint, checkpoints.steps())
    if checkpoint == BEST and restored.best is None:
        raise RefusedError(f"checkpoint=best: run_dir={run_dir} holds none. Train with checkpoint.best=true.")
    return restored


def steps(run_dir: pathlib.Path) -> list[int]:
    """The iterations of all checkpoints. Raises RefusedError if there is none."""
    with closing(Checkpoints(run_dir, read_only=True)) as checkpoints:
        iterations = checkpoints.steps()
    if not iterations:
        raise _missing(run_dir, None, [])
    return iterations


def restore_each(
    run_dir: pathlib.Path, settings: Settings, program: Program, steps: Sequence[int]
) -> Iterator[Restored | None]:
    """Some checkpoints of a run directory, without their replays; None for one that is damaged or gone.

    steps: their iterations.
    Raises RefusedError at the end if none could be read.
    """
    wanted = _wanted(settings, program)
    count = 0
    with closing(Checkpoints(run_dir, read_only=True, spec=program.env.spec)) as checkpoints:
        for step in steps:
            try:
                restored = checkpoints.load(step, wanted)
            except (DamagedError, GoneError) as error:
                to_stderr(f"checkpoint {step} is left out of the pools: {error}")
                yield None
                continue
            count += 1
            yield restored
    if not count:
        raise RefusedError(
            f"run_dir={run_dir}: none of its checkpoints can be read. Restore one from a copy, or train anew."
        )


def at_best(restored: Restored) -> Restored:
    """The runs with their best parameters, and the environment steps that exploration depends on."""
    assert restored.best is not None
    runs: list[Any] = []
    for state, best in zip(restored.runs, restored.best, strict=True):
        learner: Any = dataclasses.replace(state.learner, params=best.params)
        steps: Any = np.int32(best.env_steps)
        runs.append(dataclasses.replace(state, learner=learner, env_steps=steps))
    return dataclasses.replace(restored, runs=runs)


def _wanted(settings: Settings, program: Program) -> Wanted:
    shapes = jax.eval_shape(program.init, jnp.int32(0)).replace(replay=None)
    return Wanted(shapes, len(settings.runs()))


def _missing(run_dir: pathlib.Path, checkpoint: int | str | None, steps: list[int]) -> RefusedError:
    if not steps:
        return RefusedError(f"run_dir={run_dir} has no checkpoint. Train it first: it has one after a few seconds.")
    available = ", ".join(map(str, steps))
    return RefusedError(f"run_dir={run_dir} has no checkpoint {checkpoint}; it has: {available}.")

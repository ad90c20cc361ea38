"""The checkpoints of a run: which one it begins with, when one is due, and what is in it."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare import __version__
from jaxshare.run import metrics as log
from jaxshare.run import reader
from jaxshare.run.checkpoint import contents
from jaxshare.run.checkpoint.checkpoints import Checkpoints
from jaxshare.run.checkpoint.contents import Best, Restored, Wanted
from jaxshare.run.fleet import Counters, Fleet
from jaxshare.run.shared_fleet import SharedFleet
from jaxshare.run.warm_start import Start
from jaxshare.run.watch import is_finite
from jaxshare.settings.records import Settings
from jaxshare.training.program import Program
from jaxshare.types import Clock, RefusedError, TrainState

if TYPE_CHECKING:
    from jaxshare.run.training import Training


@dataclass
class Beginning:
    """What a run goes on from; of a new run the defaults."""

    restored: Restored | None = None  # taken once, by `take_states`
    exact: bool = True  # whether the replay is there, too
    wall_s: float = 0.0  # spent so far
    planned: int = 0  # total_env_steps when the checkpoint was written
    evaluated: np.ndarray = field(default_factory=lambda: np.array([], int))  # [R], -1: never
    best: list[Best | None] = field(default_factory=list)  # [R]
    num_bytes: int = 0  # of metrics.jsonl
    # the folder of the replays, and the slots in it, where several processes read them
    rings: tuple[str, int] | None = None

    @property
    def fresh(self) -> bool:
        """Whether it is a new run."""
        return self.restored is None

    def take_states(self) -> tuple[Clock, list[TrainState]]:
        """The clock and every run's state; what was read is let go of, which frees its replays."""
        assert self.restored is not None
        restored = self.restored
        self.restored = Restored(restored.step, restored.meta, restored.clock, [])
        return restored.clock, restored.runs


class Saver:
    """Reads the checkpoint that a run goes on from, and writes those that are due."""

    def __init__(self, run_dir: pathlib.Path, settings: Settings, program: Program) -> None:
        self._run_dir = run_dir
        self._settings = settings
        self._program = program
        self._saved_at = time.monotonic()
        self.checkpoints = Checkpoints(run_dir, settings.run.checkpoint.keep, spec=program.env.spec)

    @property
    def newest(self) -> pathlib.Path:
        """The folder of the newest checkpoint."""
        return self.checkpoints.folder / str(self.checkpoints.latest())

    # ---------------------------------------------------------------------------------- reading

    def beginning(self, resuming: bool) -> Beginning:
        """What the run goes on from. Raises RefusedError if no checkpoint can be read."""
        labels = self._settings.labels()
        evaluated = np.full(len(labels), -1)  # no run yet
        begin = Beginning(
            planned=self._settings.run.total_env_steps,
            evaluated=evaluated,
            best=[None] * len(labels),
        )
        if not resuming:
            return begin

        # the newest sound checkpoint
        newest = self.checkpoints.newest(self._load)
        if newest is None:
            raise RefusedError(
                f"run_dir={self._run_dir} holds metrics but no complete checkpoint to go on from: "
                "choose another run_dir, or delete this one."
            )
        begin.restored = newest[1]
        self._read_meta(begin, begin.restored)
        return begin

    def _load(self, step: int) -> Restored:
        shapes = jax.eval_shape(self._program.init, jnp.int32(0))
        num_runs = len(self._settings.runs())
        best = self._settings.run.checkpoint.best
        apart = self._settings.run.parallel.processes > 1 and shapes.replay is not None
        wanted = Wanted(shapes, num_runs, replay=True, best=best, replay_apart=apart)
        return self.checkpoints.load(step, wanted)

    def _read_meta(self, begin: Beginning, restored: Restored) -> None:
        """What a checkpoint says of itself, checked."""
        num_runs = len(self._settings.runs())
        where = self.checkpoints.folder / str(restored.step)
        kind = reader.checkpoint_meta(num_runs)
        meta = reader.checked(restored.meta, kind, where, "Restore it from a copy, or start anew.")
        has_replay = self._program.algorithm.experience == "replay"
        if has_replay and meta.get("replay", True):
            folder = self.checkpoints.rings(restored.step).resolve()
            begin.rings = (str(folder), int(meta["filled"]))
        begin.exact = bool(meta.get("replay", True)) or not has_replay
        begin.wall_s = float(meta.get("wall_s", begin.wall_s))
        begin.planned = int(meta.get("total_env_steps", begin.planned))
        begin.evaluated = np.array(meta.get("evaluated", begin.evaluated), int)
        begin.best = [*restored.best] if restored.best else begin.best
        begin.num_bytes = int(meta.get("metrics_bytes", 0))

    def cut_back_log(self, begin: Beginning) -> list[str]:
        """Leave in metrics.jsonl what was there at the checkpoint; remarks for the person."""
        log.refuse_link(self._run_dir / log.METRICS)
        if begin.restored is None:
            return []

        # how far the runs of the checkpoint are
        states = begin.restored.runs
        offline = self._program.offline
        progress = [int(state.updates if offline else state.env_steps) for state in states]
        evaluated = begin.restored.meta.get("evaluated", progress)
        env_steps = [int(state.env_steps) for state in states]
        updates = [int(state.updates) for state in states]
        reached = log.Reached(
            labels=self._settings.labels(),
            env_steps=env_steps,
            updates=updates,
            evaluated=evaluated,
            offline=offline,
            num_bytes=begin.num_bytes,
        )
        return log.cut_back(self._run_dir, reached)

    # ---------------------------------------------------------------------------------- writing

    def due(self, before: Counters, after: Counters) -> bool:
        """Whether a checkpoint is due, by the progress of the slowest run or by the clock."""
        every = self._settings.run.checkpoint.every
        minutes = self._settings.run.checkpoint.minutes
        if minutes > 0 and time.monotonic() - self._saved_at >= 60 * minutes:
            return True
        if every == 0:
            return False
        return int(after.progress.min()) // every > int(before.progress.min()) // every

    def save(self, training: Training) -> bool:
        """Write a checkpoint, unless the newest one is of this very iteration: whether it did."""
        is_new = self.checkpoints.latest() != int(training.fleet.clock.iteration)
        if is_new:
            self._write(training)
        self._saved_at = time.monotonic()
        return is_new

    def _write(self, training: Training) -> None:
        fleet = training.fleet
        run = self._settings.run
        meta: dict[str, Any] = {
            "wall_s": training.elapsed,
            "metrics_bytes": training.log.file.sync(),
            "version": __version__,
            "labels": training.labels,
            "env_steps": fleet.env_steps.tolist(),
            "evaluated": training.evaluate.evaluated.tolist(),
            "total_env_steps": run.total_env_steps,
        }
        filled = (
            min(int(fleet.clock.stored), run.replay.capacity) if run.checkpoint.replay else None
        )
        states = fleet.unstacked(filled)

        # a loss and a gradient can be finite while the step they lead to is not
        for label, state in zip(training.labels, states, strict=True):
            if not training.lets_diverge and not is_finite(state.learner.params):
                what = f"a parameter became not finite at update {int(state.updates)}"
                raise training.not_finite(what, label)

        best = [each for each in training.keep_best.best if each is not None]
        complete = len(best) == len(training.labels)

        # several processes write their replays together
        write_rings = None
        if isinstance(fleet, SharedFleet) and states[0].replay is not None:
            write_rings = partial(fleet.write_rings, slots=contents.num_slots(states[0]))
        self.checkpoints.save(fleet.clock, states, meta, best if complete else None, write_rings)


def fill(fleet: Fleet, begin: Beginning, start: Start | None, interrupted: Sequence[int]) -> str:
    """Give the runs their states, new ones or the checkpoint's; a remark for the person, or "".

    start: parameters that new runs begin with. interrupted: see `Fleet.prefill`.
    Raises HostError; RefusedError for numbers that replay.dtype cannot keep.
    """
    # a new run
    if begin.fresh:
        fleet.init()
        if start is not None:
            fleet.replace_params(start.params, start.target_params)
        fleet.prefill(interrupted)
        return ""

    # one that goes on
    rings = begin.rings
    clock, states = begin.take_states()
    if begin.exact:
        fleet.place(clock, states)
        if rings and isinstance(fleet, SharedFleet):
            fleet.read_rings(*rings)
        return ""
    fleet.place(clock._replace(stored=clock.stored * 0), states)
    fleet.prefill(interrupted)
    return "the checkpoint holds no replay: it is filled anew, and the run goes on inexactly."

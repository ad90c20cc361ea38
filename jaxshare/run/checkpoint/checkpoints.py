"""Checkpoints by orbax, of everything that a run needs to go on to the same bits.

Only this file, `reading` and `shared_rings` know orbax.

Parts of a checkpoint, each a folder in it: `learner` (clock, and for each run seed, learner and
env_steps), `replay` (the filled slots of each run's ring; may be left out, and evaluation never
reads it), `best` (parameters of each run's best evaluation; if they are asked for) and `meta` (what
the checkpoint belongs to). Arrays are saved per run and un-batched, so the number of devices may
change between save and restore. Beside them stand the checksums of all their files.
"""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

from jaxshare.run.checkpoint import checksums, contents, errors
from jaxshare.run.checkpoint.contents import RUNS, Best, Restored, Wanted
from jaxshare.run.checkpoint.errors import DamagedError, GoneError, to_stderr
from jaxshare.run.checkpoint.reading import read_part, reading, shape_of, tree_of
from jaxshare.run.checkpoint.step_folders import FOLDER, StepFolders, plain_path
from jaxshare.types import Clock, EnvSpec, TrainState

FORMAT = "jaxshare-2"
WITHOUT_CHECKSUMS = "jaxshare-1"  # of checkpoints from before there were any
META = "metadata"  # the file in the part `meta`
REPLAY = "replay"  # a part
TRIES = 20  # at a checkpoint that a run does not remove while it is read

T = TypeVar("T")


class Checkpoints:
    """The checkpoints of one run directory, by iteration.

    keep: how many stay; spec: the environment now, to tell why a checkpoint does not fit it.
    """

    def __init__(
        self,
        run_dir: pathlib.Path,
        keep: int = 2,
        read_only: bool = False,
        spec: EnvSpec | None = None,
    ) -> None:
        errors.silence_orbax()
        self.folder = run_dir / FOLDER
        self._run_dir = run_dir
        self._read_only = read_only
        self._facts = contents.facts(spec) if spec else {}
        self._folders = StepFolders(self.folder, keep)
        options = ocp.options.MultiprocessingOptions()
        if jax.distributed.is_initialized():
            # the first process alone reads and writes: orbax would wait for the others
            options = ocp.options.MultiprocessingOptions(
                primary_host=0, active_processes={0}, barrier_sync_key_prefix="jaxshare"
            )
        handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=options)
        self._orbax = ocp.Checkpointer(handler, multiprocessing_options=options)

    def latest(self) -> int | None:
        """The newest complete checkpoint's iteration, or None; never one that was found damaged."""
        return max(self._folders.sound(), default=None)

    def steps(self) -> list[int]:
        """All complete checkpoints' iterations."""
        return self._folders.steps()

    def rings(self, step: int) -> pathlib.Path:
        """The folder of the replays of a checkpoint that has any."""
        return self._folders.path(step) / REPLAY

    def close(self) -> None:
        """Release what orbax holds."""
        self._orbax.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *raised: type | BaseException | TracebackType | None) -> None:
        self.close()

    # ------------------------------------------------------------------------------------ writing

    def save(
        self,
        clock: Clock,
        runs: list[TrainState],
        meta: dict[str, Any],
        best: list[Best] | None = None,
        write_rings: Callable[[str], None] | None = None,
    ) -> None:
        """Write one checkpoint; a run's replay is its filled slots, or None to leave it out.

        write_rings: writes the replays into a folder, where several processes do that together.
        It is on the disk when this returns, and older ones are removed only then. Raises
        RefusedError when it cannot be written; the earlier ones stay.
        """
        if self._read_only:
            raise RuntimeError("these checkpoints were opened for reading")
        with_replay = runs[0].replay is not None
        scores = [{"env_steps": b.env_steps, "score": b.score} for b in best or []]
        about = {
            **meta,
            "format": FORMAT,
            "filled": contents.num_slots(runs[0]) if with_replay else 0,
            "replay": with_replay,
            "best": scores,
            "env": self._facts,
        }
        trees = {"learner": contents.learner_tree(clock, runs)}
        if best:
            trees["best"] = {RUNS: [b.params for b in best]}
        if with_replay and write_rings is None:
            trees[REPLAY] = contents.replay_tree(runs)

        step = int(clock.iteration)
        try:
            try:
                self._write(step, trees, about, write_rings)
            except (OSError, ValueError, RuntimeError):
                if self.folder.is_dir():
                    raise
                self._write(
                    step, trees, about, write_rings
                )  # somebody deleted the folder: what to save is here
        except (OSError, ValueError, RuntimeError) as error:
            self._folders.sweep()
            raise errors.unwritten(self._folders, self._run_dir, error) from error

    def _write(
        self,
        step: int,
        trees: dict[str, Any],
        about: dict[str, Any],
        write_rings: Callable[[str], None] | None,
    ) -> None:
        new = self._folders.begin(step)
        try:
            with plain_path(new) as folder:
                for part, tree in trees.items():
                    self._orbax.save(folder / part, args=ocp.args.PyTreeSave(tree))
            if write_rings:
                write_rings(str((new / REPLAY).resolve()))
            (new / "meta").mkdir()
            (new / "meta" / META).write_text(json.dumps(about), encoding="utf-8")
            checksums.write(new)
            self._folders.finish(step, new)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise

    # ------------------------------------------------------------------------------------ reading

    def newest(
        self, read: Callable[[int], T], warn: Callable[[str], None] = to_stderr
    ) -> tuple[int, T] | None:
        """(iteration, what `read` makes of it) of the newest checkpoint that is sound, or None.

        Damaged ones are told by `warn` and passed over, as are those that a run removes meanwhile.
        Raises RefusedError if there are only damaged ones, and whatever else `read` raises.
        """
        reasons: dict[int, str] = {}  # why damaged ones are, by iteration
        for _ in range(TRIES):
            steps = set(self.steps()) - reasons.keys()
            if not steps:
                break
            step = max(steps)
            try:
                result = read(step)
            except DamagedError as error:
                reasons[step] = error.reason
            except GoneError:
                continue
            else:
                self._folders.damaged |= reasons.keys()
                for old, reason in reasons.items():
                    warn(
                        f"checkpoint {self._folders.path(old)} is damaged ({reason}): checkpoint "
                        f"{self._folders.path(step)}, the one before, is used instead."
                    )
                return step, result
        if not reasons and not self.steps():
            return None
        raise errors.none_sound(self._folders, self._run_dir, reasons)

    def load(self, step: int, wanted: Wanted) -> Restored:
        """One checkpoint. Raises DamagedError, GoneError, or RefusedError if it does not fit."""
        meta = self.meta(step)
        shapes = wanted.shapes
        if wanted.replay_apart:
            self._check_rings(step, meta, wanted)
            shapes = shapes.replace(replay=None)
        with_replay = wanted.replay and not wanted.replay_apart
        clock, runs = self.restore(step, shapes, wanted.num_runs, with_replay)
        best = self.best(step, shapes, wanted.num_runs) if wanted.best else None
        return Restored(step, meta, clock, runs, best)

    def meta(self, step: int) -> dict[str, Any]:
        """What a checkpoint says of itself. Raises as `load`."""
        folder = self._folders.path(step)
        with reading(self._folders, step):
            has_list = checksums.check(folder, ["meta"])
            checksums.check_sizes(folder)
            meta = json.loads((folder / "meta" / META).read_text(encoding="utf-8"))
            written = meta["format"]
            if written not in (FORMAT, WITHOUT_CHECKSUMS):
                raise ValueError(f"its format is {written}, not {FORMAT}")
            if written == FORMAT and not has_list:
                raise ValueError(f"{checksums.NAME} is missing")
        return meta

    def restore(
        self, step: int, shapes: TrainState, num_runs: int, with_replay: bool
    ) -> tuple[Clock, list[TrainState]]:
        """Clock and runs of a checkpoint, as numpy arrays.

        shapes: one run as ShapeDtypeStructs.
        Without its replay a run comes back with an empty ring. Raises as `load`.
        """
        meta = self.meta(step)
        want = {"learner": contents.learner_shapes(shapes, num_runs)}
        with reading(self._folders, step):
            with_replay = with_replay and meta["replay"]
            if with_replay:
                want[REPLAY] = contents.replay_shapes(shapes, num_runs, meta["filled"])
        trees = self._read(step, meta, want)
        with reading(self._folders, step):
            clock = Clock(**trees["learner"]["clock"])
            rings = trees[REPLAY][RUNS] if with_replay else [None] * num_runs
            runs = zip(trees["learner"][RUNS], rings, strict=True)
            return clock, [contents.assemble(run, ring, shapes) for run, ring in runs]

    def _check_rings(self, step: int, meta: dict[str, Any], wanted: Wanted) -> None:
        """Whether the replays are sound and fit, which several processes read for themselves."""
        if not meta["replay"]:
            return
        with reading(self._folders, step):
            shapes = contents.replay_shapes(wanted.shapes, wanted.num_runs, meta["filled"])
        self._check(step, meta, {REPLAY: shapes})

    def best(self, step: int, shapes: TrainState, num_runs: int) -> list[Best] | None:
        """Each run at its best, or None if the checkpoint does not hold them. Raises as `load`."""
        meta = self.meta(step)
        scores = meta.get("best")
        if not scores:
            return None
        params = self._read(step, meta, {"best": {RUNS: [shapes.learner.params] * num_runs}})
        with reading(self._folders, step):
            pairs = zip(params["best"][RUNS], scores, strict=True)
            return [Best(each, **counts) for each, counts in pairs]

    def learners(self, step: int) -> list[dict[str, Any]]:
        """What is stored of each run, as it stands: "params", "target_params", ….

        Whatever its shapes are. Raises as `load`.
        """
        self.meta(step)
        path = self._folders.path(step)
        with reading(self._folders, step), plain_path(path) as folder:
            checksums.check(path, ["learner"])
            stored = tree_of(self._orbax.metadata(folder / "learner"))
            shapes = jax.tree.map(shape_of, stored)
            return list(read_part(self._orbax, folder / "learner", shapes)[RUNS])

    def _read(self, step: int, meta: dict[str, Any], want: dict[str, Any]) -> dict[str, Any]:
        """{part: its tree}, once all files are known to be sound and all shapes to fit."""
        self._check(step, meta, want)
        path = self._folders.path(step)
        with reading(self._folders, step), plain_path(path) as folder:
            return {
                part: read_part(self._orbax, folder / part, tree) for part, tree in want.items()
            }

    def _check(self, step: int, meta: dict[str, Any], want: dict[str, Any]) -> None:
        """Whether the files of parts are sound, and their shapes as wanted."""
        path = self._folders.path(step)
        with reading(self._folders, step), plain_path(path) as folder:
            checksums.check(path, want.keys())
            for part, shapes in want.items():
                stored = self._orbax.metadata(folder / part)
                difference = contents.misfit(tree_of(stored), shapes)
                if difference:
                    changes = contents.changes(meta.get("env") or {}, self._facts)
                    where = f"{part}: {difference}"
                    raise errors.misfit(self._run_dir, path, where, changes)

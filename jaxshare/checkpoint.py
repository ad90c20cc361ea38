"""Checkpoints by orbax: everything a run needs to go on to the same bits. The only file that knows orbax.

Parts of a checkpoint, each a folder in it: `learner` (clock, and for each run seed, learner and
env_steps), `replay` (the filled slots of each run's ring; may be left out, and evaluation never
reads it), `best` (parameters of each run's best evaluation; if they are asked for) and `meta` (what
the checkpoint belongs to). Arrays are saved per run and un-batched, so the number of devices may
change between save and restore. Beside them stand the checksums of all their files.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxshare import _checksums, _stored
from jaxshare._step_folders import UNFINISHED, StepFolders, plain_path
from jaxshare.types import Clock, EnvSpec, RefusedError, TrainState

__all__ = ["FOLDER", "UNFINISHED", "Best", "Checkpoints", "DamagedError", "GoneError", "Restored", "Wanted"]

FORMAT = "jaxshare-2"
WITHOUT_CHECKSUMS = "jaxshare-1"  # of checkpoints from before there were any
FOLDER = "checkpoints"
META = "metadata"  # the file in the part `meta`
TRIES = 20  # at a checkpoint that a run does not remove while it is read
# what a broken file or disk says; anything else says that the file could not be reached
OF_DAMAGE = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO)

T = TypeVar("T")


class DamagedError(RefusedError):
    """A checkpoint's files are not what was written; `reason` says which."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class GoneError(RefusedError):
    """A checkpoint was removed while it was read: the run that writes them keeps the newest only."""


@dataclass(frozen=True)
class Best:
    """A run at its best evaluation so far."""

    params: dict[str, Any]  # LearnerState.params, as numpy arrays
    env_steps: int
    score: float  # mean return of the evaluation


@dataclass(frozen=True)
class Wanted:
    """What to read of a checkpoint."""

    shapes: TrainState  # one run as ShapeDtypeStructs
    num_runs: int
    replay: bool = False
    best: bool = False


@dataclass(frozen=True)
class Restored:
    """What was read of a checkpoint, as numpy arrays."""

    step: int
    meta: dict[str, Any]
    clock: Clock
    runs: list[TrainState]
    best: list[Best] | None = None  # None also if the checkpoint does not hold them


def to_stderr(text: str) -> None:
    """Tell the person at the command line what is not an error."""
    print(f"warning: {text}", file=sys.stderr)


class Checkpoints:
    """The checkpoints of one run directory, by iteration.

    keep: how many stay.
    read_only: never write.
    spec: the environment as it is now; what a checkpoint stores of it explains why one does not fit.
    """

    def __init__(
        self, run_dir: pathlib.Path, keep: int = 2, read_only: bool = False, spec: EnvSpec | None = None
    ) -> None:
        # whatever orbax reports of a save that failed also reaches us as an exception
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        self.folder = run_dir / FOLDER
        self._run_dir = run_dir
        self._read_only = read_only
        self._facts = _stored.facts(spec) if spec else {}
        self._folders = StepFolders(self.folder, keep)
        self._orbax = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())

    def latest(self) -> int | None:
        """The newest complete checkpoint's iteration, or None; never one that was found damaged."""
        return max(self._folders.sound(), default=None)

    def steps(self) -> list[int]:
        """All complete checkpoints' iterations."""
        return self._folders.steps()

    def close(self) -> None:
        """Release what orbax holds."""
        self._orbax.close()

    # ------------------------------------------------------------------------------------ writing

    def save(
        self, clock: Clock, runs: list[TrainState], meta: dict[str, Any], best: list[Best] | None = None
    ) -> None:
        """Write one checkpoint; a run's replay is its filled slots, or None to leave it out.

        It is on the disk when this returns, and older ones are removed only then. Raises
        RefusedError when it cannot be written; the earlier ones stay.
        """
        assert not self._read_only
        with_replay = runs[0].replay is not None
        scores = [{"env_steps": b.env_steps, "score": b.score} for b in best or []]
        about = {
            **meta,
            "format": FORMAT,
            "filled": _stored.num_slots(runs[0]) if with_replay else 0,
            "replay": with_replay,
            "best": scores,
            "env": self._facts,
        }
        trees = {"learner": _stored.learner_tree(clock, runs)}
        if best:
            trees["best"] = {"runs": [b.params for b in best]}
        if with_replay:
            trees["replay"] = _stored.replay_tree(runs)

        step = int(clock.iteration)
        try:
            try:
                self._write(step, trees, about)
            except (OSError, ValueError, RuntimeError):
                if self.folder.is_dir():
                    raise
                self._write(step, trees, about)  # somebody deleted the folder: what to save is here
        except (OSError, ValueError, RuntimeError) as error:
            self._folders.sweep()
            raise self._unwritten(error) from error

    def _write(self, step: int, trees: dict[str, Any], about: dict[str, Any]) -> None:
        new = self._folders.begin(step)
        try:
            with plain_path(new) as folder:
                for part, tree in trees.items():
                    self._orbax.save(folder / part, args=ocp.args.PyTreeSave(tree))
            (new / "meta").mkdir()
            (new / "meta" / META).write_text(json.dumps(about), encoding="utf-8")
            _checksums.write(new)
            self._folders.finish(step, new)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise

    def _unwritten(self, error: Exception) -> RefusedError:
        code = _errno(error)
        remedy = "Put right what is wrong there"
        if code in (errno.ENOSPC, errno.EDQUOT):
            remedy = "Free some space (or set checkpoint.replay=false)"
        elif code in (errno.EACCES, errno.EPERM, errno.EROFS):
            remedy = "Make the folder writable"
        then = (
            f"and go on with run_dir={self._run_dir} resume=auto: the earlier checkpoints are kept."
            if self.steps()
            else "and start again: there is no earlier checkpoint."
        )
        return RefusedError(
            f"run_dir: a checkpoint could not be written to {self.folder} ({_reason(error)}). {remedy}, {then}"
        )

    # ------------------------------------------------------------------------------------ reading

    def newest(
        self, read: Callable[[int], T], warn: Callable[[str], None] = to_stderr
    ) -> tuple[int, T] | None:
        """(iteration, what `read` makes of it) of the newest checkpoint that is sound, or None.

        Damaged ones are told by `warn` and passed over, as are those that a run removes meanwhile.
        Raises RefusedError if there are only damaged ones, and whatever else `read` raises.
        """
        reasons: dict[int, str] = {}
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
        if not reasons:
            raise RefusedError(
                f"run_dir={self._run_dir}: its checkpoints are removed faster than they can be read, by "
                "the run that writes them. Wait for its end, or give it a larger checkpoint.every."
            )
        what = "; ".join(f"{step}: {reason}" for step, reason in reasons.items())
        raise RefusedError(
            f"run_dir: no checkpoint in {self.folder} is sound ({what}). Nothing was changed; restore "
            "one from a copy, or start anew in another run_dir."
        )

    def load(self, step: int, wanted: Wanted) -> Restored:
        """One checkpoint. Raises DamagedError, GoneError, or RefusedError for one that does not fit."""
        meta = self.meta(step)
        clock, runs = self.restore(step, wanted.shapes, wanted.num_runs, wanted.replay)
        best = self.best(step, wanted.shapes, wanted.num_runs) if wanted.best else None
        return Restored(step, meta, clock, runs, best)

    def meta(self, step: int) -> dict[str, Any]:
        """What a checkpoint says of itself. Raises as `load`."""
        folder = self._folders.path(step)
        with self._reading(step):
            has_list = _checksums.check(folder, ["meta"])
            _checksums.check_sizes(folder)
            meta = json.loads((folder / "meta" / META).read_text(encoding="utf-8"))
            written = meta["format"]
            if written not in (FORMAT, WITHOUT_CHECKSUMS):
                raise ValueError(f"its format is {written}, not {FORMAT}")
            if written == FORMAT and not has_list:
                raise ValueError(f"{_checksums.NAME} is missing")
        return meta

    def restore(
        self, step: int, shapes: TrainState, num_runs: int, with_replay: bool
    ) -> tuple[Clock, list[TrainState]]:
        """Clock and runs of a checkpoint, as numpy arrays. `shapes` is one run as ShapeDtypeStructs.

        Without its replay a run comes back with an empty ring. Raises as `load`.
        """
        meta = self.meta(step)
        want = {"learner": _stored.learner_shapes(shapes, num_runs)}
        with self._reading(step):
            with_replay = with_replay and meta["replay"]
            if with_replay:
                want["replay"] = _stored.replay_shapes(shapes, num_runs, meta["filled"])
        trees = self._read(step, meta, want)
        with self._reading(step):
            clock = Clock(**trees["learner"]["clock"])
            rings = trees["replay"]["runs"] if with_replay else [None] * num_runs
            runs = zip(trees["learner"]["runs"], rings, strict=True)
            return clock, [_stored.assemble(run, ring, shapes) for run, ring in runs]

    def best(self, step: int, shapes: TrainState, num_runs: int) -> list[Best] | None:
        """Each run at its best, or None if the checkpoint does not hold them. Raises as `load`."""
        meta = self.meta(step)
        scores = meta.get("best")
        if not scores:
            return None
        params = self._read(step, meta, {"best": {"runs": [shapes.learner.params] * num_runs}})
        with self._reading(step):
            pairs = zip(params["best"]["runs"], scores, strict=True)
            return [Best(each, **counts) for each, counts in pairs]

    def _read(self, step: int, meta: dict[str, Any], want: dict[str, Any]) -> dict[str, Any]:
        """{part: its tree}, once all files are known to be sound and all shapes to fit."""
        path = self._folders.path(step)
        with self._reading(step), plain_path(path) as folder:
            _checksums.check(path, want.keys())
            for part, shapes in want.items():
                stored = self._orbax.metadata(folder / part)
                difference = _stored.misfit(_tree_of(stored), shapes)
                if difference:
                    self._refuse_misfit(step, meta, f"{part}: {difference}")
            return {part: self._read_part(folder / part, tree) for part, tree in want.items()}

    def _read_part(self, folder: pathlib.Path, shapes: Any) -> Any:
        restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
        args = ocp.args.PyTreeRestore(item=shapes, restore_args=restore_args)
        return self._orbax.restore(folder, args=args)

    def _refuse_misfit(self, step: int, meta: dict[str, Any], difference: str) -> NoReturn:
        """Raise RefusedError for a sound checkpoint of something else."""
        changes = _stored.changes(meta.get("env") or {}, self._facts)
        if changes:
            raise RefusedError(
                f"run_dir={self._run_dir}: the environment {changes}. Use the environment as it was "
                "then, or train anew in another run_dir."
            )
        raise RefusedError(
            f"run_dir: checkpoint {self._folders.path(step)} belongs to another network or environment "
            f"({difference}). Use the configuration and the environment that it was trained with, or "
            "train anew in another run_dir."
        )

    @contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        """Turn what goes wrong with a checkpoint's files into an error that says whose fault it is."""
        path = self._folders.path(step)
        try:
            yield
        except RefusedError:
            raise
        except Exception as error:
            if not path.is_dir():
                others = ", ".join(map(str, self.steps())) or "none"
                raise GoneError(
                    f"run_dir={self._run_dir} has no checkpoint {step} any more: the run that writes "
                    f"them keeps the newest only. It has: {others}."
                ) from error
            if isinstance(error, MemoryError) or _errno(error) not in OF_DAMAGE:
                raise RefusedError(
                    f"run_dir: checkpoint {path} cannot be read ({_reason(error)}); nothing was changed."
                ) from error
            others = ", ".join(str(s) for s in self.steps() if s != step)
            remedy = f"There are others ({others})" if others else "Restore it from a copy"
            reason = _reason(error)
            raise DamagedError(
                f"run_dir: checkpoint {path} is damaged ({reason}). Nothing was changed. {remedy}.", reason
            ) from error


def _tree_of(metadata: Any) -> Any:
    """The tree of arrays in what orbax tells of a folder."""
    found = getattr(metadata, "item_metadata", metadata)
    return getattr(found, "tree", found)


def _errno(error: Exception) -> int | None:
    """The number of the operating system's error behind an exception, or None."""
    if isinstance(error, OSError):
        return error.errno
    code = re.search(r"os_error_code='(\d+)'", str(error))  # as tensorstore tells it
    return int(code[1]) if code else None


def _reason(error: Exception) -> str:
    """Why, in one line."""
    code = _errno(error)
    if code is not None and not isinstance(error, FileNotFoundError):
        return os.strerror(code)
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

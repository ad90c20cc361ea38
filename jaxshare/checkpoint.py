"""Checkpoints by orbax: everything a run needs to go on to the same bits. The only file that knows orbax.

Items of a checkpoint: `learner` (clock, and for each run seed, learner and env_steps), `replay` (the filled slots of
each run's ring; may be left out, and evaluation never reads it), `best` (parameters of each run's best evaluation; if
they are asked for) and `meta` (what the folder belongs to). Arrays are saved per run and un-batched, so the number of
devices may change between save and restore.
"""

from __future__ import annotations

import logging
import pathlib
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jaxshare.types import Clock, RefusedError, TrainState

FORMAT = "jaxshare-1"
FOLDER = "checkpoints"
UNFINISHED = ".orbax-checkpoint-tmp"  # in the name of a checkpoint that is being written, or was when a kill came


@dataclass(frozen=True)
class Best:
    """A run at its best evaluation so far."""

    params: dict[str, Any]  # LearnerState.params, as numpy arrays
    env_steps: int
    score: float  # mean return of the evaluation


class Checkpoints:
    """The checkpoints of one run directory, by iteration."""

    def __init__(self, run_dir: pathlib.Path, keep: int = 2, read_only: bool = False) -> None:
        logging.getLogger("absl").setLevel(logging.ERROR)  # orbax reports every save at INFO and WARNING
        self.folder = run_dir / FOLDER
        options = ocp.CheckpointManagerOptions(
            max_to_keep=None if read_only else keep,
            enable_async_checkpointing=False,
            read_only=read_only,
            create=not read_only,
        )
        self._manager = ocp.CheckpointManager(self.folder.absolute(), options=options)

    def latest(self) -> int | None:
        """The newest complete checkpoint's iteration, or None."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """All complete checkpoints' iterations."""
        return sorted(self._manager.all_steps())

    def save(self, clock: Clock, runs: list[TrainState], meta: dict[str, Any], best: list[Best] | None = None) -> None:
        """Write one checkpoint; a run's replay is its filled slots, or None to leave it out.

        Raises RefusedError when it cannot be written; the earlier ones stay.
        """
        with_replay = runs[0].replay is not None
        filled = _slots(runs[0]) if with_replay else 0
        learner = {"clock": _numpy(clock._asdict()), "runs": [_numpy(_without_replay(run)) for run in runs]}
        kept = [{"env_steps": b.env_steps, "score": b.score} for b in best or []]
        items: dict[str, Any] = {
            "learner": ocp.args.PyTreeSave(learner),
            "meta": ocp.args.JsonSave(
                {**meta, "format": FORMAT, "filled": filled, "replay": with_replay, "best": kept}
            ),
        }
        if best:
            items["best"] = ocp.args.PyTreeSave({"runs": [b.params for b in best]})
        if with_replay:
            items["replay"] = ocp.args.PyTreeSave({"runs": [jax.tree.map(_solid, _numpy(run.replay)) for run in runs]})
        try:
            self._manager.save(int(clock.iteration), args=ocp.args.Composite(**items), force=True)
        except (OSError, ValueError) as error:
            raise RefusedError(
                f"run_dir: a checkpoint could not be written to {self.folder} ({_first_line(error)}). The earlier "
                "checkpoints are kept: free some space (or set checkpoint.replay=false) and go on with resume=auto."
            ) from error

    def meta(self, step: int) -> dict[str, Any]:
        """What a checkpoint says of itself. Raises RefusedError if it is not one of ours or cannot be read."""
        try:
            meta = dict(self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"])
        except Exception as error:
            raise self._unreadable(step, error) from error
        if meta.get("format") != FORMAT:
            raise self._unreadable(step, ValueError(f"its format is {meta.get('format')}, not {FORMAT}"))
        return meta

    def restore(
        self, step: int, shapes: TrainState, num_runs: int, with_replay: bool
    ) -> tuple[Clock, list[TrainState]]:
        """Clock and runs of a checkpoint, as numpy arrays. `shapes` is one run as ShapeDtypeStructs.

        Without its replay a run comes back with an empty ring. Raises RefusedError if the checkpoint cannot be read or
        belongs to another configuration.
        """
        meta = self.meta(step)
        want: dict[str, Any] = {
            "learner": {"clock": jax.eval_shape(_zero_clock), "runs": [_without_replay(shapes)] * num_runs}
        }
        with_replay = with_replay and meta["replay"]
        if with_replay:
            cut = jax.tree.map(lambda s: jax.ShapeDtypeStruct((meta["filled"], *s.shape[1:]), s.dtype), shapes.replay)
            want["replay"] = {"runs": [jax.tree.map(_solid, cut)] * num_runs}
        try:
            found = self._manager.restore(step, args=ocp.args.Composite(**{k: _request(v) for k, v in want.items()}))
            for item, shape in want.items():
                _check_shapes(found[item], shape)
        except Exception as error:
            raise self._unreadable(step, error) from error
        clock = Clock(**found["learner"]["clock"])
        rings = found["replay"]["runs"] if with_replay else [None] * num_runs
        runs = zip(found["learner"]["runs"], rings, strict=True)
        return clock, [_assemble(run, ring, shapes) for run, ring in runs]

    def best(self, step: int, shapes: TrainState, num_runs: int) -> list[Best] | None:
        """Each run at its best, or None if the checkpoint does not hold them. Raises RefusedError as `restore`."""
        kept = self.meta(step).get("best")
        if not kept:
            return None
        want = {"runs": [shapes.learner.params] * num_runs}
        try:
            found = self._manager.restore(step, args=ocp.args.Composite(best=_request(want)))["best"]
            _check_shapes(found, want)
            return [Best(params, **counts) for params, counts in zip(found["runs"], kept, strict=True)]
        except Exception as error:
            raise self._unreadable(step, error) from error

    def close(self) -> None:
        """Release the folder."""
        self._manager.close()

    def _unreadable(self, step: int, error: Exception) -> RefusedError:
        others = [s for s in self._manager.all_steps() if s != step]
        remedy = (
            f"delete {self.folder / str(step)} to go on from checkpoint {max(others)}"
            if others
            else "restore it from a copy, or start anew in another run_dir"
        )
        return RefusedError(
            f"run_dir: checkpoint {self.folder / str(step)} is damaged or belongs to something else "
            f"({_first_line(error)}). Nothing was changed; {remedy}."
        )


def _zero_clock() -> dict[str, Any]:
    return dict.fromkeys(Clock._fields, jnp.int32(0))


def _slots(run: TrainState) -> int:
    return jax.tree.leaves(run.replay)[0].shape[0]


def _without_replay(run: TrainState) -> dict[str, Any]:
    learner = run.learner
    tree: dict[str, Any] = {"params": learner.params, "target_params": learner.target_params, "stats": learner.stats}
    # optimiser states are tuples of named tuples: kept as a list of leaves, which no version of optax renames
    counts = {"seed": run.seed, "env_steps": run.env_steps, "updates": run.updates}
    if run.streams is not None:  # an environment's state may be of any kind: kept as leaves too
        tree["streams"] = [_solid(x) for x in jax.tree.leaves(run.streams)]
    return {**counts, "opt_state": jax.tree.leaves(learner.opt_state), **tree}


def _assemble(found: dict[str, Any], ring: Any, shapes: TrainState) -> TrainState:
    opt_state = jax.tree.unflatten(jax.tree.structure(shapes.learner.opt_state), found["opt_state"])
    learner = shapes.learner.replace(  # type: ignore[attr-defined]
        params=found["params"], target_params=found["target_params"], stats=found["stats"], opt_state=opt_state
    )
    if ring is None:  # shapes.replay is None where no replay is wanted at all
        ring = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes.replay)
    else:
        ring = jax.tree.map(_pad, ring, shapes.replay)
    counts = {name: found[name] for name in ("seed", "env_steps", "updates")}
    leaves, structure = jax.tree.flatten(shapes.streams)
    pairs = zip(found.get("streams", []), leaves, strict=True)
    streams = jax.tree.unflatten(structure, [np.zeros(s.shape, s.dtype) if 0 in s.shape else x for x, s in pairs])
    return TrainState(learner=learner, replay=ring, streams=streams, **counts)


def _solid(leaf: Any) -> Any:
    """One zero for an empty array (`avail` of continuous actions), which orbax does not save; shapes likewise."""
    if 0 not in leaf.shape:
        return leaf
    return jax.ShapeDtypeStruct((1,), leaf.dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else np.zeros(1, leaf.dtype)


def _pad(stored: np.ndarray, shape: jax.ShapeDtypeStruct) -> np.ndarray:
    full = np.zeros(shape.shape, shape.dtype)
    full[: stored.shape[0]] = stored
    return full


def _request(shapes: Any) -> Any:
    args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
    return ocp.args.PyTreeRestore(item=shapes, restore_args=args)


def _check_shapes(found: Any, want: Any) -> None:
    for (path, f), w in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(want), strict=True):
        if tuple(f.shape) != tuple(w.shape) or f.dtype != w.dtype:
            name = jax.tree_util.keystr(path)
            raise ValueError(f"{name} is {f.dtype}{list(f.shape)}, expected {w.dtype}{list(w.shape)}")


def _numpy(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

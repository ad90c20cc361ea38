"""What a checkpoint stores of a run, as trees of numpy arrays, and how a run is made of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import KeyEntry

from jaxshare.training import shards
from jaxshare.trees import Params, Tree
from jaxshare.types import Box, Clock, EnvSpec, TrainState

Leaf: TypeAlias = np.ndarray | jax.Array | jax.ShapeDtypeStruct

RUNS = "runs"  # where a part has one tree for each run

# how each number that a network's shapes depend on is told
FACTS = {
    "num_agents": "has {} agents",
    "obs_dim": "shows {} numbers to an agent",
    "state_dim": "has states of {} numbers",
    "num_actions": "offers {} actions",
    "action_dim": "takes {} numbers as an action",
}


@dataclass(frozen=True)
class Best:
    """A run at its best evaluation so far."""

    params: Params  # LearnerState.params, as numpy arrays
    env_steps: int
    score: float  # mean return of the evaluation


@dataclass(frozen=True)
class Wanted:
    """What to read of a checkpoint."""

    shapes: TrainState  # one run as ShapeDtypeStructs
    num_runs: int
    replay: bool = False
    best: bool = False
    replay_apart: bool = False  # it is checked here, and read by `shared_rings`


@dataclass(frozen=True)
class Restored:
    """What was read of a checkpoint, as numpy arrays."""

    step: int
    meta: dict[str, Any]
    clock: Clock
    runs: list[TrainState]
    best: list[Best] | None = None  # None also if the checkpoint does not hold them


def learner_tree(clock: Clock, runs: list[TrainState]) -> dict[str, Any]:
    """Clock and runs but for their replays."""
    return {
        "clock": to_numpy(clock._asdict()),
        RUNS: [to_numpy(_without_replay(run)) for run in runs],
    }


def learner_shapes(run: TrainState, num_runs: int) -> dict[str, Any]:
    """The same as shapes, from one run as ShapeDtypeStructs."""
    return {"clock": jax.eval_shape(_zero_clock), RUNS: [_without_replay(run)] * num_runs}


def replay_tree(runs: list[TrainState]) -> dict[str, Any]:
    """The filled slots of each run's ring."""
    return rings_tree([to_numpy(run.replay) for run in runs])


def rings_tree(rings: list[Tree]) -> dict[str, Any]:
    """The same, of rings that lie wherever they do, or of their shapes."""
    return {RUNS: [jax.tree.map(_solid, ring) for ring in rings]}


def replay_shapes(run: TrainState, num_runs: int, filled: int) -> dict[str, Any]:
    """The same as shapes. Raises ValueError if the ring has not so many slots."""
    return rings_tree([filled_shapes(run, filled)] * num_runs)


def filled_shapes(run: TrainState, filled: int) -> Tree:
    """Shapes of the filled slots of a run's rings, from those of a run.

    Raises ValueError if the rings have not so many slots.
    """
    if not 0 <= filled <= num_slots(run):
        raise ValueError(f"a replay of {filled} episodes does not fit into {num_slots(run)} slots")

    axis = shards.slots_axis(run.replay)

    def cut(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        shape = (*leaf.shape[:axis], filled, *leaf.shape[axis + 1 :])
        return jax.ShapeDtypeStruct(shape, leaf.dtype)

    return jax.tree.map(cut, run.replay)


def num_slots(run: TrainState) -> int:
    """Episodes that each ring of the replay holds here; a replay in shards has several."""
    return jax.tree.leaves(run.replay)[0].shape[shards.slots_axis(run.replay)]


def assemble(stored: dict[str, Any], ring: Tree, shapes: TrainState) -> TrainState:
    """A run from what is stored of it; with an empty ring if `ring` is None."""
    structure = jax.tree.structure(shapes.learner.opt_state)
    opt_state = jax.tree.unflatten(structure, stored["opt_state"])
    learner = replace(
        shapes.learner,
        params=stored["params"],
        target_params=stored["target_params"],
        stats=stored["stats"],
        opt_state=opt_state,
    )
    if ring is None:  # shapes.replay is None where no replay is wanted at all
        ring = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes.replay)
    else:
        ring = jax.tree.map(_pad, ring, shapes.replay)

    # the states of environments, empty arrays as they were
    leaves, structure = jax.tree.flatten(shapes.streams)
    pairs = zip(stored.get("streams", []), leaves, strict=True)
    streams = []
    for array, wanted in pairs:
        is_empty = 0 in wanted.shape
        streams.append(np.zeros(wanted.shape, wanted.dtype) if is_empty else array)

    counters = {name: stored[name] for name in ("seed", "env_steps", "updates")}
    return TrainState(
        learner=learner,
        replay=ring,
        streams=jax.tree.unflatten(structure, streams),
        **counters,
    )


def misfit(stored: Tree, want: Tree) -> str | None:
    """The first array whose presence, shape or type is not as wanted, in words, or None.

    stored: a tree of anything with `shape` and `dtype`; want: a tree of ShapeDtypeStructs.
    """
    has = _described(stored)
    wants = _described(want)
    for name in sorted(has.keys() | wants.keys()):
        old = has.get(name, "not there")
        new = wants.get(name, "not there")
        if old != new:
            return f"{name} is {old}, expected {new}"
    return None


def facts(spec: EnvSpec) -> dict[str, int]:
    """The numbers of an environment that the shapes of networks depend on; see FACTS."""
    numbers = {"num_agents": spec.num_agents, "obs_dim": spec.obs_dim, "state_dim": spec.state_dim}
    if isinstance(spec.action, Box):
        numbers["action_dim"] = spec.action.dim
    else:
        numbers["num_actions"] = spec.action.num_actions
    return {name: int(number) for name, number in numbers.items()}


def changes(old: dict[str, int], new: dict[str, int]) -> str:
    """What differs between the facts of two environments, in words; empty if nothing does."""
    told = []
    for name, words in FACTS.items():
        if name in old and name in new and old[name] != new[name]:
            told.append(f"{words.format(new[name])} now, and the run was trained with {old[name]}")
    return "; it ".join(told)


def to_numpy(tree: Tree) -> Tree:
    """The tree with numpy arrays as leaves."""
    return jax.tree.map(np.asarray, tree)


def _zero_clock() -> dict[str, Any]:
    return dict.fromkeys(Clock._fields, jnp.int32(0))


def _without_replay(run: TrainState) -> dict[str, Any]:
    learner = run.learner
    tree: dict[str, Any] = {
        "seed": run.seed,
        "env_steps": run.env_steps,
        "updates": run.updates,
        # tuples of named tuples: kept as a list of leaves, which no version of optax renames
        "opt_state": jax.tree.leaves(learner.opt_state),
        "params": learner.params,
        "target_params": learner.target_params,
        "stats": learner.stats,
    }
    if run.streams is not None:  # an environment's state may be of any kind: kept as leaves too
        tree["streams"] = [_solid(x) for x in jax.tree.leaves(run.streams)]
    return tree


def _described(tree: Tree) -> dict[str, str]:
    """{name: type and shape} of the leaves that are arrays."""
    described = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if getattr(leaf, "dtype", None) is not None:
            name = ".".join(_name(entry) for entry in path)
            described[name] = f"{np.dtype(leaf.dtype)}{list(leaf.shape)}"
    return described


def _name(entry: KeyEntry) -> str:
    """An entry of a path without its kind: what was a record comes back as a dict."""
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)


def _solid(leaf: Leaf) -> Leaf | np.ndarray:
    """One zero for an empty array (`avail` of continuous actions), which orbax does not save.

    Shapes likewise.
    """
    if 0 not in leaf.shape:
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct((1,), leaf.dtype)
    return np.zeros(1, leaf.dtype)


def _pad(stored: np.ndarray, shape: jax.ShapeDtypeStruct) -> np.ndarray:
    full = np.zeros(shape.shape, shape.dtype)
    full[tuple(slice(size) for size in stored.shape)] = stored
    return full

"""Beginning with the parameters of another run (`init_from=RUN`)."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass
from typing import Any

from jaxshare.run.checkpoint import contents
from jaxshare.run.checkpoint.checkpoints import Checkpoints
from jaxshare.settings.records import Settings
from jaxshare.training.program import Program
from jaxshare.trees import Params
from jaxshare.types import RefusedError


@dataclass(frozen=True)
class Start:
    """What new runs begin with, one tree of numpy arrays for each."""

    params: list[Params]
    target_params: list[Params]


def read_start(settings: Settings, program: Program) -> Start | None:
    """What `init_from` names, or None. The optimiser, the replay and all counts begin anew.

    A directory with one run is where all runs begin; otherwise each begins with the run of its
    seed, or of its place if there are as many. Nothing of the other run's code is imported.
    Raises RefusedError if there is no checkpoint, no such run, or a shape differs.
    """
    if not settings.run.init_from:
        return None

    # read the newest checkpoint
    run_dir = pathlib.Path(settings.run.init_from)
    where = f"init_from={run_dir}"
    if not run_dir.is_dir():
        raise RefusedError(f"{where} does not exist: name the run directory of a training run.")
    with Checkpoints(run_dir, read_only=True, spec=program.env.spec) as checkpoints:
        newest = checkpoints.newest(
            lambda step: (checkpoints.meta(step), checkpoints.learners(step))
        )
    if newest is None:
        raise RefusedError(f"{where} has no checkpoint: name a run directory that has one.")

    # choose a run for each
    step, (meta, learners) = newest
    _check_shapes(learners[0], meta, program, f"{where} (checkpoint {step})")
    chosen = [learners[i] for i in _places(settings, meta.get("labels"), len(learners), where)]
    return Start(
        params=[learner["params"] for learner in chosen],
        target_params=[learner["target_params"] for learner in chosen],
    )


def _check_shapes(
    learner: dict[str, Any], meta: dict[str, Any], program: Program, where: str
) -> None:
    """Raise RefusedError that names the first parameter that does not fit."""
    ours = program.state_shapes().learner
    for part, shapes in (("params", ours.params), ("target_params", ours.target_params)):
        difference = contents.misfit(learner[part], shapes)
        if difference:
            facts = contents.facts(program.env.spec)
            changes = contents.changes(meta.get("env") or {}, facts)
            why = f": the environment {changes}" if changes else ""
            raise RefusedError(
                f"{where} does not fit{why}; {part}.{difference}. Use the algorithm, the layer "
                "sizes and algo.share_params of that run, in an environment of the same sizes."
            )


def _places(settings: Settings, labels: object, stored: int, where: str) -> list[int]:
    """For each run of this command which of the stored ones it begins with."""
    ours = settings.labels()
    if stored == 1:
        return [0] * len(ours)
    seeds = [label.get("seed") for label in labels] if isinstance(labels, list) else []
    wanted = [label["seed"] for label in ours]
    if len(seeds) == len(set(seeds)) and set(wanted) <= set(seeds):
        return [seeds.index(seed) for seed in wanted]
    if stored == len(ours):
        return list(range(stored))

    # in words
    theirs = ", ".join(map(str, seeds)) or "unknown"
    asked = ", ".join(map(str, sorted(set(wanted))))
    raise RefusedError(
        f"{where} holds {stored} runs (seeds {theirs}), and this command has {len(ours)} (seeds "
        f"{asked}): use as many seeds, seeds of that run, or a run directory with one run."
    )

"""Scores of a run's policies on episodes that are played for the purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax

from jaxshare.run import BEST
from jaxshare.run.saved import SavedRun
from jaxshare.settings.records import Settings
from jaxshare.settings.run_parts import POLICIES, EvalConfig
from jaxshare.types import Array, Clock, HParams, RefusedError, TrainState

if TYPE_CHECKING:
    from jaxshare.training.program import Program


def settings_with(run: SavedRun, episodes: int, policy: str | None, seed: int | None) -> Settings:
    """A run's settings with other episodes to evaluate on.

    episodes: how many, of each run.
    policy: greedy, stochastic or both; None: the run's own.
    seed: of the episodes; None: the run's own, or the one behind it for its best parameters.
    Raises RefusedError for the episodes that have chosen the parameters that are to be played.
    """
    before = run.settings.run.eval
    is_best = run.checkpoint == BEST
    if seed is None:
        seed = before.seed + is_best
    if is_best and seed == before.seed:
        raise RefusedError(
            f"seed={seed}: these episodes chose the run's best parameters, so the return on them "
            "is too high. Use another seed."
        )
    changed = replace(before, episodes=episodes, seed=seed, policy=policy or before.policy)
    return replace(run.settings, run=replace(run.settings.run, eval=changed))


def evaluation(run: SavedRun, selected_on: EvalConfig, with_final: bool = False) -> dict[str, Any]:
    """What evaluation.json holds: the episodes, a dict of means for each run, their mean.

    run: whose `settings.run.eval` says what is played.
    selected_on: the evaluations that chose the best parameters, if these are played.
    with_final: whether the last parameters are played beside the best ones.
    """
    # what is played
    episodes = run.settings.run.eval
    best = run.restored.best
    result: dict[str, Any] = {
        "checkpoint": run.step,
        "episodes": episodes.episodes,
        "policy": episodes.policy,
        "eval_seed": episodes.seed,
    }
    if best is None:
        return result | play(run, run.states)

    # the best parameters, and by which episodes they are the best
    result["checkpoint"] = BEST
    result["selected_on"] = {
        "eval_seed": selected_on.seed,
        "episodes": selected_on.episodes,
        "policy": _first_policy(selected_on.policy),
    }
    result |= play(run, run.states)
    for scores, selected in zip(result["runs"], best, strict=True):
        scores["selected_return"] = selected.score
    result["mean"] = _mean(result["runs"])
    if with_final:
        result["final"] = {"checkpoint": run.step, **play(run, run.restored.runs)}
    return result


def play(run: SavedRun, states: Sequence[TrainState]) -> dict[str, Any]:
    """Play `settings.run.eval`: {"runs": a dict of means for each run, "mean": over the runs}.

    states: of the runs, [R].
    """
    episodes = run.settings.run.eval
    policies: dict[str, Callable[..., Any]] = {}
    for prefix, explore in POLICIES[episodes.policy].items():
        policies[prefix] = jax.jit(partial(_score, run.program, episodes.episodes, explore))

    runs = []
    for number, (label, state) in enumerate(zip(run.labels, states, strict=True)):
        scores = {**label, "env_steps": int(state.env_steps)}
        for prefix, score in policies.items():
            means = score(state, run.hparams(number), run.clock)
            scores |= {prefix + name: float(value) for name, value in means.items()}
        runs.append(scores)
    return {"runs": runs, "mean": _mean(runs)}


def _score(
    program: Program,
    episodes: int,
    explore: bool,
    state: TrainState,
    hparams: HParams,
    clock: Clock,
) -> dict[str, Array]:
    played = program.play(state, hparams, clock, episodes, explore=explore)
    return {**program.scores(played), "return_std": program.returns(played.episode).std()}


def _first_policy(policy: str) -> str:
    """What `return` without a prefix belongs to."""
    return "greedy" if policy == "both" else policy


def _mean(runs: list[dict[str, Any]]) -> dict[str, float]:
    """The mean over runs of what is comparable between them."""
    means = {}
    for name in runs[0]:
        if name != "seed" and not name.endswith("return_std") and "sweep." not in name:
            means[name] = sum(run[name] for run in runs) / len(runs)
    return means

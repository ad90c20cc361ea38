"""Scores of a run's policies on episodes that are played for the purpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jaxshare.checkpoint import Restored
from jaxshare.config import POLICIES, EvalConfig, Settings
from jaxshare.evaluation import BEST
from jaxshare.run.restoring import at_best
from jaxshare.types import RefusedError

if TYPE_CHECKING:
    from jaxshare.runner import Program


def settings_with(settings: Settings, episodes: int, policy: str | None, seed: int | None, is_best: bool) -> Settings:
    """A run's settings with other episodes to evaluate on.

    episodes: how many, of each run.
    policy: greedy, stochastic or both; None: the run's own.
    seed: of the episodes; None: the run's own, or the one behind it for the best parameters.
    is_best: whether the best parameters are played, which raises RefusedError for the episodes
    that have chosen them.
    """
    own = settings.run.eval
    if seed is None:
        seed = own.seed + is_best
    if is_best and seed == own.seed:
        raise RefusedError(
            f"seed={seed}: these episodes chose the run's best parameters, so the return on them "
            "is too high. Use another seed."
        )
    changed = replace(own, episodes=episodes, seed=seed, policy=policy or own.policy)
    return replace(settings, run=replace(settings.run, eval=changed))


def evaluation(
    program: Program,
    settings: Settings,
    restored: Restored,
    selected_on: EvalConfig,
    with_final: bool = False,
) -> dict[str, Any]:
    """What evaluation.json holds: the episodes, a dict of means for each run, and the mean over runs.

    settings: whose `run.eval` says what is played.
    restored: a checkpoint; if it has the runs' best parameters, these are played.
    selected_on: the evaluations that chose the best parameters.
    with_final: whether the last parameters are played beside the best ones.
    """
    episodes = settings.run.eval
    result: dict[str, Any] = {
        "checkpoint": restored.step,
        "episodes": episodes.episodes,
        "policy": episodes.policy,
        "eval_seed": episodes.seed,
    }
    if restored.best is None:
        return result | play(program, settings, restored)

    result["checkpoint"] = BEST
    result["selected_on"] = {
        "eval_seed": selected_on.seed,
        "episodes": selected_on.episodes,
        "policy": _first_policy(selected_on.policy),
    }
    result |= play(program, settings, at_best(restored))
    for run, best in zip(result["runs"], restored.best, strict=True):
        run["selected_return"] = best.score
    result["mean"] = _mean(result["runs"])
    if with_final:
        final = play(program, settings, restored)
        result["final"] = {"checkpoint": restored.step, **final}
    return result


def play(program: Program, settings: Settings, restored: Restored) -> dict[str, Any]:
    """Play `settings.run.eval`: {"runs": a dict of means for each run, "mean": over the runs}."""
    episodes = settings.run.eval.episodes
    policies: dict[str, Callable[..., Any]] = {}
    for prefix, explore in POLICIES[settings.run.eval.policy].items():
        policies[prefix] = jax.jit(partial(_score, program, episodes, explore))

    runs = []
    for label, (_, point), state in zip(settings.labels(), settings.runs(), restored.runs, strict=True):
        run = {**label, "env_steps": int(state.env_steps)}
        for prefix, score in policies.items():
            scores = score(state, hparams_at(program, point), restored.clock)
            run |= {prefix + name: float(value) for name, value in scores.items()}
        runs.append(run)
    return {"runs": runs, "mean": _mean(runs)}


def hparams_at(program: Program, point: dict[str, float]) -> dict[str, Any]:
    """The hyper-parameters of the runs at one point of a sweep, as scalars of JAX, by name."""
    values = {**program.algorithm.hparams, **point}
    return {name: jnp.float32(value) for name, value in values.items()}


def _score(
    program: Program, episodes: int, explore: bool, state: Any, hparams: dict[str, Any], clock: Any
) -> dict[str, Any]:
    played = program.play(state, hparams, clock, episodes, explore=explore)
    return {**program.summary(played), "return_std": program.returns(played.episode).std()}


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

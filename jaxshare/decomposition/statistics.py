"""How well the order of rewards and priorities agrees with the levels of the policies that played.

Letters: E episodes, N agents, n agents of one type.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import numpy as np

from jaxshare.algos.sit import equations as ops
from jaxshare.data.records import LEVELS, UNKNOWN
from jaxshare.decomposition.trajectories import Judgement
from jaxshare.types import EnvSpec

LEVEL_NAMES = {UNKNOWN: "unknown", **dict(enumerate(LEVELS))}

Plain: TypeAlias = Any  # dicts in dicts of numbers, texts and None


def statistics(judgement: Judgement, level: np.ndarray, spec: EnvSpec) -> dict[str, Any]:
    """What a run made of the data set: {"agents": {name: [N]}, "types": {name: …}}.

    level: [E, N].
    """
    agents = {
        name: judgement[name].mean(0).tolist() for name in ("reward", "uncertainty", "priority")
    }
    types = {}
    for group, name in enumerate(spec.group_names):
        members = [i for i, other in enumerate(spec.groups) if other == group]
        of_type = {key: x[..., members] for key, x in judgement.items()}
        types[name] = {"agents": members, **statistics_of_type(of_type, level[:, members])}
    return {"agents": agents, "types": types}


def statistics_of_type(judgement: Judgement, level: np.ndarray) -> dict[str, Any]:
    """The statistics of the agents of one type.

    level: [E, n]; the judgement the same, but alpha [n].
    """
    better = np.greater(level, 0)
    known = np.greater_equal(level, 0)

    # an unknown level is in no pair
    graded = np.where(known, better, np.nan).astype(np.float32)
    buffer = (0,) * level.shape[1]
    pairs = int(np.asarray(jax.jit(ops.better_pairs, static_argnums=1)(graded, buffer)).sum())
    missing = _missing(level, pairs)

    pair_order = jax.jit(ops.pair_order, static_argnums=2)
    auroc = jax.jit(ops.auroc)
    scores: dict[str, dict[str, float | None]] = {}
    for name in ("reward", "priority"):
        score: dict[str, float | None] = {"pairs": None, "all": None}
        if "pairs" not in missing:
            score["pairs"] = float(pair_order(judgement[name], graded, buffer))
        if "all" not in missing:
            score["all"] = float(auroc(judgement[name][known], better[known]))
        scores[f"auroc_{name}"] = score

    weight = judgement["log_weight"]
    drawn = None
    if known.any():
        share = float(jax.jit(ops.share_of)(weight, better, known))
        drawn = {"probability": share, "trajectories": float(better[known].mean())}
    levels = _by_level(judgement, level)
    effective_size = float(jax.jit(ops.effective_size)(weight.ravel()))
    alpha = float(judgement["alpha"][0])
    return {
        "pairs": pairs,
        **scores,
        "missing": missing,
        "levels": levels,
        "better": drawn,
        "ess": effective_size,
        "alpha": alpha,
        "trajectories": int(level.size),
    }


def _by_level(judgement: Judgement, level: np.ndarray) -> dict[str, dict[str, float]]:
    """How many trajectories there are of each level, and what was made of them; level [E, n]."""
    levels: dict[str, dict[str, float]] = {}
    for number in np.unique(level):
        chosen = level == number
        about: dict[str, float] = {"trajectories": int(chosen.sum())}
        for name in ("reward", "priority", "uncertainty"):
            about[name] = float(judgement[name][chosen].mean())
        levels[LEVEL_NAMES[int(number)]] = about
    return levels


def _missing(level: np.ndarray, pairs: int) -> dict[str, str]:
    """Why an order cannot be counted: {"pairs" and "all", or one of them, or none: reason}.

    level: [E, n].
    """
    known = level >= 0
    if not known.any():
        reason = "the data set does not say at which levels the agents played"
        return {"pairs": reason, "all": reason}
    reasons = {}
    if not pairs and level.shape[1] == 1:
        reasons["pairs"] = "no episode has two agents of the type"
    elif not pairs:
        reasons["pairs"] = "in no episode one agent of the type played at random and another better"
    if not (level > 0).any():
        reasons["all"] = "all agents of the type played at random"
    elif not (level == 0).any():
        reasons["all"] = "no agent of the type played at random"
    return reasons


def mean(trees: list[Plain]) -> Plain:
    """The mean of every number in equal trees of some runs.

    What is no number is equal in all, or null in one of them and then in the mean.
    """
    first = trees[0]
    if isinstance(first, dict):
        means = {}
        for key in first:
            means[key] = mean([tree[key] for tree in trees])
        return means
    if all(tree == first for tree in trees) or None in trees:
        return None if None in trees else first
    return sum(trees) / len(trees)

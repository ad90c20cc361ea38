"""The score of a run: which metric, taken where, and what a reader must know of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxshare.results.ranges import WIN_RATE
from jaxshare.results.runs import Run, listed, shortened
from jaxshare.types import RefusedError

if TYPE_CHECKING:
    from jaxshare.results.settings import Config


def choose_metric(runs: Sequence[Run], config: Config) -> str:
    """The asked metric, if all runs have it; else win_rate where all have that, else return.

    Raises RefusedError for a run that lacks it, or was not evaluated as config.score asks.
    """
    has = [_metrics(run, config.score) for run in runs]
    metric = config.metric or (WIN_RATE if all(WIN_RATE in names for names in has) else "return")
    for run, names in zip(runs, has, strict=True):
        if metric not in names:
            known = ", ".join(sorted(names))
            raise RefusedError(f"metric={metric}: {run} has no such score. It has: {known}.")
    return metric


def _metrics(run: Run, score: str) -> set[str]:
    """What a run has scores of. Raises RefusedError if it has none of this kind."""
    if score == "curve":
        return set(run.values)
    if score not in run.played:
        how = " checkpoint=best" if score == "best" else ""
        raise RefusedError(
            f"score={score}: {run} has no such scores in evaluation.json. Make them with "
            f"`python -m jaxshare.evaluate run_dir={run.path}{how}`, or report score=curve."
        )
    return set(run.played[score].scores)


def reported(runs: Sequence[Run], unfinished: str, notes: list[str]) -> list[Run]:
    """The runs that are reported, by what is asked for unfinished ones: cut, drop or refuse.

    Raises RefusedError if they are refused, or none is left.
    """
    # where unfinished ones are
    of_path: dict[object, list[Run]] = {}
    for run in runs:
        if not run.finished:
            of_path.setdefault(run.path, []).append(run)
    lines = []
    for path, members in of_path.items():
        seeds = listed([str(run.seed) for run in members])
        least = min(run.progress[-1] for run in members)
        lines.append(f"{path}, seed {seeds}, is at {least:,.0f} of {members[0].total:,}")

    # what becomes of them
    if lines and unfinished == "refuse":
        raise RefusedError(
            f"unfinished=refuse: {listed(lines, '; ')}. Train to the end with resume=auto, leave "
            "unfinished runs out with unfinished=drop, or compare where the shortest one stands "
            "with unfinished=cut."
        )
    fate = ", and is left out." if unfinished == "drop" else "."
    notes += shortened([f"unfinished: {line}{fate}" for line in lines], "unfinished")
    if unfinished != "drop":
        return list(runs)
    finished = [run for run in runs if run.finished]
    if not finished:
        raise RefusedError("unfinished=drop leaves no run: none has come to its end.")
    return finished


def score_of(run: Run, metric: str, point: float, config: Config) -> float:
    """The mean of the last evaluations up to that nearest to a point, or what was played later.

    Raises RefusedError if there are too few, or it is not finite.
    """
    # the score, and where it is from
    if config.score != "curve":
        score = float(run.played[config.score].scores[metric])
        where = "in evaluation.json"
    else:
        end = int(np.argmin(np.abs(run.progress - point))) + 1
        if end < config.last:
            there = f"{run} has {end} evaluations up to {point:,.0f}"
            raise RefusedError(f"last={config.last}: {there}. Use last={end} at most.")
        score = float(run.values[metric][end - config.last : end].mean())
        where = f"at {run.progress[end - 1]:,.0f}"
    if not np.isfinite(score):
        raise RefusedError(f"{run} has a {metric} of {score} {where}. Leave this run out.")
    return score

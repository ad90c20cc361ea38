"""When runs are good enough: steps until evaluations reach a level, and what that can decide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxshare.study import rules
from jaxshare.study.check import Check
from jaxshare.study.rules import Interval

BOUNDED_BELOW = ("greater", "at_least", "above")  # rules that more steps of the first arm satisfy


@dataclass(frozen=True)
class Arrivals:
    """When the seeds of an arm have reached a level."""

    steps: np.ndarray  # [N]; of those that never have, how long they are
    never: np.ndarray  # [N] bool


def first_reached(points: np.ndarray, level: float) -> float | None:
    """Where a curve [P, 2] of steps and values first is at a level, on the line between points.

    None if it never is.
    """
    above = np.flatnonzero(points[:, 1] >= level)
    if not len(above):
        return None
    end = above[0]
    if end == 0:
        return float(points[0, 0])
    (x, y), (next_x, next_y) = points[end - 1 : end + 1]
    return float(x + (level - y) / (next_y - y) * (next_x - x))


def of_seeds(curves: list[np.ndarray], level: float) -> Arrivals:
    """Of the curves [P, 2] of all seeds of an arm."""
    reached = [first_reached(points, level) for points in curves]
    never = np.array([steps is None for steps in reached])
    steps = [
        points[-1, 0] if at is None else at for at, points in zip(reached, curves, strict=True)
    ]
    return Arrivals(np.array(steps, float), never)


def undecided(check: Check, interval: Interval, arms: list[Arrivals]) -> str:
    """Why a check cannot be decided as it seems, or nothing.

    Seeds that never get there count with all their steps, which is too few: with that only a rule
    that more steps would satisfy as well can be confirmed. arms: of the check, on one task.
    """
    decided = rules.verdict(check.compare, interval.low, interval.high, check.bound)
    for place, (arm, arrivals) in enumerate(zip(check.arms, arms, strict=True)):
        only_more = place == 0 and check.compare in BOUNDED_BELOW and decided == rules.CONFIRMED
        if arrivals.never.any() and not only_more:
            return f"{arrivals.never.sum()} of {len(arrivals.never)} seeds of {arm} never get there"
    return ""

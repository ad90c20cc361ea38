"""Payoffs of the small games, and how a table of a user's is read."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from jaxshare.types import RefusedError

Nested = object  # a number, or a list of these

LINEAR = [[1, 5], [5, 9]]
MONOTONIC = [[0, 0], [0, 10]]
CLIMBING = [[11, -30, 0], [-30, 7, 0], [0, 6, 5]]
STAG_HUNT = [[[4, 4], [0, 3]], [[3, 0], [2, 2]]]  # the last axis is the agent
STAG_HUNT_SUM = [[8, 3], [3, 4]]
NON_MONOTONIC_1 = [[8, -12, -12], [-12, 0, 0], [-12, 0, 0]]
NON_MONOTONIC_2 = [[8, -12, -12], [-12, 6, 0], [-12, 0, 6]]
OR = [[0, 10], [10, 10]]
TWO_STEP_A = [[7, 7], [7, 7]]
TWO_STEP_B = [[0, 1], [1, 8]]
TWO_STEP = [TWO_STEP_A, TWO_STEP_B]  # the first axis is the first agent's first action

TABLES: dict[str, list] = {  # games of one step whose reward is common
    "linear": LINEAR,
    "monotonic": MONOTONIC,
    "climbing": CLIMBING,
    "stag_hunt_sum": STAG_HUNT_SUM,
    "nm1": NON_MONOTONIC_1,
    "nm2": NON_MONOTONIC_2,
    "or": OR,
    "two_step_b": TWO_STEP_B,
}


def penalty_table(penalty: float) -> np.ndarray:
    """The common payoff [3, 3] of the penalty game (Claus and Boutilier 1998)."""
    return np.array([[penalty, 0, 10], [0, 2, 0], [10, 0, penalty]], np.float32)


def parse_payoff(payoff: Nested) -> Nested:
    """Nested lists of floats of one shape, at least two deep. Raises RefusedError otherwise."""
    rows = _plain(payoff)
    shape = _shape(rows)
    if shape is None or len(shape) < 2:
        raise RefusedError(
            f"env.payoff={payoff}: expected a table of numbers with rows of equal length, such as "
            "[[1,5],[5,9]]."
        )
    return rows


def _plain(payoff: Nested) -> Nested:
    """The same in lists and floats; None in place of what is neither."""
    if isinstance(payoff, Sequence) and not isinstance(payoff, str):
        return [_plain(row) for row in payoff]
    if isinstance(payoff, bool) or not isinstance(payoff, int | float):
        return None
    return float(payoff) if math.isfinite(payoff) else None


def _shape(rows: Nested) -> tuple[int, ...] | None:
    """The shape of nested lists; None if they are ragged, empty, or hold anything but numbers."""
    if isinstance(rows, float):
        return ()
    if not isinstance(rows, list):
        return None
    shapes = {_shape(row) for row in rows}
    inner = shapes.pop() if len(shapes) == 1 else None
    return None if inner is None else (len(rows), *inner)

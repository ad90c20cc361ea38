"""Verdicts and intervals by hand."""

import dataclasses

import numpy as np
import pytest

from jaxshare.results import statistics
from jaxshare.study import rules


@pytest.mark.parametrize(
    ("compare", "low", "high", "bound", "expected"),
    [
        ("greater", 0.1, 0.4, 0.0, "confirmed"),
        ("greater", -0.1, 0.4, 0.0, "undecided"),
        ("greater", 0.0, 0.4, 0.0, "undecided"),
        ("greater", 0.1, 0.4, 0.2, "undecided"),
        ("greater", -0.4, -0.1, 0.0, "not confirmed"),
        ("equal", -0.1, 0.2, 0.2, "confirmed"),
        ("equal", -0.3, 0.1, 0.2, "undecided"),
        ("equal", 0.3, 0.4, 0.2, "not confirmed"),
        ("equal", -0.9, -0.3, 0.2, "not confirmed"),
        ("at_least", 0.8, 0.9, 0.8, "confirmed"),
        ("at_least", 0.7, 0.9, 0.8, "undecided"),
        ("at_least", 0.7, 0.79, 0.8, "not confirmed"),
        ("above", 0.5, 0.6, 0.5, "undecided"),
        ("above", 0.51, 0.6, 0.5, "confirmed"),
        ("above", 0.5, 0.5, 0.5, "not confirmed"),
        ("at_most", 0.0, 0.2, 0.2, "confirmed"),
        ("at_most", 0.0, 0.3, 0.2, "undecided"),
        ("at_most", 0.25, 0.3, 0.2, "not confirmed"),
    ],
)
def test_verdicts_by_hand(compare, low, high, bound, expected):
    assert rules.verdict(compare, low, high, bound) == expected


def test_one_check_against_a_claim_is_enough_and_all_are_needed_for_it():
    yes, no, open_, none = rules.CONFIRMED, rules.NOT_CONFIRMED, rules.UNDECIDED, rules.NOT_RUN
    assert rules.together([yes, yes]) == yes
    assert rules.together([yes, open_]) == open_
    assert rules.together([yes, none]) == open_
    assert rules.together([yes, open_, none, no]) == no
    assert rules.together([none, none]) == none


def test_differences_by_hand():
    one, two = [np.array([3.0, 3.0])], [np.array([1.0, 1.0])]
    assert rules.difference(one, two, statistics.mean) == rules.Interval(2.0, 2.0, 2.0)
    found = rules.difference([np.array([0.0, 4.0])], two, statistics.mean)
    assert found.value == 1.0
    # both draws of a quarter of all bootstraps are the same run: -1 and 3;
    # n = 2 stretches by sqrt(2) 4.3027 / 1.96
    assert (found.low, found.high) == pytest.approx((1 - 2 * 3.10459, 1 + 2 * 3.10459), rel=1e-4)
    # stratified: runs are drawn within a task, so the tasks' difference of 10 is in no interval
    found = rules.difference(
        [np.array([1.0, 1.0]), np.array([11.0, 11.0])],
        [np.array([0.0, 0.0]), np.array([10.0, 10.0])],
        statistics.mean,
    )
    assert found == rules.Interval(1.0, 1.0, 1.0)
    assert np.isnan(rules.difference([np.array([1.0])], two, statistics.mean).low)


def test_tasks_are_not_pooled():
    """One task's scores are all below the other's.

    Of all six the trimmed mean says the opposite of both tasks.
    """
    one = [np.array([-3.6, -2.0, -2.0]), np.array([0.5, 0.5, 0.5])]
    two = [np.array([-2.2, -2.2, -2.2]), np.array([0.4, 0.4, 0.9])]
    assert statistics.iqm(one) - statistics.iqm(two) > 0.1
    assert rules.difference(one, two, statistics.iqm).value == pytest.approx(
        (-7.6 / 3 + 2.2 + 0.5 - 1.7 / 3) / 2,
    )


@pytest.mark.parametrize("seeds", [3, 5])
def test_equal_arms_are_rarely_called_different(seeds):
    draw, wrong, many = np.random.default_rng(1), 0, 300
    for _ in range(many):
        one, two = ([draw.normal(size=seeds)] for _ in range(2))
        found = rules.difference(one, two, statistics.iqm)
        wrong += found.low > 0 or found.high < 0
    assert wrong <= 0.05 * many + 3 * np.sqrt(
        0.05 * 0.95 * many,
    )  # three standard deviations of a rate of 5 %


def shares(successes, trials):
    return dataclasses.astuple(rules.share(successes, trials))


def test_shares_have_wilsons_interval():
    assert shares(8, 8) == pytest.approx((1.0, 8 / (8 + 1.959964**2), 1.0), abs=1e-6)
    assert shares(0, 8)[2] == pytest.approx(1 - 8 / (8 + 1.959964**2), abs=1e-6)
    # p = 1/2, n = 4: 1/2 +- z sqrt(1/16 + z^2/64) / (1 + z^2/4)
    z = 1.959964
    half = z * np.sqrt(1 / 16 + z * z / 64) / (1 + z * z / 4)
    assert shares(2, 4) == pytest.approx((0.5, 0.5 - half, 0.5 + half), abs=1e-6)

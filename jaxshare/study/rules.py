"""Intervals of few seeds, and the rules that decide. numpy and scipy only.

A check compares one number for each seed, of one arm with a threshold or of two arms, on one task
or on several; of several the mean over tasks of each one's statistic counts, with scores divided by
the task's range where ranges differ. Intervals are stratified bootstraps: seeds are drawn anew
within each task and arm. With n seeds a percentile interval is too narrow, so that both sides are
stretched by sqrt(n / (n - 1)) and by Student's quantile over the normal one, for sum (n_i - 1)
degrees of freedom. Of two equal normal arms with three seeds each, 10 % would else be called
different each way, and 2.5 to 3 % are now (1,500 draws; with four or five seeds 1 %). With x the
interval [low, high] of a difference or of a value:

    greater   x = first - second:  confirmed if low > margin,    not confirmed if high < margin
    equal     x = first - second:  confirmed if [low, high] lies within [-margin, margin],
                                   not confirmed if outside
    at_least  x = value:           confirmed if low >= threshold, not confirmed if high < threshold
    above     x = value:           confirmed if low > threshold,  not confirmed if high <= threshold
    at_most   x = value:           confirmed if high <= threshold, not confirmed if low > threshold

and undecided else. A number without chance in it (an identity, a ratio of times) has no interval:
low = high = value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from jaxshare.results import statistics

CONFIRMED = "confirmed"
NOT_CONFIRMED = "not confirmed"
UNDECIDED = "undecided"
NOT_RUN = "not run"
MEASURED = "measured"  # of a study without checks: all its runs are there
UNFINISHED = "unfinished"  # some are
RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 0
Z = 1.959963984540054  # of 95 %
Statistic = statistics.Statistic


@dataclass(frozen=True)
class Interval:
    """A value and its bounds; NaN where one seed gives none."""

    value: float
    low: float
    high: float

    @property
    def is_open(self) -> bool:
        """Whether there are no bounds."""
        return math.isnan(self.low)


def verdict(compare: str, low: float, high: float, bound: float) -> str:
    """Of an interval; bound: the margin, or the threshold. See the top of the file."""
    # the whole interval is as the check says
    confirmed = {
        "greater": low > bound,
        "equal": -bound <= low and high <= bound,
        "at_least": low >= bound,
        "above": low > bound,
        "at_most": high <= bound,
    }

    # the whole interval is otherwise
    refuted = {
        "greater": high < bound,
        "equal": low > bound or high < -bound,
        "at_least": high < bound,
        "above": high <= bound,
        "at_most": low > bound,
    }
    if confirmed[compare]:
        return CONFIRMED
    return NOT_CONFIRMED if refuted[compare] else UNDECIDED


def together(verdicts: Sequence[str]) -> str:
    """Of deciding checks: one against is enough, and all must have been made to confirm."""
    if NOT_CONFIRMED in verdicts:
        return NOT_CONFIRMED
    if all(each == NOT_RUN for each in verdicts):
        return NOT_RUN
    return CONFIRMED if all(each == CONFIRMED for each in verdicts) else UNDECIDED


def difference(first: list[np.ndarray], second: list[np.ndarray], statistic: Statistic) -> Interval:
    """Mean over tasks of statistic(first) - statistic(second); one array [N] per task."""
    whole = _of_tasks(statistic)
    value = float(whole(first) - whole(second))
    if not (statistics.enough(first) and statistics.enough(second)):
        return Interval(value, math.nan, math.nan)
    draw = np.random.default_rng(SEED)
    firsts = whole(statistics.resampled(first, RESAMPLES, draw))
    seconds = whole(statistics.resampled(second, RESAMPLES, draw))
    ends = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
    low, high = np.quantile(firsts - seconds, ends)
    return stretched(Interval(value, float(low), float(high)), [*first, *second])


def single(values: list[np.ndarray], statistic: Statistic) -> Interval:
    """Mean over tasks of statistic(values); one array [N] per task."""
    return stretched(percentiles(values, _of_tasks(statistic)), values)


def percentiles(values: list[np.ndarray], statistic: Statistic) -> Interval:
    """A statistic of scores, one array [N] per task, with its plain bootstrap interval."""
    draw = np.random.default_rng(SEED)
    estimate = statistics.interval(statistic, values, RESAMPLES, CONFIDENCE, draw)
    return Interval(float(estimate.value), float(estimate.low), float(estimate.high))


def _of_tasks(statistic: Statistic) -> Statistic:
    """Not pooled: a trimmed mean of all scores drops those of the tasks in between."""

    def mean_over_tasks(scores: statistics.Scores) -> np.ndarray:
        return np.mean([statistic([of_task]) for of_task in scores], axis=0)

    return mean_over_tasks


def stretched(interval: Interval, groups: list[np.ndarray]) -> Interval:
    """The bounds for as few seeds as these groups [N] have; see the top of the file."""
    fewest = min(len(group) for group in groups)
    freedom = sum(len(group) - 1 for group in groups)
    if fewest < 2:
        return interval
    student = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))
    factor = student / Z * math.sqrt(fewest / (fewest - 1))
    value = interval.value
    low = value - factor * (value - interval.low)
    high = value + factor * (interval.high - value)
    return Interval(value, low, high)


def share(successes: int, trials: int) -> Interval:
    """successes / trials with Wilson's interval."""
    p = successes / trials
    middle = p + Z * Z / (2 * trials)
    variance = p * (1 - p) / trials
    half = Z * math.sqrt(variance + Z * Z / (4 * trials * trials))
    whole = 1 + Z * Z / trials
    return Interval(p, max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole))


def exact(values: np.ndarray, compare: str) -> Interval:
    """Of numbers [N] without chance, which must all hold: the worst for the rule."""
    worst: Callable[[np.ndarray], np.floating] = np.max if compare == "at_most" else np.min
    value = float(worst(values))
    return Interval(value, value, value)

"""Statistics of few runs on several tasks, with stratified bootstrap intervals. numpy only.

Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
(arXiv 2108.13264), with x[m, n] the score of run n of N on task m of M:

    mean                       mean_m mean_n x[m, n]
    median                     median_m mean_n x[m, n]
    IQM                        mean of all x[m, n] without the floor(M N / 4) lowest and as many
                               highest
    optimality gap             gamma - mean_m mean_n min(x[m, n], gamma)
    P(X > Y)                   mean_m 1/(N K) sum_n sum_k S(x[m, n], y[m, k]);
                               S = 1 if x > y, 1/2 if x = y, else 0
    performance profile        F(tau) = mean_m mean_n 1[x[m, n] > tau]
    stratified bootstrap       runs are drawn anew within each task; the interval lies between
                               percentiles

paper: section 4.1 (bootstrap), 4.2 (profiles), 4.3 (aggregates, P(X > Y)). The authors' package,
rliable 1.2.0, is not used: it needs arch < 8, which does not import with pandas 3, and its
bootstrap ignores the seed that it is given.
ours: tasks may have different numbers of runs: then mean, median, gap, profile and P(X > Y) weigh
tasks equally, and the IQM weighs runs equally.
ours: the median over one task is that over its runs, or it would be the mean again.
ours: no interval (NaN) where a task has one run: a bootstrap of one score says zero, and knows
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Scores = Sequence[np.ndarray]  # one array [..., N] per task, N its number of runs
Statistic = Callable[[Scores], np.ndarray]  # of the last axis: [...]
MEMORY = 4_000_000  # numbers in one array of resampled scores


@dataclass(frozen=True)
class Estimate:
    """A statistic and its interval, [...] each; NaN bounds where there is none."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn."""

    resamples: int
    confidence: float  # 0 to 1
    seed: int

    def arguments(self) -> tuple[int, float, np.random.Generator]:
        """Resamples, confidence, and the same random numbers for every interval."""
        return self.resamples, self.confidence, np.random.default_rng(self.seed)


def mean(scores: Scores) -> np.ndarray:
    """Mean over tasks of the mean over runs, [...]."""
    return np.mean([x.mean(-1) for x in scores], axis=0)


def median(scores: Scores) -> np.ndarray:
    """Median over tasks of the mean over runs, [...]; of one task the median over its runs."""
    if len(scores) == 1:
        return np.median(scores[0], axis=-1)
    return np.median([x.mean(-1) for x in scores], axis=0)


def iqm(scores: Scores) -> np.ndarray:
    """Mean over the runs of all tasks without the lowest and the highest quarter, [...]."""
    ordered = np.sort(np.concatenate(list(scores), axis=-1), axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(-1)


def optimality_gap(scores: Scores, gamma: float = 1.0) -> np.ndarray:
    """By how much scores fall short of gamma, [...]; what exceeds gamma counts as gamma."""
    return gamma - mean([np.minimum(x, gamma) for x in scores])


def improvement(first: Scores, second: Scores) -> np.ndarray:
    """Probability that a run of `first` is better than one of `second`: mean over tasks, [...]."""
    shares = []
    for x, y in zip(first, second, strict=True):
        # every run of one side against every run of the other: [..., N, K]
        left = x[..., :, None]
        right = y[..., None, :]
        shares.append(((left > right) + 0.5 * (left == right)).mean((-2, -1)))
    return np.mean(shares, axis=0)


AGGREGATES: dict[str, Statistic] = {
    "iqm": iqm,
    "mean": mean,
    "median": median,
    "optimality_gap": optimality_gap,
}


def enough(scores: Scores) -> bool:
    """Whether a bootstrap can say anything: every task has two runs at least."""
    return min(x.shape[-1] for x in scores) > 1


def resampled(scores: Scores, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """[..., count, N] per task: its runs drawn with replacement, the same for all leading axes."""
    drawn = []
    for of_task in scores:
        num_runs = of_task.shape[-1]
        runs = rng.integers(num_runs, size=(count, num_runs))
        drawn.append(of_task[..., runs])
    return drawn


def interval(
    statistic: Statistic,
    scores: Scores,
    resamples: int,
    confidence: float,
    rng: np.random.Generator,
) -> Estimate:
    """A statistic [...] of scores [..., N] with its percentile interval over the bootstraps."""
    value = statistic(scores)
    if not enough(scores):
        return _without_interval(value)
    return _bounds(value, _drawn(statistic, scores, resamples, rng), confidence)


def improvement_interval(
    first: Scores,
    second: Scores,
    resamples: int,
    confidence: float,
    rng: np.random.Generator,
) -> Estimate:
    """P(X > Y) with its interval; both sides are drawn anew, each for itself."""
    value = improvement(first, second)
    if not (enough(first) and enough(second)):
        return _without_interval(value)

    # a few bootstraps at a time where pairs of runs are many
    of_tasks = zip(first, second, strict=True)
    num_pairs = [x.shape[-1] * y.shape[-1] for x, y in of_tasks]
    drawn = []
    for size in _sizes(resamples, max(1, MEMORY // max(num_pairs))):
        first_drawn = resampled(first, size, rng)
        second_drawn = resampled(second, size, rng)
        drawn.append(improvement(first_drawn, second_drawn))
    return _bounds(value, np.concatenate(drawn, axis=-1), confidence)


def profile(
    scores: Scores,
    taus: np.ndarray,
    resamples: int,
    confidence: float,
    rng: np.random.Generator,
) -> Estimate:
    """Share of runs above each of taus [P], mean over tasks, with pointwise intervals: [P]."""
    above = [(x > taus[:, None]).astype(float) for x in scores]
    return interval(mean, above, resamples, confidence, rng)


def _drawn(
    statistic: Statistic,
    scores: Scores,
    resamples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """The statistic of every bootstrap, [..., resamples], a few at a time where scores are many."""
    each = max(1, sum(x.size for x in scores))
    sizes = _sizes(resamples, max(1, MEMORY // each))
    return np.concatenate(
        [statistic(resampled(scores, size, rng)) for size in sizes],
        axis=-1,
    )


def _sizes(total: int, most: int) -> list[int]:
    return [min(most, total - begin) for begin in range(0, total, most)]


def _bounds(value: np.ndarray, drawn: np.ndarray, confidence: float) -> Estimate:
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(drawn, (tail, 1.0 - tail), axis=-1)
    return Estimate(value, low, high)


def _without_interval(value: np.ndarray) -> Estimate:
    nothing = np.full_like(value, np.nan, dtype=float)
    return Estimate(value, nothing, nothing)

"""What a trial is judged by: the IQM over its seeds, with a bootstrap interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxshare.results import statistics
from jaxshare.results.curves import Record, point_of
from jaxshare.results.statistics import Bootstrap, Estimate
from jaxshare.run.metrics import EVALUATED
from jaxshare.tune.plan import Params

Point = frozenset[tuple[str, float]]  # of a sweep: names and values
RESULT_SEED = 0  # of the bootstrap


@dataclass(frozen=True)
class Outcome:
    """What came of a trial."""

    failed: str = ""  # why it has no value
    value: float = math.nan  # the IQM over seeds
    low: float = math.nan  # the ends of its interval, NaN with one seed
    high: float = math.nan
    scores: tuple[float, ...] = ()  # of each seed


@dataclass(frozen=True)
class Trial:
    """A trial of the search. outcome: None while it is at work."""

    number: int
    batch: int  # number of the batch's first trial
    params: Params
    outcome: Outcome | None

    @property
    def is_scored(self) -> bool:
        """Whether it has a value."""
        return self.outcome is not None and not self.outcome.failed


@dataclass(frozen=True)
class Judge:
    """How a run's records become a score, and the scores of seeds an outcome."""

    metric: str  # without eval/
    last: int
    confidence: float
    resamples: int

    def outcome(self, records: Sequence[Record]) -> Outcome:
        """Of all records of the runs of a point, which came to their end or diverged."""
        values: dict[int, list[float]] = {}
        key = f"{EVALUATED}{self.metric}"
        for record in records:
            bad = divergence(record)
            if bad:
                return Outcome(bad)
            if key in record:
                values.setdefault(int(record["seed"]), []).append(record[key])
        scores = [float(np.mean(of_seed[-self.last :])) for _, of_seed in sorted(values.items())]

        # over seeds
        estimate = self.estimate(scores)
        low = float(estimate.low)
        return Outcome("", float(estimate.value), low, float(estimate.high), tuple(scores))

    def estimate(self, scores: Sequence[float]) -> Estimate:
        """The IQM of scores, with its interval."""
        bootstrap = Bootstrap(self.resamples, self.confidence, RESULT_SEED)
        return statistics.interval(statistics.iqm, [np.array(scores)], *bootstrap.arguments())


def by_point(records: Iterable[Record]) -> dict[Point, list[Record]]:
    """The records of each point of a sweep."""
    points: dict[Point, list[Record]] = {}
    for record in records:
        points.setdefault(key_of(point_of(record)), []).append(record)
    return points


def key_of(point: Mapping[str, float]) -> Point:
    """A point as a key."""
    return frozenset(point.items())


def best_of(trials: Iterable[Trial]) -> Trial | None:
    """The trial with the highest value, of equals the first; None if none has a value."""
    best: Trial | None = None
    highest = -math.inf
    for trial in trials:
        if trial.outcome is not None and trial.is_scored and trial.outcome.value > highest:
            best = trial
            highest = trial.outcome.value
    return best


def divergence(record: Record) -> str:
    """Which number of a record is not finite, the losses before others; "" if all are."""
    bad = [name for name, value in record.items() if not math.isfinite(value)]
    if not bad:
        return ""
    name = min(bad, key=lambda name: (not name.startswith("loss/"), name))
    return f"diverged: {name} of seed {record['seed']} became {record[name]}"

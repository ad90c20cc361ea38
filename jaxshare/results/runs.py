"""One run of a report: a seed of a configuration, with its evaluations."""

from __future__ import annotations

import pathlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxshare.results.curves import Curve
from jaxshare.results.played import Played
from jaxshare.settings.run_parts import POLICIES

MOST_LISTED = 40  # names in one sentence, sentences of one kind


@dataclass(frozen=True)
class Run:
    """One seed of one configuration. P evaluations while training."""

    path: pathlib.Path
    seed: int
    name: str  # "qmix+differ"
    label: str  # of its group, which the user has chosen, or ""
    settings: dict[str, Any]  # flat, without the environment's and the irrelevant ones
    env: dict[str, Any]  # the environment's, and the name of it
    data: str  # the data set that it learns from, or ""
    total: int  # environment steps, or updates with a data set
    at_once: int  # runs that one command trained together
    progress: np.ndarray  # [P]: environment steps, or updates with a data set
    wall: np.ndarray  # [P] seconds
    values: dict[str, np.ndarray]  # metric -> [P]
    # of SEAC's importance ratios: lower end of a bin -> its share, a mean over training
    ratios: dict[float, float] = field(default_factory=dict)
    played: dict[str, Played] = field(default_factory=dict)  # "final" and "best"
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether it was evaluated at its end."""
        return bool(self.progress[-1] >= self.total)

    @property
    def eval_policy(self) -> str:
        """Which policies evaluations in training play: greedy, stochastic or both."""
        return str(self.settings.get("eval.policy", "greedy"))

    def along_progress(self, metric: str) -> Curve:
        """A metric of evaluations against environment steps or updates."""
        return Curve(self.progress, self.values[metric])

    def along_wall_time(self, metric: str) -> Curve:
        """A metric of evaluations against seconds of the whole command."""
        return Curve(self.wall, self.values[metric])

    def __str__(self) -> str:
        """Its directory and seed."""
        return f"{self.path}, seed {self.seed}"


def listed(names: Sequence[str], separator: str = ", ") -> str:
    """Names in a sentence; of very many the first, and how many there are besides."""
    text = separator.join(names[:MOST_LISTED])
    rest = len(names) - MOST_LISTED
    return f"{text} and {rest:,} more" if rest > 0 else text


def shortened(sentences: Sequence[str], rest: str) -> list[str]:
    """Sentences of one kind; of very many the first, and how many there are besides: `rest`."""
    many = len(sentences) - MOST_LISTED
    return [*sentences[:MOST_LISTED], *([f"{rest}: {many:,} more."] if many > 0 else [])]


def hashable(value: object) -> Hashable:
    """Equal for equal plain values, so that thousands of runs need not be compared in pairs."""
    if isinstance(value, dict):
        return frozenset((key, hashable(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return tuple(hashable(item) for item in value)
    return value


def gather_versions(versions: Iterable[dict[str, str]]) -> dict[str, list[str]]:
    """{package: its versions, sorted} of several runs."""
    gathered: dict[str, set[str]] = {}
    for of_run in versions:
        for package, version in of_run.items():
            gathered.setdefault(package, set()).add(str(version))
    return {package: sorted(several) for package, several in gathered.items()}


def policy_of(metric: str, played: str) -> str:
    """Which policy a metric is of, where evaluations play greedy, stochastic or both."""
    prefixes = list(POLICIES.get(played, {"": False}))
    if len(prefixes) == 1:
        return played
    return "stochastic" if metric.startswith(prefixes[1]) else "greedy"

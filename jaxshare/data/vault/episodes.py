"""Where the episodes of a vault begin and end, from its flags."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

import numpy as np

from jaxshare.data.records import Array
from jaxshare.types import RefusedError


@dataclass(frozen=True)
class Ending:
    """How episodes are to be found: the options of `Stored` of these names."""

    last_step: str
    drop_first: bool
    episode_length: int


@dataclass(frozen=True)
class Episodes:
    """The whole episodes of a vault. E of them."""

    start: Array  # [E]: first row
    length: Array  # [E]: rows
    steps: Array  # [E]: of them those that count
    terminated: Array  # [E] bool
    truncated: Array  # [E] bool
    dropped_rows: int  # that belong to none

    def rows(self, chosen: Array) -> Rows:
        """Every row of some episodes. chosen: their numbers, [K]."""
        length = self.length[chosen]
        place = np.repeat(np.arange(len(chosen)), length)
        # counted from 0 within each episode
        step = np.arange(len(place)) - np.repeat(np.cumsum(length) - length, length)
        return Rows(self.start[chosen][place] + step, place, step)


@dataclass(frozen=True)
class Rows:
    """Rows of chosen episodes, one episode after the other. M of them."""

    row: Array  # [M]: in the vault
    place: Array  # [M]: of its episode among those that were chosen
    step: Array  # [M]: in its episode


def find_episodes(path: pathlib.Path, ends: Array, cuts: Array, ending: Ending) -> Episodes:
    """The episodes in M rows of N agents. Raises RefusedError if none is whole.

    path: for messages.
    ends: [M, N] bool, terminated.
    cuts: [M, N] bool, truncated.
    """
    # the last row of each, and how it ended
    rows = len(ends)
    last = np.flatnonzero((ends | cuts).all(1))
    if ending.episode_length:
        last = _also_every(last, rows, ending.episode_length)
    start = np.concatenate([[0], last + 1])[: len(last)]
    terminated = np.asarray(ends[last].all(1))
    truncated = np.asarray(cuts[last].all(1)) | ~terminated

    # steps that count: of a cut episode all but the last one, if that is masked
    length = last + 1 - start
    masked = truncated & ~terminated if ending.last_step == "mask" else 0
    steps = length - masked
    is_first = (start == 0) & ending.drop_first
    whole: Array = np.logical_and(steps > 0, ~is_first)
    if not whole.any():
        remedy = _remedy(ends | cuts, len(length) > 0, ending.episode_length)
        raise RefusedError(
            f"{path} has no whole episode: in {rows} rows no team ends that has a step to learn "
            f"from. {remedy}"
        )
    after = rows - (int(last[-1]) + 1 if len(last) else 0)
    return Episodes(
        start=start[whole],
        length=length[whole],
        steps=steps[whole],
        terminated=terminated[whole],
        truncated=truncated[whole],
        dropped_rows=after + int(length[~whole].sum()),
    )


def _also_every(last: Array, rows: int, length: int) -> Array:
    """Rows at which episodes end, [K]: the rows `last`, and where one has `length` rows."""
    begin = np.concatenate([[0], last + 1])
    end = np.concatenate([last + 1, [rows]])
    cuts = []
    for first, stop in zip(begin, end, strict=True):
        cuts.append(np.arange(first + length - 1, stop, length))
    return np.unique(np.concatenate([last, *cuts]))


def _remedy(ended: Array, any_ends: bool, episode_length: int) -> str:
    """What to do about a vault without a whole episode.

    ended: [M, N], its flags.
    any_ends: whether an episode ends somewhere.
    """
    if any_ends:
        return "Its episodes have one step: use dataset.last_step=keep, or choose another file."
    if episode_length:
        return (
            f"It has fewer rows than dataset.episode_length={episode_length}: choose a smaller one."
        )
    why = "Its flags never say that all agents have ended"
    if not ended.any():
        why = "Its flags are 0 throughout"
    return (
        f"{why}: say how long its episodes are, as in dataset.episode_length=25, or choose another "
        "file."
    )

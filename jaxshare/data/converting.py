"""A data set of one format as one of another, and what the other one cannot hold.

Every format holds observations, states, available actions, actions, deaths, the team reward, ends,
the labels of who acted, and the card. What else a data set has may be lost:

    own      nothing, unless a narrower dtype is asked for
    vault    the slot behind the last step: an episode that was cut off loses what its last step
             led to
    hdf5     rewards of each agent alone (the team's, their sum, is held), and that a true end came
             with the time limit

and, in both of the other formats, what policies said of their actions (`Episode.extras`). What was
lost before, when a vault was read, counts as well. `losses` are what a learner could have used,
`remarks` the rest.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import pathlib
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import numpy as np

from jaxshare.data import hdf5, own, padding, records, vault
from jaxshare.data.records import Card, Dataset, Source
from jaxshare.data.target import UNFINISHED, Target
from jaxshare.types import Array, RefusedError

BLOCK = 256  # episodes that are handed to the writer of the own format at a time
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Progress = Callable[[float], None]  # is told the share that is written, from 0 to 1


# ----------------------------------------------------------------------------------- what is lost


def losses(source: Source, dataset: Dataset, target: Target) -> list[str]:
    """What a learner could have used and the target does not hold, [] if nothing.

    source: what `dataset` was read from.
    """
    # what reading has lost before
    lost = []
    masked = _reading(source).get("masked_steps", 0)
    if masked:
        lost.append(
            f"the last step of {_episodes(masked)} that were cut off, since a vault does not hold "
            "what it led to (dataset.last_step=keep keeps it)"
        )

    # what only the own format holds
    if target.format != "own" and dataset.episodes.extras:
        names = ", ".join(dataset.episodes.extras)
        lost.append(f"what the policies said of their actions ({names})")
    if target.format == "hdf5" and not dataset.common_reward:
        lost.append("the reward of each agent alone (the team's, their sum, is held)")
    cut = _count_ends(dataset, truncated=True, terminated=False)
    if target.format == "vault" and cut:
        lost.append(
            f"what the last step of {_episodes(cut)} that were cut off led to, so that it is not "
            "learned from"
        )
    return lost


def remarks(source: Source, dataset: Dataset, target: Target) -> list[str]:
    """What else is not as it was, in sentences."""
    reading = _reading(source)
    notes = list(reading.get("notes", []))
    if reading.get("dropped_rows"):
        notes.append(f"{reading['dropped_rows']:,} steps of no whole episode are left out.")
    if target.format == "vault" and _count_ends(dataset, truncated=False, terminated=True):
        notes.append("what is shown behind a true end is not held; nothing is learned from it.")
    both = _count_ends(dataset, truncated=True, terminated=True)
    if target.format == "hdf5" and both:
        notes.append(f"{_episodes(both)} truly ended at the time limit: only the true end is held.")
    before = str(dataset.episodes.obs.dtype)
    after = _dtype(dataset, target)
    if after != before:
        notes.append(f"observations and states are {after}, and were {before}.")
    return notes


def summary(card: Card) -> str:
    """Episodes, steps and returns of a data set, from its card."""
    returns = card["returns"]
    ends = f"{returns['min']:.4g} to {returns['max']:.4g}"
    mean = f"mean return {returns['mean']:.4g} ({ends})"
    return f"{_episodes(card['episodes'])}, {card['steps']:,} steps, {mean}"


def told(card: Card, lost: list[str], notes: list[str]) -> list[str]:
    """Lines about a data set that was written: what it holds, what it lacks, what to know of it."""
    lines = [summary(card)]
    lines += [f"lost: {what}." for what in lost]
    return lines + [f"note: {what}" for what in notes]


def _reading(source: Source) -> Card:
    """What reading a data set of another format has done to it, {} of the own format."""
    return {} if isinstance(source, own.Stored) else source.card.get("source", {})


def _count_ends(dataset: Dataset, truncated: bool, terminated: bool) -> int:
    """How many episodes end in this way."""
    is_cut = np.asarray(dataset.episodes.truncated).any(1)
    is_over = np.asarray(dataset.episodes.terminated).any(1)
    return int(((is_cut == truncated) & (is_over == terminated)).sum())


def _episodes(count: int) -> str:
    return "1 episode" if count == 1 else f"{count:,} episodes"


def _dtype(dataset: Dataset, target: Target) -> str:
    """That of obs and state in the target."""
    if target.format != "own":
        return "float32"
    return target.dtype or str(dataset.episodes.obs.dtype)


# ---------------------------------------------------------------------------------------- writing


def write(source: Source, dataset: Dataset, target: Target, progress: Progress) -> None:
    """Write a data set without what the target cannot hold.

    It has another name until it is whole, and nothing is left of it if that fails. Raises
    RefusedError.
    """
    fitting = _fitting(source, dataset, target)
    path = target.path
    new_folders = [parent for parent in path.parents if not parent.exists()]
    try:
        if target.format == "own":
            _write_own(fitting, target, progress)
        elif target.format == "vault":
            vault.write(fitting, path, target.overwrite, progress)
        else:
            hdf5.write(fitting, path, target.overwrite, progress)
    except BaseException as error:
        _remove(path.with_name(path.name + UNFINISHED))
        for folder in new_folders:
            with suppress(OSError):  # it is not there, or another process uses it already
                folder.rmdir()
        if isinstance(error, OSError | ValueError | RuntimeError):
            raise _unwritable(path, error) from error
        raise


def _fitting(source: Source, dataset: Dataset, target: Target) -> Dataset:
    """The data set as the target can hold it, with a card that says what it was made from."""
    episodes = dataset.episodes
    card = dict(dataset.card)
    if _reading(source):
        card["converted_from"] = card.pop("source")
    if target.format != "own":
        episodes = dataclasses.replace(episodes, extras={})
    if target.format == "hdf5" and not dataset.common_reward:
        team = records.team_reward(dataset)[..., None]
        reward = np.broadcast_to(team, np.shape(episodes.reward))
        episodes = dataclasses.replace(episodes, reward=cast(Array, reward))
        card["common_reward"] = True
    return dataclasses.replace(dataset, episodes=episodes, card=card)


def _write_own(dataset: Dataset, target: Target, progress: Progress) -> None:
    dtype = _dtype(dataset, target)
    with own.Writer(target.path, dataset.card, dtype, overwrite=target.overwrite) as writer:
        for part in padding.blocks(len(dataset), BLOCK):
            writer.append(dataset.take(part))
            progress(part.stop / len(dataset))


def _remove(path: pathlib.Path) -> None:
    """Remove what a writer left of an unfinished data set."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _unwritable(path: pathlib.Path, error: Exception) -> RefusedError:
    """The error to raise about a place that cannot be written.

    tensorstore tells the number of the system's error in its text.
    """
    in_text = re.search(r"os_error_code='(\d+)'", str(error))
    code = getattr(error, "errno", None) or (int(in_text[1]) if in_text else None)
    reason = os.strerror(code) if code else str(error).strip().splitlines()[0][:200]
    remedy = "Free some space, or name" if code in FULL else "Name"
    return RefusedError(f"out={path} could not be written ({reason}). {remedy} another place.")

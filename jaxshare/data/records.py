"""Data sets of episodes for offline learning, in memory.

The episodes lie as in the replay ring (`replay.py`): episode first, arrays of numpy in the dtypes
of storage, so that a data set can be put on a device and drawn from as a ring is. Letters: E
episodes, T steps, N agents, A actions, U continuous action size, O observation, G global state.

ours: beside the episodes stand, for every agent, the level of the policy that acted (random,
medium, expert) and the number of its checkpoint. They are for judging what was learned and never
enter a loss.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import jax
import numpy as np
from jax.tree_util import GetAttrKey

from jaxshare.training import replay
from jaxshare.types import Clock, Episode, RefusedError

Array = np.ndarray[Any, Any]
Index = int | slice | Sequence[int] | Array | None  # which episodes; None is all of them
Card = dict[str, Any]

LEVELS = ("random", "medium", "expert")
UNKNOWN = -1
SLOTS = ("obs", "state", "avail", "alive")  # T+1 slots
STEPS = ("action", "reward", "terminated", "truncated", "mask")  # T steps
# and what stands where nothing is known
LABELS = {"level": UNKNOWN, "policy": UNKNOWN, "component": 0}
LABEL_DTYPES = {"level": np.int8, "policy": np.int32, "component": np.int8}
# what damaged files make readers raise
FAILURES = (ValueError, OSError, RuntimeError, KeyError, TypeError)


@dataclass(frozen=True)
class Dataset:
    """Episodes in memory. `take` and readers of a part keep the card of the whole."""

    # numpy; [E, T+1, ...] or [E, T, ...], mask [E, T] bool, obs and state in f32, f16 or bf16
    episodes: Episode
    level: Array  # [E, N] i8: index into LEVELS, or -1
    policy: Array  # [E, N] i32: which checkpoint acted, or -1
    component: Array  # [E] i8: which component of the composition
    card: Card = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.episodes.mask.shape[0])

    @property
    def num_steps(self) -> int:
        """T."""
        return int(self.episodes.mask.shape[1])

    @property
    def num_agents(self) -> int:
        """N."""
        return int(self.episodes.reward.shape[2])

    @property
    def common_reward(self) -> bool:
        """Whether every agent holds the team reward, which otherwise is the sum over agents."""
        return bool(self.card.get("common_reward", True))

    def take(self, episodes: Index) -> Dataset:
        """The episodes at an index, as a data set. Raises RefusedError if there are none such."""
        chosen = indices(episodes, len(self))
        part = jax.tree.map(lambda x: x[chosen], self.episodes)
        return Dataset(
            part, self.level[chosen], self.policy[chosen], self.component[chosen], self.card
        )


class Source(Protocol):
    """A data set on disk, of any format: its card, its number of episodes, and any part of it."""

    path: pathlib.Path
    card: Card

    def __len__(self) -> int: ...

    def read(self, episodes: Index = None) -> Dataset:
        """The episodes at an index (all by default), in memory."""


def indices(episodes: Index, total: int) -> Array:
    """Numbers of the episodes that an index means, [K] i64.

    Raises RefusedError for one outside -total..total-1.
    """
    everything = np.arange(total)
    if episodes is None or isinstance(episodes, slice):
        return everything[episodes or slice(None)]
    wanted = np.atleast_1d(np.asarray(episodes))
    try:
        return everything[wanted if wanted.size else wanted.astype(np.int64)]
    except IndexError as error:
        raise RefusedError(
            f"episodes={episodes}: {error}. There are {total} episodes, from 0 on."
        ) from error


def make(
    episodes: Episode,
    level: Array | None = None,
    policy: Array | None = None,
    component: Array | None = None,
    card: Card | None = None,
) -> Dataset:
    """A data set of episodes [E, T(+1), ...], in the dtypes of storage.

    Labels that are not given are unknown. obs and state stay in f16 or bf16 if obs is; everything
    else of floating point becomes f32.
    Raises RefusedError for an action that the dtype of storage cannot hold.
    """
    choices = episodes.avail.shape[-1]
    action = np.asarray(episodes.action)
    if choices and action.size and not 0 <= action.min() <= action.max() < choices:
        raise RefusedError(
            f"action={action.min()}..{action.max()} is not within 0..{choices - 1}. Correct it, or "
            "widen avail."
        )

    # what is not known of them
    num = len(episodes.mask)
    agents = episodes.reward.shape[-1]
    labels: dict[str, Array] = {}
    for name, label in (("level", level), ("policy", policy), ("component", component)):
        values = unknown_label(name, num, agents) if label is None else np.asarray(label)
        labels[name] = values.astype(LABEL_DTYPES[name], copy=False)
    return Dataset(_stored(episodes), card=dict(card or {}), **labels)


def _stored(episodes: Episode) -> Episode:
    """Episodes as arrays of numpy in the dtypes of storage."""
    obs_dtype = str(episodes.obs.dtype)
    if obs_dtype not in replay.DTYPES:
        obs_dtype = "float32"

    def store(path: tuple[GetAttrKey, ...], leaf: object) -> Array:
        array = np.asarray(leaf)
        dtype = np.dtype(replay.storage_dtype(path[0].name, episodes, array, obs_dtype))
        return array.astype(np.float32 if dtype == np.float64 else dtype, copy=False)

    return jax.tree_util.tree_map_with_path(store, episodes)


def from_rollout(batch: Episode, dtype: str = "float32", **labels: Any) -> Dataset:
    """A data set of a rollout's episodes [T(+1), B, ...], laid out by the replay itself.

    labels: as in `make`.
    Raises RefusedError for observations or states beyond the range of `dtype`.
    """
    count = batch.mask.shape[1]
    zero = cast(jax.Array, np.int32(0))
    ring = replay.add(replay.init(batch, count, dtype), batch, Clock(zero, zero, zero, zero))
    if replay.any_outside(ring):
        raise RefusedError(
            f"dtype={dtype} holds numbers within {replay.RANGES[dtype]} only. Use dtype=float32."
        )
    return make(jax.tree.map(np.asarray, ring), **labels)


def concatenate(parts: Sequence[Dataset]) -> Dataset:
    """Data sets of one environment one after the other, with the card of the first."""
    episodes = jax.tree.map(lambda *x: np.concatenate(x), *[part.episodes for part in parts])
    labels = {}
    for name in LABELS:
        labels[name] = np.concatenate([getattr(part, name) for part in parts])
    return Dataset(episodes, card=parts[0].card, **labels)


def team_reward(dataset: Dataset) -> Array:
    """Reward of the team at each step, [E, T] f32, 0 after the end."""
    reward: Array = np.asarray(dataset.episodes.reward)
    team: Array = reward[..., 0] if dataset.common_reward else reward.sum(-1)
    return team * np.asarray(dataset.episodes.mask)


def returns(dataset: Dataset) -> Array:
    """Undiscounted team return of each episode, [E] f64."""
    return team_reward(dataset).sum(1, dtype=np.float64)


def lengths(dataset: Dataset) -> Array:
    """Steps of each episode, [E] i64."""
    return np.asarray(dataset.episodes.mask).sum(1, dtype=np.int64)


def flat(dataset: Dataset) -> dict[str, Array]:
    """Every array of a data set by name; extras as "extras.<name>"."""
    fields = {name: getattr(dataset.episodes, name) for name in (*SLOTS, *STEPS)}
    extras = {f"extras.{name}": x for name, x in dataset.episodes.extras.items()}
    return fields | extras | {name: getattr(dataset, name) for name in LABELS}


def unflat(fields: dict[str, Any], card: Card) -> Dataset:
    """The inverse of `flat`."""
    extras = {
        name.removeprefix("extras."): x for name, x in fields.items() if name.startswith("extras.")
    }
    episodes = Episode(**{name: fields[name] for name in (*SLOTS, *STEPS)}, extras=extras)
    return Dataset(episodes, card=card, **{name: fields[name] for name in LABELS})


def known_labels(dataset: Dataset) -> dict[str, Array]:
    """The labels of a data set that say something."""
    labels = {name: getattr(dataset, name) for name in LABELS}
    return {name: label for name, label in labels.items() if (label != LABELS[name]).any()}


def unknown_label(name: str, episodes: int, agents: int) -> Array:
    """What stands in a data set for a label that its file does not have.

    Returns [E, N], or [E] for the component.
    """
    return np.full((episodes,) if name == "component" else (episodes, agents), LABELS[name])


def damaged(path: object, what: str, error: Exception | None = None) -> RefusedError:
    """The error to raise about a file that is of its format and cannot be read."""
    detail = ""
    if error is not None and str(error):
        first_line = str(error).splitlines()[0]
        detail = f" ({first_line[:300]})"
    return RefusedError(f"{path} is damaged: {what}{detail}. Copy it again, or make it again.")

"""Agents of a type exchanged at random, as in the orange curve of SIT's Fig. 1 (f).

paper: "randomly exchanging local observations and actions among agents", no more. ours: once for
each episode, so that every trajectory stays one of a single policy, and only among agents of a
type, whose observations and actions mean the same. What belongs to an agent goes with it: reward,
life, available actions, and the labels of who acted. State and ends stay.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxshare.data.records import SLOTS, Array, Dataset
from jaxshare.types import RefusedError

OF_AGENTS = (*(name for name in SLOTS if name != "state"), "action", "reward")


def exchange(dataset: Dataset, seed: int) -> Dataset:
    """The data set with the agents of each type in a random order, anew in each episode.

    Raises RefusedError if no two agents are of one type, by the card.
    """
    types = dataset.card.get("agent_types") or ["agent"] * dataset.num_agents
    if len(set(types)) == len(types):
        raise RefusedError(
            f"exchange=true: each of the {len(types)} agents is of a type of its own "
            f"({', '.join(types)}), and there is nobody to exchange with. Leave it out."
        )
    order = orders(types, len(dataset), seed)

    # what has agents on its third axis, [E, T(+1), N, ...], and the labels [E, N]
    episodes = dataset.episodes
    changes: dict[str, Any] = {
        name: _reordered(getattr(episodes, name), order) for name in OF_AGENTS
    }
    changes["extras"] = {name: _extra(x, order) for name, x in episodes.extras.items()}
    replaced = jax.tree.map(np.asarray, dataclasses.replace(episodes, **changes))
    return dataclasses.replace(
        dataset,
        episodes=replaced,
        level=np.take_along_axis(dataset.level, order, axis=1),
        policy=np.take_along_axis(dataset.policy, order, axis=1),
        card={**dataset.card, "exchanged": {"seed": seed}},
    )


def orders(types: Sequence[str], episodes: int, seed: int) -> Array:
    """Which agent of the data stands in each agent's place, [E, N]: one of its own type."""
    draw = np.random.default_rng(seed)
    order = np.tile(np.arange(len(types)), (episodes, 1))
    for of_type in sorted(set(types)):
        members = np.flatnonzero(np.array(types) == of_type)
        order[:, members] = draw.permuted(np.tile(members, (episodes, 1)), axis=1)
    return order


def _reordered(x: object, order: Array) -> Array:
    """[E, T, N, ...] in the order [E, N] of each episode."""
    array = np.asarray(x)
    index = order.reshape(len(order), 1, order.shape[1], *(1,) * (array.ndim - 3))
    return np.take_along_axis(array, index, axis=2)


def _extra(x: object, order: Array) -> Array:
    """What policies said of their actions: of each agent, or of the team, which stays."""
    array = np.asarray(x)
    has_agents = array.ndim > 2 and array.shape[2] == order.shape[1]
    return _reordered(array, order) if has_agents else array

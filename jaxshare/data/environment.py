"""Whether a data set is of an environment, and what its card keeps of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxshare.data.records import Array, Card, Dataset
from jaxshare.types import Box, Discrete, EnvSpec, RefusedError

SLACK = 1e-4  # share of a box by which an action may miss it: rounding where actions are scaled
PLAIN = ("name", "num_agents", "obs_dim", "state_dim", "episode_limit", "common_reward", "pure")


@dataclass(frozen=True)
class Compared:
    """Something that both a data set and an environment know."""

    name: str
    ours: object
    theirs: object


def check_spec(dataset: Dataset, spec: EnvSpec, where: str = "data set") -> None:
    """Raise RefusedError that names everything in which a data set is not of an environment.

    Sizes are compared with the arrays; name, groups, time limit and kind of reward with the card,
    as far as it knows them. Without a time limit on the card the episodes must fit into the
    environment's.
    """
    differing = []
    for pair in [*_sizes(dataset, spec), *_of_card(dataset, spec), *_bounds(dataset, spec)]:
        if pair.ours != pair.theirs:
            differing.append(f"{pair.name}: {pair.ours} in the data, {pair.theirs} in {spec.name}")
    if differing:
        raise RefusedError(
            f"{where} is not of the environment {spec.name}: {'; '.join(differing)}. Choose the "
            "environment that it was collected in, with the same settings, or another data "
            f"set.{_rewards_remedy(dataset, spec)}"
        )


def _rewards_remedy(dataset: Dataset, spec: EnvSpec) -> str:
    """How to read a vault's or an HDF5 file's rewards as the environment's, if these differ."""
    form = str(dataset.card.get("source", {}).get("format", ""))
    if not form or dataset.common_reward == spec.common_reward:
        return ""
    if spec.common_reward:
        return " To give all agents the mean of their rewards, use dataset.rewards=mean."
    if form.startswith("vault"):
        return " To read the rewards as those of each agent alone, use dataset.rewards=individual."
    return ""


def _sizes(dataset: Dataset, spec: EnvSpec) -> list[Compared]:
    episode = dataset.episodes
    agents = Compared("num_agents", dataset.num_agents, spec.num_agents)
    obs = Compared("obs_dim", episode.obs.shape[-1], spec.obs_dim)
    state = Compared("state_dim", episode.state.shape[-1], spec.state_dim)
    action = Compared("action", _action_of(dataset), _action_sizes(spec))
    return [agents, obs, state, action]


def _bounds(dataset: Dataset, spec: EnvSpec) -> list[Compared]:
    """Whether real numbers of the right size lie in their box."""
    action = np.asarray(dataset.episodes.action)
    box = spec.action
    if not isinstance(box, Box) or action.ndim != 4 or action.shape[-1] != box.dim:
        return []
    inside = _within(action[np.asarray(dataset.episodes.mask)], box)
    return [Compared("actions within their bounds", inside, True)]


def _of_card(dataset: Dataset, spec: EnvSpec) -> list[Compared]:
    """What the card knows of the environment."""
    known = dataset.card.get("spec") or {}
    theirs = spec_card(spec)
    pairs = []
    for name in ("name", "groups", "group_names"):
        if name in known:
            pairs.append(Compared(name, known[name], theirs[name]))
    if "common_reward" in dataset.card:
        pairs.append(Compared("common_reward", dataset.common_reward, spec.common_reward))

    # the time limit, or whether the episodes fit into it
    if "episode_limit" in known:
        pairs.append(Compared("episode_limit", known["episode_limit"], spec.episode_limit))
    elif dataset.num_steps > spec.episode_limit:
        most = f"at most {spec.episode_limit}"
        pairs.append(Compared("steps of the longest episode", dataset.num_steps, most))
    return pairs


def _action_of(dataset: Dataset) -> str:
    episode = dataset.episodes
    if episode.action.ndim == 3:
        return f"{episode.avail.shape[-1]} choices"
    return f"{episode.action.shape[-1]} numbers"


def _action_sizes(spec: EnvSpec) -> str:
    if isinstance(spec.action, Discrete):
        return f"{spec.action.num_actions} choices"
    return f"{spec.action.dim} numbers"


def _within(action: Array, box: Box) -> bool:
    """Whether actions [..., U] lie in a box."""
    low = np.asarray(box.low)
    high = np.asarray(box.high)
    slack = SLACK * np.maximum(high - low, 1.0)
    return bool((action >= low - slack).all() and (action <= high + slack).all())


def spec_card(spec: EnvSpec) -> dict[str, Any]:
    """What a card keeps of an EnvSpec: plain values."""
    plain = {name: getattr(spec, name) for name in PLAIN}
    plain["action"] = _plain_action(spec.action)
    plain["groups"] = list(spec.groups)
    plain["group_names"] = list(spec.group_names)
    return plain


def _plain_action(action: Discrete | Box) -> dict[str, Any]:
    if isinstance(action, Discrete):
        return {"num_actions": action.num_actions}
    return {"dim": action.dim, "low": list(action.low), "high": list(action.high)}


def spec_from_card(card: Card) -> EnvSpec:
    """The EnvSpec of the environment that a data set was collected in.

    Raises RefusedError if its card has none.
    """
    if not card.get("spec"):
        raise RefusedError(
            "The card of this data set does not describe its environment: name one (env=...)."
        )
    plain: dict[str, Any] = dict(card["spec"])
    for name in ("groups", "group_names"):
        plain[name] = tuple(plain[name])

    # the space of actions
    about = plain.pop("action")
    action: Discrete | Box
    if "num_actions" in about:
        action = Discrete(**about)
    else:
        action = Box(about["dim"], tuple(about["low"]), tuple(about["high"]))
    return EnvSpec(**plain, action=action)

"""What a data set must be before it is written or learned from: each failed check says where, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxshare.data.records import LEVELS, Array, Dataset, flat
from jaxshare.types import Box, Discrete, EnvSpec, RefusedError

BLOCK = 256  # episodes that are checked at a time, so that the check takes little memory
SLACK = 1e-4  # share of a box by which a stored action may miss it: rounding where an environment scales actions


def check(dataset: Dataset, where: str = "data set") -> None:
    """Raise RefusedError unless shapes agree and every value can be learned from; `where` names it in the message.

    Refused: no episode; unequal shapes; NaN or infinity, in padding too (0 * nan is nan); a mask that is not a run of
    ones from step 0; an episode without an end, or with more than one; an agent without an available action, in
    padding too; an action that was taken and is not available; a level that is none.
    """
    check_shapes(dataset, where)
    for first, block in _blocks(dataset):
        for name, values in flat(block).items():
            if np.issubdtype(values.dtype, np.floating) or values.dtype.name == "bfloat16":
                bad = ~np.isfinite(values.astype(np.float32, copy=False))
                _refuse(
                    bad,
                    f"{where}: {name} is not a finite number",
                    first,
                    "Leave such episodes out.",
                )
        _check_ends(block, where, first)
        _check_actions(block, where, first)
    bad = (dataset.level < -1) | (dataset.level >= len(LEVELS))
    _refuse(
        bad,
        f"{where}: level is none of 0 random, 1 medium, 2 expert, -1 unknown",
        0,
        "Correct the label.",
    )


def check_flags(values: Array, name: str, where: object) -> None:
    """Raise RefusedError unless every value is 0 or 1, as flags and masks are in files of other formats."""
    if values.dtype == bool:
        return
    wrong = (values != 0) & (values != 1)  # also where one is nan
    if wrong.any():
        raise RefusedError(
            f"{where} is damaged: {name} holds {values[wrong][0]}, which is neither 0 nor 1 (in {int(wrong.sum())} of "
            f"{values.size} places). Copy it again, or make it again."
        )


def _blocks(dataset: Dataset) -> Iterator[tuple[int, Dataset]]:
    for first in range(0, len(dataset), BLOCK):
        yield first, dataset.take(slice(first, first + BLOCK))


def check_shapes(dataset: Dataset, where: str) -> None:
    """Raise RefusedError unless the shapes and dtypes of a data set agree; `where` names it in the message."""
    episode: Any = dataset.episodes
    if episode.mask.ndim != 2 or 0 in episode.mask.shape:
        raise RefusedError(
            f"{where}: mask has shape {episode.mask.shape}: no episode, or none with a step. Collect some."
        )
    if (
        episode.reward.ndim != 3
        or episode.obs.ndim != 4
        or episode.state.ndim != 3
        or episode.avail.ndim != 4
    ):
        shapes = {
            name: getattr(episode, name).shape for name in ("obs", "state", "avail", "reward")
        }
        raise RefusedError(
            f"{where}: shapes {shapes} are not obs [E, T+1, N, O], state [E, T+1, G], avail [E, T+1, N, A] and "
            "reward [E, T, N]. Lay the arrays out so."
        )
    (num, steps), agents = episode.mask.shape, episode.reward.shape[2]
    discrete = np.issubdtype(episode.action.dtype, np.integer)
    expected = {
        "obs": (num, steps + 1, agents, episode.obs.shape[-1]),
        "state": (num, steps + 1, episode.state.shape[-1]),
        "avail": (num, steps + 1, agents, episode.avail.shape[-1]),
        "alive": (num, steps + 1, agents),
        "action": (num, steps, agents) + (() if discrete else episode.action.shape[3:4] or (1,)),
        "reward": (num, steps, agents),
        "terminated": (num, steps),
        "truncated": (num, steps),
        "mask": (num, steps),
        "level": (num, agents),
        "policy": (num, agents),
        "component": (num,),
    }
    for name, values in flat(dataset).items():
        wanted = expected.get(name, (num, steps, *values.shape[2:]))
        if values.shape != wanted:
            raise RefusedError(
                f"{where}: {name} has shape {values.shape}, the other fields ask for {wanted}."
            )
    for name in ("avail", "alive", "terminated", "truncated", "mask"):
        if getattr(episode, name).dtype != bool:
            raise RefusedError(
                f"{where}: {name} is {getattr(episode, name).dtype}, not bool. Convert it."
            )
    if discrete != (episode.avail.shape[-1] > 0):
        kind = "whole numbers" if discrete else "real numbers"
        raise RefusedError(
            f"{where}: action holds {kind} and avail has {episode.avail.shape[-1]} actions. Discrete actions need "
            "avail [E, T+1, N, A], continuous ones [E, T+1, N, 0]."
        )


def _check_ends(block: Dataset, where: str, first: int) -> None:
    episode: Any = block.episodes
    mask = episode.mask
    _refuse(
        ~mask[:, :1],
        f"{where}: the episode has no step (mask is 0 at its first)",
        first,
        "Leave it out.",
    )
    off = np.zeros_like(mask[:, :1])
    again = mask & ~np.concatenate([~off, mask[:, :-1]], axis=1)
    _refuse(again, f"{where}: mask is not a run of ones", first, "Pad at the end only.")
    last = mask & ~np.concatenate([mask[:, 1:], off], axis=1)
    end = episode.terminated | episode.truncated
    remedy = "Exactly the last step of an episode is terminated or truncated; leave partial episodes out."
    _refuse(
        last & ~end,
        f"{where}: the last step of the episode is neither terminated nor truncated",
        first,
        remedy,
    )
    _refuse(
        end & ~last,
        f"{where}: terminated or truncated where the episode does not end",
        first,
        remedy,
    )


def _check_actions(block: Dataset, where: str, first: int) -> None:
    episode: Any = block.episodes
    if not episode.avail.shape[-1]:
        return
    none = ~episode.avail.any(-1)
    _refuse(
        none,
        f"{where}: no action is available to the agent",
        first,
        "Give it one (all of them after the end).",
    )
    action = episode.action.astype(np.int64)
    outside = (action < 0) | (action >= episode.avail.shape[-1])
    _refuse(
        outside,
        f"{where}: action is none of {episode.avail.shape[-1]}",
        first,
        "Correct it, or widen avail.",
    )
    taken = np.take_along_axis(episode.avail[:, :-1], action[..., None], axis=-1)[..., 0]
    bad = ~taken & episode.mask[..., None]
    _refuse(
        bad,
        f"{where}: the action taken is not available",
        first,
        "Record the action that took effect.",
    )


def _refuse(bad: Array, what: str, first: int, remedy: str) -> None:
    """Raise RefusedError at the first true entry of `bad` [block, ...]; `first` is the block's first episode."""
    if not bad.any():
        return
    episode, *rest = (int(i) for i in np.argwhere(bad)[0])
    place = f"episode {first + episode}" + (f" at {rest}" if rest else "")
    raise RefusedError(
        f"{what} ({place}; {int(bad.sum())} times in a row of {len(bad)} episodes). {remedy}"
    )


def check_spec(dataset: Dataset, spec: EnvSpec, where: str = "data set") -> None:
    """Raise RefusedError that names everything in which a data set is not of the environment `spec`.

    Sizes are compared with the arrays; name, groups, time limit and kind of reward with the card, as far as it knows
    them. Without a time limit on the card the episodes must fit into the environment's.
    """
    differing = [
        f"{name}: {ours} in the data, {theirs} in {spec.name}"
        for name, ours, theirs in _compared(dataset, spec)
        if ours != theirs
    ]
    if differing:
        raise RefusedError(
            f"{where} is not of the environment {spec.name}: {'; '.join(differing)}. "
            "Choose the environment that it was collected in, with the same settings, or another data set."
            + _rewards_remedy(dataset, spec)
        )


def _rewards_remedy(dataset: Dataset, spec: EnvSpec) -> str:
    """How to read the rewards of a vault or an HDF5 file as those of the environment, if that is what differs."""
    form = str(dataset.card.get("source", {}).get("format", ""))
    if not form or dataset.common_reward == spec.common_reward:
        return ""
    if spec.common_reward:
        return " To give all agents the mean of their rewards, use dataset.rewards=mean."
    if form.startswith("vault"):
        return " To read the rewards as those of each agent alone, use dataset.rewards=individual."
    return ""


def _compared(dataset: Dataset, spec: EnvSpec) -> list[tuple[str, Any, Any]]:
    """(name, value of the data set, value of the spec) of everything that both know."""
    episode: Any = dataset.episodes
    known = dataset.card.get("spec") or {}
    theirs = spec_card(spec)
    pairs: list[tuple[str, Any, Any]] = [
        ("num_agents", dataset.num_agents, spec.num_agents),
        ("obs_dim", episode.obs.shape[-1], spec.obs_dim),
        ("state_dim", episode.state.shape[-1], spec.state_dim),
        ("action", _action_of(dataset), _action_sizes(spec)),
    ]
    pairs += [
        (name, known[name], theirs[name])
        for name in ("name", "groups", "group_names")
        if name in known
    ]
    if "common_reward" in dataset.card:
        pairs.append(("common_reward", dataset.common_reward, spec.common_reward))
    if "episode_limit" in known:
        pairs.append(("episode_limit", known["episode_limit"], spec.episode_limit))
    elif dataset.num_steps > spec.episode_limit:
        pairs.append(
            ("steps of the longest episode", dataset.num_steps, f"at most {spec.episode_limit}")
        )
    if (
        isinstance(spec.action, Box)
        and episode.action.shape[-1] == spec.action.dim
        and episode.action.ndim == 4
    ):
        pairs.append(
            (
                "actions within their bounds",
                _within(episode.action[episode.mask], spec.action),
                True,
            )
        )
    return pairs


def _action_of(dataset: Dataset) -> str:
    episode: Any = dataset.episodes
    return (
        f"{episode.avail.shape[-1]} choices"
        if episode.action.ndim == 3
        else f"{episode.action.shape[-1]} numbers"
    )


def _action_sizes(spec: EnvSpec) -> str:
    return (
        f"{spec.action.num_actions} choices"
        if isinstance(spec.action, Discrete)
        else f"{spec.action.dim} numbers"
    )


def _within(action: Array, box: Box) -> bool:
    """Whether actions [..., U] lie in a box."""
    low, high = np.asarray(box.low), np.asarray(box.high)
    slack = SLACK * np.maximum(high - low, 1.0)
    return bool((action >= low - slack).all() and (action <= high + slack).all())


def spec_card(spec: EnvSpec) -> dict[str, Any]:
    """What a card keeps of an EnvSpec: plain values."""
    if isinstance(spec.action, Discrete):
        action: dict[str, Any] = {"num_actions": spec.action.num_actions}
    else:
        action = {
            "dim": spec.action.dim,
            "low": list(spec.action.low),
            "high": list(spec.action.high),
        }
    names = ("name", "num_agents", "obs_dim", "state_dim", "episode_limit", "common_reward", "pure")
    plain = {name: getattr(spec, name) for name in names}
    return plain | {
        "action": action,
        "groups": list(spec.groups),
        "group_names": list(spec.group_names),
    }


def spec_from_card(card: dict[str, Any]) -> EnvSpec:
    """The EnvSpec of the environment that a data set was collected in. Raises RefusedError if its card has none."""
    kept = card.get("spec")
    if not kept:
        raise RefusedError(
            "The card of this data set does not describe its environment: name one (env=...)."
        )
    plain: dict[str, Any] = dict(kept)
    action = plain.pop("action")
    discrete = "num_actions" in action
    space = (
        Discrete(**action)
        if discrete
        else Box(action["dim"], tuple(action["low"]), tuple(action["high"]))
    )
    names: dict[str, Any] = {name: tuple(plain.pop(name)) for name in ("groups", "group_names")}
    return EnvSpec(**plain, **names, action=space)

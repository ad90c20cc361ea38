"""What a data set must be before it is written or learned from.

Each failed check says where, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jaxshare.data.records import LEVELS, Array, Dataset, flat
from jaxshare.types import Episode, RefusedError

BLOCK = 256  # episodes that are checked at a time, so that the check takes little memory
RANKS = {"obs": 4, "state": 3, "avail": 4, "reward": 3}
FLAGS = ("avail", "alive", "terminated", "truncated", "mask")


@dataclass(frozen=True)
class Block:
    """Some episodes of a data set."""

    dataset: Dataset
    first: int  # number of its first episode
    where: str  # what messages call the data set

    def refuse(self, bad: Array, what: str, remedy: str) -> None:
        """Raise RefusedError at the first true entry of `bad` [block, ...]."""
        if not bad.any():
            return
        episode, *rest = (int(i) for i in np.argwhere(bad)[0])
        place = f"episode {self.first + episode}" + (f" at {rest}" if rest else "")
        times = f"{int(bad.sum())} times in a row of {len(bad)} episodes"
        raise RefusedError(f"{self.where}: {what} ({place}; {times}). {remedy}")


def check(dataset: Dataset, where: str = "data set") -> None:
    """Raise RefusedError unless shapes agree and every value can be learned from.

    where: what messages call the data set.
    Refused: no episode; unequal shapes; NaN or infinity, in padding too (0 * nan is nan); a mask
    that is not a run of ones from step 0; an episode without an end, or with several; an agent
    without an available action, in padding too; an action that was taken and is not available; a
    level that is none.
    """
    check_shapes(dataset, where)
    for block in _blocks(dataset, where):
        _check_finite(block)
        _check_ends(block)
        _check_actions(block)

    # labels take little memory
    whole = Block(dataset, 0, where)
    bad = (dataset.level < -1) | (dataset.level >= len(LEVELS))
    levels = "0 random, 1 medium, 2 expert, -1 unknown"
    whole.refuse(bad, f"level is none of {levels}", "Correct the label.")


def check_flags(values: Array, name: str, where: object) -> None:
    """Raise RefusedError unless every value is 0 or 1, as flags are in files of other formats.

    values: [...], of any shape.
    name, where: for the message.
    """
    if values.dtype == bool:
        return
    wrong = (values != 0) & (values != 1)  # also where one is nan
    if wrong.any():
        first = values[wrong][0]
        places = f"{int(wrong.sum())} of {values.size} places"
        raise RefusedError(
            f"{where} is damaged: {name} holds {first}, which is neither 0 nor 1 (in {places}). "
            "Copy it again, or make it again."
        )


def _blocks(dataset: Dataset, where: str) -> Iterator[Block]:
    for first in range(0, len(dataset), BLOCK):
        yield Block(dataset.take(slice(first, first + BLOCK)), first, where)


# ------------------------------------------------------------------------------------------ shapes


def check_shapes(dataset: Dataset, where: str) -> None:
    """Raise RefusedError unless the shapes and dtypes of a data set agree.

    where: what messages call the data set.
    """
    # ranks, without which there are no sizes
    episode = dataset.episodes
    if episode.mask.ndim != 2 or 0 in episode.mask.shape:
        shape = tuple(episode.mask.shape)
        raise RefusedError(
            f"{where}: mask has shape {shape}: no episode, or none with a step. Collect some."
        )
    shapes = {name: getattr(episode, name).shape for name in RANKS}
    if any(len(shapes[name]) != rank for name, rank in RANKS.items()):
        raise RefusedError(
            f"{where}: shapes {shapes} are not obs [E, T+1, N, O], state [E, T+1, G], avail [E, "
            "T+1, N, A] and reward [E, T, N]. Lay the arrays out so."
        )

    # sizes
    expected = _expected_shapes(episode)
    for name, values in flat(dataset).items():
        wanted = expected.get(name, (*episode.mask.shape, *values.shape[2:]))
        if values.shape != wanted:
            raise RefusedError(
                f"{where}: {name} has shape {values.shape}, the other fields ask for {wanted}."
            )

    # dtypes
    for name in FLAGS:
        dtype = getattr(episode, name).dtype
        if dtype != np.bool_:
            raise RefusedError(f"{where}: {name} is {dtype}, not bool. Convert it.")
    if _is_discrete(episode) != (episode.avail.shape[-1] > 0):
        kind = "whole numbers" if _is_discrete(episode) else "real numbers"
        raise RefusedError(
            f"{where}: action holds {kind} and avail has {episode.avail.shape[-1]} actions. "
            "Discrete actions need avail [E, T+1, N, A], continuous ones [E, T+1, N, 0]."
        )


def _is_discrete(episode: Episode) -> bool:
    return bool(np.issubdtype(episode.action.dtype, np.integer))


def _expected_shapes(episode: Episode) -> dict[str, tuple[int, ...]]:
    """The shape of every array but extras, by the sizes of mask, reward, obs, state and avail."""
    num, steps = episode.mask.shape
    agents = episode.reward.shape[2]
    action = () if _is_discrete(episode) else episode.action.shape[3:4] or (1,)

    # T + 1 slots
    slots = (num, steps + 1)
    expected: dict[str, tuple[int, ...]] = {}
    expected["obs"] = (*slots, agents, episode.obs.shape[-1])
    expected["state"] = (*slots, episode.state.shape[-1])
    expected["avail"] = (*slots, agents, episode.avail.shape[-1])
    expected["alive"] = (*slots, agents)

    # T steps
    expected["action"] = (num, steps, agents, *action)
    expected["reward"] = (num, steps, agents)
    expected |= dict.fromkeys(("terminated", "truncated", "mask"), (num, steps))

    # labels of episodes
    expected |= dict.fromkeys(("level", "policy"), (num, agents))
    return expected | {"component": (num,)}


# ------------------------------------------------------------------------------------------ values


def _check_finite(block: Block) -> None:
    for name, values in flat(block.dataset).items():
        if np.issubdtype(values.dtype, np.floating) or values.dtype.name == "bfloat16":
            bad = ~np.isfinite(values.astype(np.float32, copy=False))
            block.refuse(bad, f"{name} is not a finite number", "Leave such episodes out.")


def _check_ends(block: Block) -> None:
    # steps, from the first on
    episode = block.dataset.episodes
    mask = np.asarray(episode.mask)
    no_step = "the episode has no step (mask is 0 at its first)"
    block.refuse(~mask[:, :1], no_step, "Leave it out.")
    off = np.zeros_like(mask[:, :1])
    again = mask & ~np.concatenate([~off, mask[:, :-1]], axis=1)
    block.refuse(again, "mask is not a run of ones", "Pad at the end only.")

    # one end, in the last step
    last = mask & ~np.concatenate([mask[:, 1:], off], axis=1)
    end = np.asarray(episode.terminated) | np.asarray(episode.truncated)
    rule = "Exactly the last step of an episode is terminated or truncated"
    remedy = f"{rule}; leave partial episodes out."
    no_end = "the last step of the episode is neither terminated nor truncated"
    block.refuse(last & ~end, no_end, remedy)
    too_early = "terminated or truncated where the episode does not end"
    block.refuse(end & ~last, too_early, remedy)


def _check_actions(block: Block) -> None:
    # something to choose, everywhere
    episode = block.dataset.episodes
    avail = np.asarray(episode.avail)
    choices = avail.shape[-1]
    if not choices:
        return
    none = ~np.asarray(avail.any(-1))
    remedy = "Give it one (all of them after the end)."
    block.refuse(none, "no action is available to the agent", remedy)

    # and chosen from it, where a step counts
    action = np.asarray(episode.action).astype(np.int64)
    outside = (action < 0) | (action >= choices)
    block.refuse(outside, f"action is none of {choices}", "Correct it, or widen avail.")
    avail_of_steps = avail[:, :-1]  # not of the last slot, in which nothing is chosen
    taken = np.take_along_axis(avail_of_steps, action[..., None], axis=-1)[..., 0]
    bad = ~taken & np.asarray(episode.mask)[..., None]
    remedy = "Record the action that took effect."
    block.refuse(bad, "the action taken is not available", remedy)

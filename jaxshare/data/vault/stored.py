"""A vault on disk, read in parts."""

from __future__ import annotations

import math
import pathlib
from typing import Any, Literal, TypedDict, Unpack

import numpy as np

from jaxshare.data import limits, options, padding, records
from jaxshare.data.card import summary
from jaxshare.data.checks import check, check_flags
from jaxshare.data.records import LABELS, Array, Card, Dataset, Index
from jaxshare.data.vault import arrays, metadata
from jaxshare.data.vault.checks import check_descriptions, check_leaves
from jaxshare.data.vault.episodes import Ending, Rows, find_episodes
from jaxshare.data.vault.layout import Layout
from jaxshare.data.vault.metadata import VERSION
from jaxshare.types import Episode, RefusedError

FLAGS = ("terminals", "truncations", "infos.legals", "infos.alive")  # 0 or 1


class Asked(TypedDict, total=False):
    """Options of `Stored`."""

    rewards: Literal["team", "mean", "individual"]
    last_step: Literal["mask", "keep"]
    drop_first: bool
    num_actions: int | None
    episode_length: int


class Stored:
    """A vault on disk.

    Where episodes end and what they return is in memory; the rest is read when it is asked for.

    rewards: "team" refuses agents with unequal rewards; "mean" gives each of them the mean;
    "individual" leaves them.
    last_step: "mask" or "keep", see `jaxshare.data.vault`.
    drop_first: leave out the first episode.
    num_actions: of files without infos.legals, if more than were ever taken.
    episode_length: see there; 0: episodes end by their flags.
    """

    def __init__(
        self,
        path: str | pathlib.Path,
        rewards: Literal["team", "mean", "individual"] = "team",
        last_step: Literal["mask", "keep"] = "mask",
        drop_first: bool = False,
        num_actions: int | None = None,
        episode_length: int = 0,
    ) -> None:
        # check what the file claims before anything of it is read
        self.path = metadata.folder_of(pathlib.Path(path))
        about = metadata.read(self.path)
        names = metadata.names(self.path, about)
        self._leaves = {name: arrays.open_array(self.path, f"{name}.") for name in names}
        self._num_rows = arrays.num_rows(self.path)
        check_leaves(self.path, self._leaves, self._num_rows)
        check_descriptions(self.path, self._leaves, about, self._num_rows)
        size = self._num_rows * self._row_bytes()
        limits.check_size(self.path, size, limits.bytes_on_disk(self.path))
        metadata.check_sums(self.path, about)

        # what is kept in memory
        everything = slice(self._num_rows)
        ends = self._leaf("terminals", everything) != 0
        cuts = np.zeros_like(ends)
        if "truncations" in self._leaves:
            cuts = self._leaf("truncations", everything) != 0
        ending = Ending(last_step, drop_first, episode_length)
        self._episodes = find_episodes(self.path, ends, cuts, ending)
        self._num_actions = self._count_actions(num_actions)
        self._padding = {name: self._find_padding(name) for name in ("observations", "infos.state")}

        # a card of ours says whose the rewards are
        card = dict(about.get("jaxshare") or {})
        if rewards == "team" and not card.get("common_reward", True):
            rewards = "individual"
        self._rewards = rewards
        self.card = self._complete(card, last_step)

    def __len__(self) -> int:
        return len(self._episodes.start)

    def _row_bytes(self) -> int:
        return sum(arrays.row_bytes(array) for array in self._leaves.values())

    def _find_padding(self, name: str) -> Array:
        """Which columns of a leaf pad, [N, O] or [G] bool."""
        if name not in self._leaves:
            return np.zeros(0, bool)
        return padding.infinite_columns(
            lambda rows: self._leaf(name, rows), padding.blocks(self._num_rows)
        )

    def _count_actions(self, num_actions: int | None) -> int:
        """A, or 0 of continuous actions."""
        if not np.issubdtype(self._leaves["actions"].dtype.numpy_dtype, np.integer):
            return 0
        if "infos.legals" in self._leaves:
            return int(self._leaves["infos.legals"].shape[-1])
        taken = int(self._leaf("actions", slice(self._num_rows)).max()) + 1
        if num_actions and num_actions < taken:
            raise RefusedError(
                f"dataset.num_actions={num_actions}, but {self.path} holds action {taken - 1}. "
                f"Give {taken} or more."
            )
        return num_actions or taken

    def _complete(self, card: Card, last_step: str) -> Card:
        """The file's own card, or one made from its path, with the numbers of its episodes."""
        # returns are those of the whole episodes, masked steps included
        every = np.arange(len(self))
        rows = self._episodes.rows(every)
        reward = self._team(self._leaf("rewards", rows.row))
        team = reward[:, 0] if self._rewards != "individual" else reward.sum(1)
        returns = np.bincount(rows.place, weights=team, minlength=len(self))

        # what reading does to it
        notes: list[str] = []
        for name, columns in self._padding.items():
            notes += padding.note(name, columns)
        masked_steps = int((self._episodes.length - self._episodes.steps).sum())
        short_path = "/".join(self.path.parts[-4:])
        source: Card = {
            "format": f"vault {VERSION}",
            "name": short_path,
            "last_step": last_step,
            "dropped_rows": self._episodes.dropped_rows,
            "masked_steps": masked_steps,
            "notes": notes,
        }
        level = self._label("level", every)
        component = self._label("component", every)
        scenario = self.path.parent.name.removesuffix(".vlt")
        named: Card = {
            "environment": self.path.parent.parent.name,
            "scenario": scenario,
            **card,
            "common_reward": self._rewards != "individual",
        }
        numbers = summary(returns, self._episodes.steps, level, component)
        return named | numbers | {"source": source}

    def _team(self, reward: Array) -> Array:
        """Rewards of rows [M, N] as asked for."""
        return options.rewards_as_asked(reward, self._rewards, str(self.path))

    def _label(self, name: str, chosen: Array) -> Array:
        """level or policy [K, N] or component [K] of episodes."""
        if f"infos.{name}" in self._leaves:
            return self._leaf(f"infos.{name}", self._episodes.start[chosen])
        agents = self._leaves["rewards"].shape[2]
        return records.unknown_label(name, len(chosen), agents)

    def _leaf(self, name: str, rows: Array | slice) -> Array:
        """Rows of a leaf, [M, ...]."""
        if isinstance(rows, np.ndarray) and len(rows) and (np.diff(rows) == 1).all():
            rows = slice(int(rows[0]), int(rows[-1]) + 1)
        values = arrays.read(self.path, name, self._leaves[name][0].oindex[rows])
        if name in FLAGS:
            check_flags(values, name, self.path)
        return values

    def read(self, episodes: Index = None) -> Dataset:
        """The episodes at an index (all by default) in memory, padded to the file's longest one."""
        chosen = records.indices(episodes, len(self))
        rows = self._episodes.rows(chosen)
        num_steps = self._episodes.steps[chosen]
        limit = int(self._episodes.steps.max())
        layout = Layout(rows, self._episodes.length[chosen], num_steps, limit)
        limits.check_memory(self.path, len(chosen) * (limit + 1) * self._row_bytes())

        # what the agents saw, in every slot
        obs = self._obs(rows.row)
        state = self._state(rows.row, obs)
        avail = self._avail(rows.row, obs.shape[1])
        alive = layout.slots(self._alive(rows))
        slots = {
            "obs": layout.slots(obs),
            "state": layout.slots(state),
            "avail": layout.slots(avail, True),
            "alive": alive,
        }

        # what happened in every step; the last one that counts is the end
        reward = self._team(self._leaf("rewards", rows.row)).astype(np.float32, copy=False)
        mask = layout.steps(np.ones(len(rows.row), bool))
        last = mask & (np.arange(limit) == num_steps[:, None] - 1)
        terminated = last & self._episodes.terminated[chosen][:, None]
        truncated = last & self._episodes.truncated[chosen][:, None]
        action = self._actions(rows.row)
        steps = {
            "action": layout.steps(action),
            "reward": layout.steps(reward),
            "terminated": terminated,
            "truncated": truncated,
            "mask": mask,
        }

        fields: dict[str, Any] = slots | steps
        labels = {name: self._label(name, chosen) for name in LABELS}
        dataset = records.make(Episode(**fields), card=self.card, **labels)
        if len(dataset):
            check(dataset, f"{self.path}, of the episodes read")
        return dataset

    def _obs(self, row: Array) -> Array:
        """Observations of rows, [M, N, O]."""
        obs = self._leaf("observations", row).astype(np.float32, copy=False)
        return padding.without(obs, self._padding["observations"])

    def _state(self, row: Array, obs: Array) -> Array:
        """The state of rows, [M, G]; without any in the file all observations [M, N, O]."""
        state = obs.reshape(len(row), math.prod(obs.shape[1:]))
        if "infos.state" in self._leaves:
            state = padding.without(self._leaf("infos.state", row), self._padding["infos.state"])
        return state.astype(np.float32, copy=False)

    def _avail(self, row: Array, agents: int) -> Array:
        """Which actions are available in rows, [M, N, A] bool."""
        if self._num_actions and "infos.legals" in self._leaves:
            return self._leaf("infos.legals", row) != 0
        return np.ones((len(row), agents, self._num_actions), bool)

    def _actions(self, row: Array) -> Array:
        action = self._leaf("actions", row)
        return action[..., 0] if self._num_actions and action.ndim == 3 else action

    def _alive(self, rows: Rows) -> Array:
        """Whether each agent lives before the step of a row, [M, N] bool."""
        if "infos.alive" in self._leaves:
            return self._leaf("infos.alive", rows.row) != 0

        # an agent that ends is dead from the next step on
        ended = self._leaf("terminals", rows.row) != 0
        episodes = rows.place[-1] + 1 if len(rows.place) else 0
        shape = (episodes, int(self._episodes.length.max()) + 1, ended.shape[1])
        dead = np.zeros(shape, bool)
        dead[rows.place, rows.step + 1] = ended
        return ~np.logical_or.accumulate(dead, axis=1)[rows.place, rows.step]


def open(path: str | pathlib.Path, **asked: Unpack[Asked]) -> Stored:
    """A vault that is read where it lies. Raises RefusedError for anything else.

    asked: options of `Stored`.
    """
    options.check(asked)
    return Stored(path, **asked)

"""An HDF5 file on disk, read in parts."""

from __future__ import annotations

import math
import pathlib
from typing import Any

import numpy as np

from jaxshare.data import limits, options, padding, records
from jaxshare.data.card import summary
from jaxshare.data.checks import check, check_flags
from jaxshare.data.hdf5 import file as files
from jaxshare.data.hdf5.checks import check_columns, check_shapes
from jaxshare.data.hdf5.file import ARRAYS
from jaxshare.data.hdf5.masks import last_of, on, reached_by
from jaxshare.data.records import FAILURES, LABELS, Array, Card, Dataset, Index, damaged
from jaxshare.types import Episode, RefusedError


class Stored:
    """A file on disk.

    How long its episodes are and what they return is in memory; the rest is read when asked for.
    """

    def __init__(self, path: str | pathlib.Path, rewards: str = "team") -> None:
        self.path = pathlib.Path(path)
        self._rewards = rewards

        # what it says that it holds
        with files.open_file(self.path) as file:
            try:
                arrays = files.arrays(self.path, file)
                self.own_card = files.card(self.path, file)
            except FAILURES as error:
                raise damaged(self.path, "what it holds cannot be listed", error) from error
        self._shapes = {name: shape for name, (shape, _) in arrays.items()}
        self._dtypes = {name: dtype for name, (_, dtype) in arrays.items()}
        self._discrete = self._is_discrete()
        check_shapes(self.path, self._shapes, self._discrete, rewards)

        # what is kept in memory
        self._read_ends()
        self._padding: dict[str, Array] = {}  # of arrays that were read
        self.card = self._complete()

    def __len__(self) -> int:
        return len(self._mask)

    @property
    def layout(self) -> dict[str, Any]:
        """Shapes of an episode and dtypes: what parts of one data set agree in."""
        layout = {}
        for name in ARRAYS:
            if name in self._shapes:
                layout[name] = (*self._shapes[name][1:], str(self._dtypes[name]))
        return layout

    def _is_discrete(self) -> bool:
        """Whether actions are choices: whole numbers, or numbers beside what only choices have."""
        if "actions" not in self._dtypes:
            return False
        has_one_number = self._shapes["actions"][-1:] == (1,)
        onehot = self._shapes.get("actions_onehot", ())
        are_beside = onehot == self._shapes.get("avail_actions", (0,))
        is_whole = np.issubdtype(self._dtypes["actions"], np.integer)
        return is_whole or (has_one_number and are_beside)

    def _read_ends(self) -> None:
        """Which steps count, which of them are the ends, and the return of every episode."""
        everything = np.arange(self._shapes["filled"][0])
        numbers = math.prod(self._shapes["filled"]) + math.prod(self._shapes["reward"])
        limits.check_memory(self.path, 8 * numbers)

        # flags, one for each column
        filled = self._column("filled", everything)
        check_flags(filled, "filled", self.path)
        ended = self._column("terminated", everything)
        check_flags(ended[filled != 0], "terminated", self.path)
        check_columns(self.path, filled != 0, ended != 0)
        self._filled = filled != 0
        self._mask = self._filled[:, 1:]
        self._terminated = (ended != 0)[:, :-1] & self._mask

        # the numbers that a card tells of
        reward = self._team_reward(everything)
        team = reward[..., 0] if self._rewards != "individual" else reward.sum(-1)
        level = self._label("level", everything)
        component = self._label("component", everything)
        self.numbers = {
            "returns": team.sum(1),
            "lengths": self._mask.sum(1),
            "level": level,
            "component": component,
        }

    def _team_reward(self, chosen: Array) -> Array:
        """Rewards of episodes as asked for, [K, T, N] or, of a team, [K, T, 1].

        0 where no step counts.
        """
        mask = self._mask[chosen]
        reward = np.where(mask[..., None], self._values("reward", chosen)[:, :-1], 0.0)
        if not np.isfinite(reward).all():
            raise RefusedError(
                f"{self.path}: reward is not a finite number in some steps. Leave such episodes "
                "out."
            )
        reward[mask] = options.rewards_as_asked(reward[mask], self._rewards, str(self.path))
        return reward

    def _without_padding(self, name: str, chosen: Array) -> Array:
        """obs or state of episodes with 0 in the columns that pad; the card has a note of these."""
        if name not in self._padding:
            self._padding[name] = self._find_padding(name)
            self.card["source"]["notes"] += padding.note(name, self._padding[name])
        return padding.without(self._values(name, chosen), self._padding[name])

    def _find_padding(self, name: str) -> Array:
        """Which columns of obs or state pad, [N, O] or [G] bool."""

        def rows(part: slice) -> Array:
            chosen = np.arange(part.start, part.stop)
            return self._values(name, chosen)[self._filled[chosen]]

        return padding.infinite_columns(rows, padding.blocks(len(self), 64))

    def _complete(self) -> Card:
        """The file's own card, or one made from its name, with the numbers of its episodes."""
        notes = []
        if self._discrete and not np.issubdtype(self._dtypes["actions"], np.integer):
            stored = "actions are stored as real numbers and read as choices"
            notes.append(f"{stored}, as actions_onehot has them.")

        # what the file itself says goes before its name
        source = {"format": "PyMARL HDF5", "name": self.path.name, "notes": notes}
        return {
            "environment": "",
            "scenario": self.path.stem,
            **self.own_card,
            "common_reward": self._rewards != "individual",
            **summary(**self.numbers),
            "source": source,
        }

    def _values(self, name: str, chosen: Array) -> Array:
        """An array of the file at episodes [K] in any order, [K, ...]."""
        # h5py takes each index once, in order, and a slice faster
        once, back = np.unique(chosen, return_inverse=True)
        contiguous = len(once) and once[-1] - once[0] == len(once) - 1
        part = slice(int(once[0]), int(once[-1]) + 1) if contiguous else once
        with files.open_file(self.path) as file:
            try:
                return np.asarray(file[name][part])[back]
            except FAILURES as error:
                raise damaged(self.path, f"{name} cannot be read", error) from error

    def _column(self, name: str, chosen: Array) -> Array:
        return self._values(name, chosen)[..., 0]

    def _label(self, name: str, chosen: Array) -> Array:
        if name in self._shapes:
            return self._values(name, chosen)
        return records.unknown_label(name, len(chosen), self._shapes["obs"][2])

    def read(self, episodes: Index = None) -> Dataset:
        """The episodes at an index (all by default) in memory."""
        chosen = records.indices(episodes, len(self))
        limits.check_memory(self.path, len(chosen) * self._episode_bytes())

        # what happened in every step, and what the agents saw in every slot
        mask = self._mask[chosen]
        terminated = self._terminated[chosen]
        action = self._actions(chosen, mask)
        reward_shape = (*mask.shape, self._shapes["obs"][2])
        reward = np.broadcast_to(self._team_reward(chosen), reward_shape)
        steps = {
            "action": action,
            "reward": reward,
            "terminated": terminated,
            "truncated": last_of(mask) & ~terminated,
            "mask": mask,
        }
        fields: dict[str, Any] = self._slots(chosen, mask, terminated) | steps

        labels = {name: self._label(name, chosen) for name in LABELS}
        dataset = records.make(Episode(**fields), card=self.card, **labels)
        if len(dataset):
            check(dataset, f"{self.path}, of the episodes read")
        return dataset

    def _slots(self, chosen: Array, mask: Array, terminated: Array) -> dict[str, Array]:
        """Fields with T + 1 slots of episodes. mask, terminated: [K, T]."""
        reached = reached_by(mask)
        obs = self._without_padding("obs", chosen)
        state = obs.reshape(*obs.shape[:2], math.prod(obs.shape[2:]))
        if "state" in self._shapes:
            state = self._without_padding("state", chosen)

        # nothing is asked of the slot behind a true end
        agents = self._shapes["obs"][2]
        avail = np.ones((*reached.shape, agents, 0), bool)
        if self._discrete:
            avail = self._flags("avail_actions", chosen, reached) | ~reached[..., None, None]
        avail[:, 1:] |= terminated[..., None, None]

        alive = np.ones((*reached.shape, agents), bool)
        if "alive" in self._shapes:
            alive = self._flags("alive", chosen, reached)
        alive = alive & reached[..., None]

        # zeros in slots that were not reached
        obs = np.where(on(reached, obs), obs, 0)
        state = np.where(on(reached, state), state, 0)
        return {"obs": obs, "state": state, "avail": avail, "alive": alive}

    def _actions(self, chosen: Array, mask: Array) -> Array:
        """Actions of episodes, [K, T, N] or [K, T, N, U], 0 where no step counts. mask: [K, T]."""
        action = self._values("actions", chosen)[:, :-1]
        if self._discrete:
            action = self._choices(action[..., 0], chosen, mask)
        return np.where(on(mask, action), action, 0)

    def _episode_bytes(self) -> int:
        """Bytes of an episode in memory."""
        total = 0
        for name, shape in self._shapes.items():
            if name in ARRAYS:
                total += math.prod(shape[1:]) * self._dtypes[name].itemsize
        return total

    def _flags(self, name: str, chosen: Array, reached: Array) -> Array:
        """An array of 0 and 1 at episodes, as bool.

        What it holds where nothing is filled does not matter.
        """
        values = self._values(name, chosen)
        check_flags(values[reached], name, self.path)
        return values != 0

    def _choices(self, action: Array, chosen: Array, mask: Array) -> Array:
        """Discrete actions [K, T, N] as whole numbers.

        Raises RefusedError unless they are those of actions_onehot.
        """
        whole = np.where(mask[..., None], action, 0).astype(np.int64)
        wrong = mask[..., None] & (whole != action)
        if self._shapes.get("actions_onehot", ()) == self._shapes["avail_actions"]:
            onehot = self._values("actions_onehot", chosen)[:, :-1]
            differs = onehot.any(-1) & (onehot.argmax(-1) != whole)
            wrong |= mask[..., None] & differs

        # the first of them, in words
        if wrong.any():
            episode, step, agent = (int(i) for i in np.argwhere(wrong)[0])
            value = action[episode, step, agent]
            place = f"agent {agent} at step {step} of episode {int(chosen[episode])}"
            raise RefusedError(
                f"{self.path} is damaged: the action of {place} is {value}, which is not a choice "
                "or not that of actions_onehot. Copy it again, or make it again."
            )
        return whole


def open(path: str | pathlib.Path, rewards: str = "team") -> Stored:
    """A file that is read where it lies.

    rewards: of files with a reward for each agent: "team" (refused if they differ), "mean" or
    "individual".
    Raises RefusedError for anything else at `path`, and without h5py.
    """
    options.check({"rewards": rewards})
    return Stored(path, rewards)

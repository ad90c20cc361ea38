"""PyMARL's HDF5 files, as ICQ and CFCQL use them, read and written with h5py.

Source: Yang et al. 2021 (ICQ) and Shao et al. 2023 (CFCQL), whose files hold the columns of PyMARL's episode buffer
(Samvelyan et al. 2019), episode first, K = time limit + 1 columns: obs [E, K, N, O], state [E, K, G], actions
[E, K, N, 1] (real numbers: [E, K, N, U]), actions_onehot, avail_actions [E, K, N, A], reward, terminated, filled
[E, K, 1]. An episode of L steps fills L + 1 columns: the last shows what its last action led to.

Reading. The time limit is K - 1, and step t counts if column t + 1 is filled. terminated is a true end only, so an
episode that ends without it was truncated. Every agent has the reward of the team, and is taken to be alive unless
the file says otherwise. Files that do not show the successor of the last step (terminated in the last filled column)
are refused, for the last step of an episode that was cut could not be told from its successor.

Writing. What stands in the last filled column and is not known (the action, the reward) is an available action and 0.
Deaths, levels, policies and components go into arrays of their own (alive, level, policy, component), if there are any,
and the card into an attribute; others ignore them. A step that is terminated and truncated is read as terminated only.
The format has one reward per team: data with individual rewards is refused.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np

from jaxshare.data import records
from jaxshare.data.card import summary
from jaxshare.data.checks import check
from jaxshare.data.records import FAILURES, LABELS, Array, Card, Dataset, Index, damaged
from jaxshare.types import Episode, RefusedError

INSTALL = "pip install 'jaxshare[hdf5]'"
REQUIRED = ("obs", "actions", "reward", "terminated", "filled")
SIGNATURE = b"\x89HDF\r\n\x1a\n"


class Stored:
    """A file on disk. How long its episodes are and what they return is in memory; the rest is read when asked for."""

    def __init__(self, path: str | pathlib.Path) -> None:
        self.path = pathlib.Path(path)
        with self._file() as file:
            try:
                self._shapes = {name: tuple(file[name].shape) for name in file if hasattr(file[name], "shape")}
                self._discrete = "actions" in file and np.issubdtype(file["actions"].dtype, np.integer)
                own: Card = json.loads(str(file.attrs.get("jaxshare", "{}")))
            except FAILURES as error:
                raise damaged(self.path, "what it holds cannot be listed", error) from error
        self._check_shapes()
        everything = np.arange(self._shapes["filled"][0])
        filled = self._column("filled", everything) != 0
        terminated = self._column("terminated", everything) != 0
        _check_columns(self.path, filled, terminated)
        self._mask = filled[:, 1:]
        self._terminated = terminated[:, :-1] & self._mask
        reward = np.where(self._mask, self._column("reward", everything)[:, :-1], 0.0)
        self.card = {
            "environment": "",
            "scenario": self.path.stem,
            **own,
            "common_reward": True,
            **summary(
                reward.sum(1), self._mask.sum(1), self._label("level", everything), self._label("component", everything)
            ),
            "source": {"format": "PyMARL HDF5", "name": self.path.name},
        }

    def __len__(self) -> int:
        return len(self._mask)

    def _file(self) -> Any:
        h5py = _h5py()
        if not self.path.is_file():
            raise RefusedError(f"{self.path} does not exist or is no file. Check the path.")
        with self.path.open("rb") as raw:
            if raw.read(len(SIGNATURE)) != SIGNATURE:
                raise RefusedError(f"{self.path} is not an HDF5 file. Check the path, or the format.")
        try:
            return h5py.File(self.path, "r")
        except FAILURES as error:
            raise damaged(self.path, "it cannot be opened", error) from error

    def _check_shapes(self) -> None:
        missing = [name for name in REQUIRED if name not in self._shapes]
        if missing:
            has = ", ".join(self._shapes) or "nothing"
            raise RefusedError(
                f"{self.path} has no {', '.join(missing)} (it has {has}): it is no data set of PyMARL. Choose another."
            )
        num, columns, agents, size = (*self._shapes["obs"], 0, 0, 0, 0)[:4]
        choices = (*self._shapes.get("avail_actions", (0, 0, 0, 0)), 0)[3]
        if self._discrete and not choices:
            raise RefusedError(f"{self.path} has discrete actions and no avail_actions. Choose another.")
        if num < 1 or columns < 2:
            raise RefusedError(f"{self.path} holds no episode with a step (obs has shape {self._shapes['obs']}).")
        expected: dict[str, tuple[int, ...]] = dict.fromkeys(("reward", "terminated", "filled"), (num, columns, 1))
        expected["obs"] = (num, columns, agents, size)
        expected["actions"] = (num, columns, agents, 1 if self._discrete else (*self._shapes["actions"], 0, 0, 0, 0)[3])
        expected |= {"avail_actions": (num, columns, agents, choices)} if self._discrete else {}
        expected |= {"state": (num, columns, self._shapes["state"][-1])} if "state" in self._shapes else {}
        for name, wanted in expected.items():
            if self._shapes[name] != wanted:
                raise RefusedError(f"{self.path}: {name} has shape {self._shapes[name]}, the others ask for {wanted}.")

    def _values(self, name: str, chosen: Array) -> Array:
        """An array of the file at episodes [K] in any order, [K, ...]."""
        sorted_once, back = np.unique(chosen, return_inverse=True)
        contiguous = len(sorted_once) and sorted_once[-1] - sorted_once[0] == len(sorted_once) - 1
        part = slice(int(sorted_once[0]), int(sorted_once[-1]) + 1) if contiguous else sorted_once
        with self._file() as file:
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
        mask = self._mask[chosen]
        steps, agents = mask.shape[1], self._shapes["obs"][2]
        reached = np.concatenate([np.ones_like(mask[:, :1]), mask], axis=1)
        obs = self._values("obs", chosen)
        state = self._values("state", chosen) if "state" in self._shapes else obs.reshape(*obs.shape[:2], -1)
        avail = np.ones((len(chosen), steps + 1, agents, 0), bool)
        if self._discrete:
            avail = (self._values("avail_actions", chosen) != 0) | ~reached[..., None, None]
        terminated = self._terminated[chosen]
        avail[:, 1:] |= terminated[..., None, None]  # nothing is asked of the slot behind a true end
        action = self._values("actions", chosen)[:, :-1]
        action = action[..., 0] if self._discrete else action
        alive = (
            self._values("alive", chosen) != 0 if "alive" in self._shapes else np.ones((*reached.shape, agents), bool)
        )
        last = mask & ~np.concatenate([mask[:, 1:], np.zeros_like(mask[:, :1])], axis=1)
        fields: dict[str, Any] = {
            "obs": np.where(_on(reached, obs), obs, 0),
            "state": np.where(_on(reached, state), state, 0),
            "avail": avail,
            "alive": alive & reached[..., None],
            "action": np.where(_on(mask, action), action, 0),
            "reward": np.repeat((self._column("reward", chosen)[:, :-1] * mask)[..., None], agents, axis=2),
            "terminated": terminated,
            "truncated": last & ~terminated,
            "mask": mask,
        }
        labels = {name: self._label(name, chosen) for name in LABELS}
        dataset = records.make(Episode(**fields), card=self.card, **labels)
        if len(dataset):
            check(dataset, f"{self.path}, of the episodes read")
        return dataset


def open(path: str | pathlib.Path) -> Stored:
    """A file that is read where it lies. Raises RefusedError for anything else at `path`, and without h5py."""
    return Stored(path)


def write(dataset: Dataset, path: str | pathlib.Path) -> pathlib.Path:
    """Write a data set as the file `path`, which must not exist. Raises RefusedError for individual rewards."""
    h5py = _h5py()
    check(dataset)
    path = pathlib.Path(path)
    if path.exists():
        raise RefusedError(f"{path} exists and is not overwritten. Choose another name, or remove it.")
    if not dataset.common_reward:
        raise RefusedError(
            f"{path}: PyMARL's format has one reward per team, and these agents have rewards of their own "
            "(common_reward=false). Write jaxshare's own format or a vault instead."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".unfinished")  # renamed when whole
    with h5py.File(new, "w") as file:
        for name, values in _columns(dataset).items():
            file.create_dataset(name, data=values, compression="gzip", compression_opts=4)
        file.attrs["jaxshare"] = json.dumps(dataset.card)
    new.replace(path)
    return path


def _columns(dataset: Dataset) -> dict[str, Array]:
    """The arrays of a file, [E, T+1, ...]."""
    episode = dataset.episodes
    mask = np.asarray(episode.mask)
    reached = np.concatenate([np.ones_like(mask[:, :1]), mask], axis=1)

    def longer(values: Any) -> Array:
        values = np.asarray(values) * _on(mask, values)
        return np.concatenate([values, np.zeros_like(values[:, :1])], axis=1)

    columns = {
        "obs": np.asarray(episode.obs, np.float32) * _on(reached, episode.obs),
        "state": np.asarray(episode.state, np.float32) * _on(reached, episode.state),
        "reward": longer(np.asarray(episode.reward, np.float32)[..., :1]),
        "terminated": longer(episode.terminated)[..., None].astype(np.uint8),
        "filled": reached[..., None].astype(np.int64),
    }
    if episode.avail.shape[-1]:
        avail = np.asarray(episode.avail) & reached[..., None, None]
        first = np.argmax(avail, axis=-1)  # an available action for the columns without one
        stepped = np.concatenate([mask, np.zeros_like(mask[:, :1])], axis=1)
        action = np.where(stepped[..., None], longer(np.asarray(episode.action, np.int64)), first)
        onehot = (np.arange(avail.shape[-1]) == action[..., None]) & reached[..., None, None]
        columns |= {"actions": action[..., None], "actions_onehot": onehot.astype(np.float32)}
        columns["avail_actions"] = avail.astype(np.int32)
    else:
        columns["actions"] = longer(np.asarray(episode.action, np.float32))
    if not np.asarray(episode.alive)[reached].all():
        columns["alive"] = np.asarray(episode.alive).astype(np.uint8)
    return columns | records.known_labels(dataset)


def _on(mask: Array, values: Any) -> Array:
    """mask [E, K] with the rank of values [E, K, ...]."""
    return mask.reshape(mask.shape + (1,) * (values.ndim - 2))


def _check_columns(path: pathlib.Path, filled: Array, terminated: Array) -> None:
    """Raise RefusedError unless filled [E, K] is a run of ones, at least two, and no end is in its last column."""
    if not filled[:, :2].all():
        episode = int(np.flatnonzero(~filled[:, :2].all(1))[0])
        raise RefusedError(f"{path}: episode {episode} has no step (filled has fewer than two columns). Leave it out.")
    if (filled[:, 1:] & ~filled[:, :-1]).any():
        raise RefusedError(f"{path}: filled is not a run of ones from the first column on. Repair the file.")
    last = filled & ~np.concatenate([filled[:, 1:], np.zeros_like(filled[:, :1])], axis=1)
    if (terminated & last).any():
        episode = int(np.flatnonzero((terminated & last).any(1))[0])
        raise RefusedError(
            f"{path}: episode {episode} is terminated in its last filled column, so the file does not show what its "
            "last actions led to. Only files with one column more than steps can be read."
        )


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise RefusedError(f"HDF5 files need h5py, which is not installed: {INSTALL}.") from error
    return h5py

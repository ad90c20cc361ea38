"""PyMARL's HDF5 files, as ICQ and CFCQL use them, read and written with h5py.

Source: Yang et al. 2021 (ICQ) and Shao et al. 2023 (CFCQL), whose files hold the columns of PyMARL's episode buffer
(Samvelyan et al. 2019), episode first, K = time limit + 1 columns: obs [E, K, N, O], state [E, K, G], actions
[E, K, N, 1] (real numbers: [E, K, N, U]), actions_onehot, avail_actions [E, K, N, A], reward, terminated, filled
[E, K, 1]. An episode of L steps fills L + 1 columns: the last shows what its last action led to.

Reading. The time limit is K - 1, and step t counts if column t + 1 is filled. terminated is a true end only, so an
episode that ends without it was truncated. Every agent has the reward of the team, or one of its own where reward is
[E, K, N] (EPyMARL), and is taken to be alive unless the file says otherwise. Discrete actions may be stored as real
numbers: they are discrete if actions_onehot and avail_actions are there. Columns that are infinite throughout are
padding (see `padding`). Files that do not show the successor of the last step (terminated in the last filled column)
are refused, for the last step of an episode that was cut could not be told from its successor.

Writing. What stands in the last filled column and is not known (the action, the reward) is an available action and 0.
Deaths, levels, policies and components go into arrays of their own (alive, level, policy, component), if there are any,
and the card into an attribute; others ignore them. A step that is terminated and truncated is read as terminated only.
The format has one reward per team: data with individual rewards is refused. Arrays and HDF5's own structures have
checksums (fletcher32; version 1.10 of the format), and the card has one beside it. Files of others mostly have none:
flags that are not 0 or 1, and actions that actions_onehot contradicts, are refused, and other numbers are believed.
"""

from __future__ import annotations

import hashlib
import json
import math
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxshare import durable
from jaxshare.data import limits, options, padding, records
from jaxshare.data.card import summary
from jaxshare.data.checks import check, check_flags
from jaxshare.data.records import FAILURES, LABELS, Array, Card, Dataset, Index, damaged
from jaxshare.types import Episode, RefusedError

INSTALL = "pip install 'jaxshare[hdf5]'"
REQUIRED = ("obs", "actions", "reward", "terminated", "filled")
ARRAYS = (
    *REQUIRED,
    "state",
    "avail_actions",
    "actions_onehot",
    "alive",
    "level",
    "policy",
    "component",
)
CARD = "jaxshare"  # attribute
CHECKSUM = "jaxshare_sha256"  # attribute: of the card's text
BLOCK = 256  # episodes that are written at a time
MEMORY_BLOCK = 2**24  # bytes by which the file grows in memory
SIGNATURE = b"\x89HDF\r\n\x1a\n"


class Stored:
    """A file on disk. How long its episodes are and what they return is in memory; the rest is read when asked for."""

    def __init__(self, path: str | pathlib.Path, rewards: str = "team") -> None:
        self.path = pathlib.Path(path)
        self._rewards = rewards
        with self._file() as file:
            try:
                arrays = _arrays(self.path, file)
                self.own_card = _card(self.path, file)
            except FAILURES as error:
                raise damaged(self.path, "what it holds cannot be listed", error) from error
        self._shapes = {name: shape for name, (shape, _) in arrays.items()}
        self._dtypes = {name: dtype for name, (_, dtype) in arrays.items()}
        self._discrete = self._is_discrete()
        self._check_shapes()
        self._read_ends()
        self._padding: dict[str, Array] = {}  # of arrays that were read
        self.card = self._complete()

    @property
    def layout(self) -> dict[str, Any]:
        """Shapes of an episode and dtypes: what parts of one data set agree in."""
        return {
            name: (*self._shapes[name][1:], str(self._dtypes[name]))
            for name in ARRAYS
            if name in self._shapes
        }

    def _is_discrete(self) -> bool:
        """Whether actions are choices: whole numbers, or real ones beside what only choices have."""
        if "actions" not in self._dtypes:
            return False
        one = self._shapes["actions"][-1:] == (1,)
        beside = self._shapes.get("actions_onehot", ()) == self._shapes.get("avail_actions", (0,))
        return np.issubdtype(self._dtypes["actions"], np.integer) or (one and beside)

    def _read_ends(self) -> None:
        """Which steps count, which of them are the ends, and the return of every episode."""
        everything = np.arange(self._shapes["filled"][0])
        limits.check_memory(
            self.path, 8 * sum(math.prod(self._shapes[name]) for name in ("filled", "reward"))
        )
        filled = self._column("filled", everything)
        check_flags(filled, "filled", self.path)
        ended = self._column("terminated", everything)
        check_flags(ended[filled != 0], "terminated", self.path)
        _check_columns(self.path, filled != 0, ended != 0)
        self._filled = filled != 0
        self._mask = self._filled[:, 1:]
        self._terminated = (ended != 0)[:, :-1] & self._mask
        reward = self._team_reward(everything)
        self.numbers = {
            "returns": (reward[..., 0] if self._rewards != "individual" else reward.sum(-1)).sum(1),
            "lengths": self._mask.sum(1),
            "level": self._label("level", everything),
            "component": self._label("component", everything),
        }

    def _team_reward(self, chosen: Array) -> Array:
        """Rewards of episodes as asked for, [K, T, N] or, of a team, [K, T, 1]; 0 where no step counts."""
        mask = self._mask[chosen]
        reward = np.where(mask[..., None], self._values("reward", chosen)[:, :-1], 0.0)
        if not np.isfinite(reward).all():
            raise RefusedError(
                f"{self.path}: reward is not a finite number in some steps. Leave such episodes out."
            )
        rows = options.rewards_as_asked(reward[mask], self._rewards, str(self.path))
        reward[mask] = rows
        return reward

    def _without_padding(self, name: str, chosen: Array) -> Array:
        """obs or state of episodes with 0 in the columns that pad, of which the card has a note from then on."""
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
            notes.append(
                "actions are stored as real numbers and read as choices, as actions_onehot has them."
            )
        return {
            "environment": "",
            "scenario": self.path.stem,
            **self.own_card,
            "common_reward": self._rewards != "individual",
            **summary(**self.numbers),
            "source": {"format": "PyMARL HDF5", "name": self.path.name, "notes": notes},
        }

    def __len__(self) -> int:
        return len(self._mask)

    def _file(self) -> Any:
        h5py = _h5py()
        if not self.path.is_file():
            raise RefusedError(f"{self.path} does not exist or is no file. Check the path.")
        if not is_hdf5(self.path):
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
            raise RefusedError(
                f"{self.path} has discrete actions and no avail_actions. Choose another."
            )
        if num < 1 or columns < 2:
            raise RefusedError(
                f"{self.path} holds no episode with a step (obs has shape {self._shapes['obs']})."
            )
        expected: dict[str, tuple[int, ...]] = dict.fromkeys(
            ("terminated", "filled"), (num, columns, 1)
        )
        each = agents if self._shapes["reward"][-1:] == (agents,) else 1
        if each == 1 < agents and self._rewards == "individual":
            raise RefusedError(
                f"{self.path}: dataset.rewards=individual has no effect on it: it has one reward for the team. "
                "Leave it out."
            )
        expected["reward"] = (num, columns, each)
        expected["obs"] = (num, columns, agents, size)
        expected["actions"] = (
            num,
            columns,
            agents,
            1 if self._discrete else (*self._shapes["actions"], 0, 0, 0, 0)[3],
        )
        expected |= {"avail_actions": (num, columns, agents, choices)} if self._discrete else {}
        expected |= (
            {"state": (num, columns, (*self._shapes["state"], 0, 0, 0)[2])}
            if "state" in self._shapes
            else {}
        )
        expected |= {"alive": (num, columns, agents)} if "alive" in self._shapes else {}
        expected |= {name: (num, agents) for name in ("level", "policy") if name in self._shapes}
        expected |= {"component": (num,)} if "component" in self._shapes else {}
        for name, wanted in expected.items():
            if self._shapes[name] != wanted:
                raise RefusedError(
                    f"{self.path}: {name} has shape {self._shapes[name]}, the others ask for {wanted}."
                )

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
        limits.check_memory(self.path, len(chosen) * self._episode_bytes())
        obs = self._without_padding("obs", chosen)
        state = obs.reshape(*obs.shape[:2], math.prod(obs.shape[2:]))
        if "state" in self._shapes:
            state = self._without_padding("state", chosen)
        avail = np.ones((len(chosen), steps + 1, agents, 0), bool)
        if self._discrete:
            avail = self._flags("avail_actions", chosen, reached) | ~reached[..., None, None]
        terminated = self._terminated[chosen]
        avail[:, 1:] |= terminated[
            ..., None, None
        ]  # nothing is asked of the slot behind a true end
        action = self._values("actions", chosen)[:, :-1]
        action = self._choices(action[..., 0], chosen, mask) if self._discrete else action
        alive = np.ones((*reached.shape, agents), bool)
        if "alive" in self._shapes:
            alive = self._flags("alive", chosen, reached)
        reward = self._team_reward(chosen)
        last = mask & ~np.concatenate([mask[:, 1:], np.zeros_like(mask[:, :1])], axis=1)
        fields: dict[str, Any] = {
            "obs": np.where(_on(reached, obs), obs, 0),
            "state": np.where(_on(reached, state), state, 0),
            "avail": avail,
            "alive": alive & reached[..., None],
            "action": np.where(_on(mask, action), action, 0),
            "reward": np.broadcast_to(reward, (*mask.shape, agents)),
            "terminated": terminated,
            "truncated": last & ~terminated,
            "mask": mask,
        }
        labels = {name: self._label(name, chosen) for name in LABELS}
        dataset = records.make(Episode(**fields), card=self.card, **labels)
        if len(dataset):
            check(dataset, f"{self.path}, of the episodes read")
        return dataset

    def _episode_bytes(self) -> int:
        """Bytes of an episode in memory."""
        return sum(
            math.prod(shape[1:]) * self._dtypes[name].itemsize
            for name, shape in self._shapes.items()
            if name in ARRAYS
        )

    def _flags(self, name: str, chosen: Array, reached: Array) -> Array:
        """An array of 0 and 1 at episodes, as bool; what it holds where nothing is filled does not matter."""
        values = self._values(name, chosen)
        check_flags(values[reached], name, self.path)
        return values != 0

    def _choices(self, action: Array, chosen: Array, mask: Array) -> Array:
        """Discrete actions [K, T, N] as whole numbers. Raises RefusedError unless they are those of actions_onehot."""
        whole = np.where(mask[..., None], action, 0).astype(np.int64)
        wrong = mask[..., None] & (whole != action)
        if self._shapes.get("actions_onehot", ()) == self._shapes["avail_actions"]:
            onehot = self._values("actions_onehot", chosen)[:, :-1]
            wrong |= mask[..., None] & onehot.any(-1) & (onehot.argmax(-1) != whole)
        if wrong.any():
            episode, step, agent = (int(i) for i in np.argwhere(wrong)[0])
            raise RefusedError(
                f"{self.path} is damaged: the action of agent {agent} at step {step} of episode "
                f"{int(chosen[episode])} is {action[episode, step, agent]}, which is not a choice or not that of "
                "actions_onehot. Copy it again, or make it again."
            )
        return whole


def open(path: str | pathlib.Path, rewards: str = "team") -> Stored:
    """A file that is read where it lies. Raises RefusedError for anything else at `path`, and without h5py.

    rewards: of files with a reward for each agent: "team" (refused if they differ), "mean" or "individual".
    """
    options.check({"rewards": rewards})
    return Stored(path, rewards)


def _arrays(path: pathlib.Path, file: Any) -> dict[str, tuple[tuple[int, ...], Any]]:
    """(shape, dtype) of the arrays of a file. Raises RefusedError for claims and links that `limits` are against."""
    h5py = _h5py()
    arrays = {}
    for name in file:
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise RefusedError(
                f"{path}: {name} is a link: a data set holds its own arrays. Copy what it stands for."
            )
        array = file[name]
        if not isinstance(array, h5py.Dataset):
            continue
        arrays[name] = (tuple(array.shape or ()), array.dtype)
        if name not in ARRAYS:
            continue
        if array.dtype.kind not in "biuf":
            raise RefusedError(
                f"{path}: {name} holds {array.dtype}, which are no numbers. Choose another file."
            )
        if array.is_virtual or array.external:
            raise RefusedError(
                f"{path}: {name} lies in other files: a data set holds its own. Copy them into it."
            )
        description = array.id.get_create_plist()
        filters = [description.get_filter(i)[0] for i in range(description.get_nfilters())]
        if len(filters) != len(set(filters)):
            raise RefusedError(
                f"{path}: {name} is compressed twice. It is not read; get the data set again."
            )
        chunk = math.prod(array.chunks or (0,)) * array.dtype.itemsize
        limits.check_chunk(path, name, chunk, array.size * array.dtype.itemsize)
    used = [
        math.prod(shape) * dtype.itemsize
        for name, (shape, dtype) in arrays.items()
        if name in ARRAYS
    ]
    limits.check_size(path, sum(used), limits.bytes_on_disk(path))
    return arrays


def _card(path: pathlib.Path, file: Any) -> Card:
    """The card that jaxshare wrote into a file, {} in files of others."""
    text, expected = str(file.attrs.get(CARD, "{}")), file.attrs.get(CHECKSUM)
    if expected is not None and hashlib.sha256(text.encode()).hexdigest() != str(expected):
        raise damaged(path, "its card is not what was written: the checksum differs")
    card = json.loads(text)
    return card if isinstance(card, dict) else {}


def write(
    dataset: Dataset,
    path: str | pathlib.Path,
    overwrite: bool = False,
    progress: Callable[[float], None] | None = None,
) -> pathlib.Path:
    """Write a data set as the file `path`, some episodes at a time.

    overwrite: whether it takes the place of an HDF5 file of that name, which otherwise must not
    exist.
    progress: called with the share of the episodes that is written, from 0 to 1.
    Raises RefusedError for individual rewards, for data that fail a check, and for a name that is
    taken.
    """
    h5py = _h5py()
    check(dataset)
    path = pathlib.Path(path)
    if path.exists() and not overwrite:
        raise RefusedError(
            f"{path} exists and is not overwritten. Choose another name, or remove it."
        )
    if path.exists() and not is_hdf5(path):
        raise RefusedError(
            f"{path} is not an HDF5 file and is not overwritten. Choose another name."
        )
    if not dataset.common_reward:
        raise RefusedError(
            f"{path}: PyMARL's format has one reward per team, and these agents have rewards of their own "
            "(common_reward=false). Write jaxshare's own format or a vault instead."
        )
    silent = _without_content(dataset)
    card = json.dumps(dataset.card)

    # into memory, as compressed as on disk: HDF5 ends the process if it meets a full disk
    memory = {"driver": "core", "backing_store": False, "block_size": MEMORY_BLOCK}
    with h5py.File(path.name, "w", libver=("v110", "v110"), **memory) as file:
        for part in padding.blocks(len(dataset), BLOCK):
            for name, values in _columns(dataset.take(part)).items():
                if name not in silent:
                    _write_rows(file, name, values, part, len(dataset))
            if progress is not None:
                progress(part.stop / len(dataset))
        file.attrs[CARD] = card
        file.attrs[CHECKSUM] = hashlib.sha256(card.encode()).hexdigest()
        file.flush()
        content = file.id.get_file_image()

    path.parent.mkdir(parents=True, exist_ok=True)
    durable.write_bytes(path, content)
    return path


def is_hdf5(path: pathlib.Path) -> bool:
    """Whether a file begins as HDF5 files do. Raises OSError."""
    if not path.is_file():
        return False
    with path.open("rb") as raw:
        return raw.read(len(SIGNATURE)) == SIGNATURE


def _write_rows(file: Any, name: str, values: Array, part: slice, episodes: int) -> None:
    """Write some episodes of an array, which is made with room for all of them at the first."""
    if name not in file:
        shape = (episodes, *values.shape[1:])
        options = {"compression": "gzip", "compression_opts": 4, "fletcher32": True}
        file.create_dataset(name, shape, values.dtype, **options)
    file[name][part] = values


def _without_content(dataset: Dataset) -> set[str]:
    """Names of the arrays that say nothing of this data set: nobody dies, or a label is unknown."""
    mask = np.asarray(dataset.episodes.mask)
    reached = np.concatenate([np.ones_like(mask[:, :1]), mask], axis=1)
    silent = set(LABELS) - set(records.known_labels(dataset))
    if np.asarray(dataset.episodes.alive)[reached].all():
        silent.add("alive")
    return silent


def _columns(dataset: Dataset) -> dict[str, Array]:
    """The arrays of a file, [E, T+1, ...], and the labels, [E, ...]."""
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
    columns["alive"] = np.asarray(episode.alive).astype(np.uint8)
    return columns | {name: getattr(dataset, name) for name in LABELS}


def _on(mask: Array, values: Any) -> Array:
    """mask [E, K] with the rank of values [E, K, ...]."""
    return mask.reshape(mask.shape + (1,) * (values.ndim - 2))


def _check_columns(path: pathlib.Path, filled: Array, terminated: Array) -> None:
    """Raise RefusedError unless filled [E, K] is a run of ones, at least two, and no end is in its last column."""
    if not filled[:, :2].all():
        episode = int(np.flatnonzero(~filled[:, :2].all(1))[0])
        raise RefusedError(
            f"{path}: episode {episode} has no step (filled has fewer than two columns). Leave it out."
        )
    if (filled[:, 1:] & ~filled[:, :-1]).any():
        raise RefusedError(
            f"{path}: filled is not a run of ones from the first column on. Repair the file."
        )
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

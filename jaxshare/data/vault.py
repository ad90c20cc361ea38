"""Vaults of OG-MARL, version 1.x, read and written with tensorstore and numpy alone.

Source: Formanek et al. 2023 (Off-the-Grid MARL) and flashbax 0.1.3 (Toledo et al. 2023), whose `Vault` writes them: a
folder `<name>.vlt/<uid>` with metadata.json (version, shapes and dtypes of a tree of arrays) and one OCDBT store, in
which each leaf is a zarr array [1, 10^13, ...] at its dotted path with a dot at the end ("infos.legals."); the rows in
use are the first `vault_index`. Rows are steps, episodes one after the other: observations [1, M, N, O], actions
[1, M, N(, U)], rewards, terminals and truncations [1, M, N], infos.state [1, M, G], infos.legals [1, M, N, A].

Reading. An episode ends where every agent is terminated or truncated (older files have no truncations). Rows after the
last end are dropped; whether the first rows are the rest of an episode cannot be seen, hence `drop_first`. An agent
that ends before its team is dead from then on. Without infos.state the state is all observations side by side; without
infos.legals every action up to the greatest one in the file is available.
The observation after the last step is not stored. After a true end nothing is learned from it: the last one is
repeated. ours: after a cut (truncated, not terminated) the last step cannot be bootstrapped from, and gets mask 0
(last_step="mask"): its observation is the successor of the step before, which is marked truncated in its place, so
that every target uses what was seen and no loss needs a rule of its own. The last reward is lost to learning, and the
card says so; its returns are those of the whole episodes. last_step="keep" keeps the step and repeats the observation,
for what never bootstraps (cloning, reward decomposition). code: OG-MARL bootstraps from the first row of the episode
that follows. Files whose flags are 0 throughout (OMAR's MPE) need `episode_length`: an episode is cut after so many
rows, counted from the last end. Columns that are infinite throughout are padding (see `padding`).

Damage. Chunks are compressed by gzip, which has a checksum, and the store's nodes have one; what an array says of
itself has none, so it is compared with metadata.json and with the chunks that are there. The vaults written here have
checksums of all their files in metadata.json ("jaxshare_files"), and of metadata.json itself ("jaxshare_sha256").

Writing. Terminals and truncations are copies for every agent. Deaths, levels, policies and components go into leaves
of their own below infos, if there are any, and the card into metadata.json; others ignore them. The observation after
the last step is lost, as the format has it.
"""

from __future__ import annotations

import hashlib
import json
import math
import pathlib
import re
import shutil
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from jaxshare import durable
from jaxshare.data import limits, options, padding, records
from jaxshare.data.card import summary
from jaxshare.data.checks import check, check_flags
from jaxshare.data.records import FAILURES, LABELS, Array, Card, Dataset, Index, damaged
from jaxshare.types import Episode, RefusedError

VERSION = 1.2
METADATA = "metadata.json"
MANIFEST = "manifest.ocdbt"
INDEX = "vault_index"
LONGEST = 10**13  # rows of every leaf
REQUIRED = ("observations", "actions", "rewards", "terminals")
UNFINISHED = ".unfinished"
CHECKSUM = "jaxshare_sha256"  # of metadata.json without it
FILES = "jaxshare_files"  # {file of the store: its SHA-256}
LARGEST_CHUNK = 2**30  # bytes in memory, unless the leaf's rows take more
FLAGS = ("terminals", "truncations", "infos.legals", "infos.alive")  # 0 or 1


class Stored:
    """A vault on disk. Where episodes end and what they return is in memory; the rest is read when it is asked for.

    rewards: "team" refuses agents with unequal rewards; "mean" gives each of them the mean; "individual" leaves them.
    last_step: "mask" or "keep", see above. drop_first: leave out the first episode. num_actions: of files without
    infos.legals, if more than were ever taken. episode_length: see above; 0: episodes end by their flags.
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
        self.path = _folder(pathlib.Path(path))
        metadata = _metadata(self.path)
        self._leaves = {name: _array(self.path, f"{name}.") for name in _names(self.path, metadata)}
        self._rows = _num_rows(self.path)
        _check_leaves(self.path, self._leaves, self._rows)
        _check_descriptions(self.path, self._leaves, metadata, self._rows)
        row_bytes = sum(_row_bytes(array) for array in self._leaves.values())
        limits.check_size(self.path, self._rows * row_bytes, limits.bytes_on_disk(self.path))
        _check_sums(self.path, metadata)
        self._find_episodes(last_step, drop_first, episode_length)
        self._num_actions = self._count_actions(num_actions)
        self._padding = {name: self._find_padding(name) for name in ("observations", "infos.state")}
        card = dict(metadata.get("jaxshare") or {})
        if rewards == "team" and not card.get("common_reward", True):
            rewards = "individual"
        self._rewards = rewards
        self.card = self._complete(card, last_step)

    def __len__(self) -> int:
        return len(self._start)

    def _find_episodes(self, last_step: str, drop_first: bool, episode_length: int) -> None:
        """First row, rows, steps that count, and way of ending of every episode."""
        ends = self._leaf("terminals", slice(self._rows)) != 0
        cuts = (
            ends & False
            if "truncations" not in self._leaves
            else self._leaf("truncations", slice(self._rows)) != 0
        )
        last = np.flatnonzero((ends | cuts).all(1))
        if episode_length:
            last = _also_every(last, self._rows, episode_length)
        start = np.concatenate([[0], last + 1])[: len(last)]
        self.dropped_rows = self._rows - (int(last[-1]) + 1 if len(last) else 0)
        terminated, truncated = ends[last].all(1), cuts[last].all(1) | ~ends[last].all(1)
        rows = last + 1 - start
        steps = rows - (truncated & ~terminated if last_step == "mask" else 0)
        whole = (steps > 0) & ~((start == 0) & drop_first)
        self.dropped_rows += int(rows[~whole].sum())
        self._start, self._length, self._steps = start[whole], rows[whole], steps[whole]
        self._terminated, self._truncated = terminated[whole], truncated[whole]
        if not len(self):
            raise RefusedError(
                f"{self.path} has no whole episode: in {self._rows} rows no team ends that has a step to learn from. "
                + _remedy(ends | cuts, rows, episode_length)
            )

    def _find_padding(self, name: str) -> Array:
        """Which columns of a leaf pad, [N, O] or [G] bool."""
        if name not in self._leaves:
            return np.zeros(0, bool)
        return padding.infinite_columns(
            lambda rows: self._leaf(name, rows), padding.blocks(self._rows)
        )

    def _count_actions(self, num_actions: int | None) -> int:
        """A, or 0 of continuous actions."""
        if not np.issubdtype(self._leaves["actions"].dtype.numpy_dtype, np.integer):
            return 0
        if "infos.legals" in self._leaves:
            return int(self._leaves["infos.legals"].shape[-1])
        taken = int(self._leaf("actions", slice(self._rows)).max()) + 1
        if num_actions and num_actions < taken:
            raise RefusedError(
                f"dataset.num_actions={num_actions}, but {self.path} holds action {taken - 1}. Give {taken} or more."
            )
        return num_actions or taken

    def _complete(self, card: Card, last_step: str) -> Card:
        """The file's own card, or one made from its path, with the numbers of its episodes."""
        every = np.arange(len(self))
        row, episode, _ = self._rows_of(every)
        reward = self._team(self._leaf("rewards", row))
        team = reward[:, 0] if self._rewards != "individual" else reward.sum(1)
        returns = np.bincount(episode, weights=team, minlength=len(self))
        level, component = self._label("level", every), self._label("component", every)
        about: Card = {
            "format": f"vault {VERSION}",
            "name": "/".join(self.path.parts[-4:]),
            "last_step": last_step,
        }
        about |= {
            "dropped_rows": self.dropped_rows,
            "masked_steps": int((self._length - self._steps).sum()),
        }
        about["notes"] = [
            line for name, columns in self._padding.items() for line in padding.note(name, columns)
        ]
        return {
            "environment": self.path.parent.parent.name,
            "scenario": self.path.parent.name.removesuffix(".vlt"),
            **card,
            "common_reward": self._rewards != "individual",
            **summary(returns, self._steps, level, component),
            "source": about,
        }

    def _team(self, reward: Array) -> Array:
        """Rewards of rows [M, N] as asked for."""
        return options.rewards_as_asked(reward, self._rewards, str(self.path))

    def _label(self, name: str, chosen: Array) -> Array:
        """level or policy [K, N] or component [K] of episodes."""
        if f"infos.{name}" in self._leaves:
            return self._leaf(f"infos.{name}", self._start[chosen])
        agents = self._leaves["rewards"].shape[2]
        return records.unknown_label(name, len(chosen), agents)

    def _leaf(self, name: str, rows: Array | slice) -> Array:
        """Rows of a leaf, [M, ...]."""
        if isinstance(rows, np.ndarray) and len(rows) and (np.diff(rows) == 1).all():
            rows = slice(int(rows[0]), int(rows[-1]) + 1)
        values = _read(self.path, name, self._leaves[name][0].oindex[rows])
        if name in FLAGS:
            check_flags(values, name, self.path)
        return values

    def _rows_of(self, chosen: Array) -> tuple[Array, Array, Array]:
        """Row, place in `chosen` and step of every row of some episodes, each [M]."""
        length = self._length[chosen]
        place = np.repeat(np.arange(len(chosen)), length)
        step = np.arange(len(place)) - np.repeat(np.cumsum(length) - length, length)
        return self._start[chosen][place] + step, place, step

    def read(self, episodes: Index = None) -> Dataset:
        """The episodes at an index (all by default) in memory, padded to the longest one of the file."""
        chosen = records.indices(episodes, len(self))
        row, place, step = self._rows_of(chosen)
        count, limit = len(chosen), int(self._steps.max())
        row_bytes = sum(_row_bytes(array) for array in self._leaves.values())
        limits.check_memory(self.path, count * (limit + 1) * row_bytes)
        taken = step < self._steps[chosen][place]  # rows whose step counts
        whole = np.flatnonzero(
            self._length[chosen] == self._steps[chosen]
        )  # whose last row needs a successor
        after = self._steps[chosen][whole]

        def steps(values: Array) -> Array:
            out = np.zeros((count, limit, *values.shape[1:]), values.dtype)
            out[place[taken], step[taken]] = values[taken]
            return out

        def slots(values: Array, fill: Any = 0) -> Array:
            out = np.full((count, limit + 1, *values.shape[1:]), fill, values.dtype)
            out[place, step] = values
            out[whole, after] = out[whole, after - 1]
            return out

        mask = steps(np.ones(len(row), bool))
        last = mask & (np.arange(limit) == self._steps[chosen][:, None] - 1)
        shown = self._shown(row)
        fields: dict[str, Any] = {
            "obs": slots(shown["obs"]),
            "state": slots(shown["state"]),
            "avail": slots(shown["avail"], True),
            "alive": slots(self._alive(row, place, step)),
            "action": steps(self._actions(row)),
            "reward": steps(self._team(self._leaf("rewards", row)).astype(np.float32, copy=False)),
            "terminated": last & self._terminated[chosen][:, None],
            "truncated": last & self._truncated[chosen][:, None],
            "mask": mask,
        }
        labels = {name: self._label(name, chosen) for name in LABELS}
        dataset = records.make(Episode(**fields), card=self.card, **labels)
        if len(dataset):
            check(dataset, f"{self.path}, of the episodes read")
        return dataset

    def _shown(self, row: Array) -> dict[str, Array]:
        """obs [M, N, O], state [M, G] and avail [M, N, A] of rows."""
        obs = self._leaf("observations", row).astype(np.float32, copy=False)
        obs = padding.without(obs, self._padding["observations"])
        state = obs.reshape(len(row), math.prod(obs.shape[1:]))
        if "infos.state" in self._leaves:
            state = padding.without(self._leaf("infos.state", row), self._padding["infos.state"])
        avail = np.ones((len(row), obs.shape[1], self._num_actions), bool)
        if self._num_actions and "infos.legals" in self._leaves:
            avail = self._leaf("infos.legals", row) != 0
        return {"obs": obs, "state": state.astype(np.float32, copy=False), "avail": avail}

    def _actions(self, row: Array) -> Array:
        action = self._leaf("actions", row)
        return action[..., 0] if self._num_actions and action.ndim == 3 else action

    def _alive(self, row: Array, place: Array, step: Array) -> Array:
        """Whether each agent lives before the step of a row, [M, N] bool."""
        if "infos.alive" in self._leaves:
            return self._leaf("infos.alive", row) != 0
        ended = self._leaf("terminals", row) != 0
        dead = np.zeros(
            (place[-1] + 1 if len(place) else 0, int(self._length.max()) + 1, ended.shape[1]), bool
        )
        dead[place, step + 1] = ended
        return ~np.logical_or.accumulate(dead, axis=1)[place, step]


def open(path: str | pathlib.Path, **asked: Any) -> Stored:
    """A vault that is read where it lies; asked: options of `Stored`. Raises RefusedError for anything else."""
    options.check(asked)
    return Stored(path, **asked)


def _also_every(last: Array, rows: int, length: int) -> Array:
    """Rows at which episodes end, [K], if they end at the rows `last` and `length` rows after they began."""
    begin = np.concatenate([[0], last + 1])
    end = np.concatenate([last + 1, [rows]])
    cut = [
        np.arange(first + length - 1, stop, length) for first, stop in zip(begin, end, strict=True)
    ]
    return np.unique(np.concatenate([last, *cut]))


def _remedy(ended: Array, rows: Array, episode_length: int) -> str:
    """What to do about a vault without a whole episode. ended [M, N]: flags; rows [K]: of the episodes that end."""
    if len(rows):
        return "Its episodes have one step: use dataset.last_step=keep, or choose another file."
    if episode_length:
        return (
            f"It has fewer rows than dataset.episode_length={episode_length}: choose a smaller one."
        )
    why = (
        "Its flags are 0 throughout"
        if not ended.any()
        else "Its flags never say that all agents have ended"
    )
    return f"{why}: say how long its episodes are, as in dataset.episode_length=25, or choose another file."


def write(
    dataset: Dataset,
    path: str | pathlib.Path,
    overwrite: bool = False,
    progress: Callable[[float], None] | None = None,
) -> pathlib.Path:
    """Write a data set as the vault `path`, which is `<name>.vlt/<uid>`.

    overwrite: whether it takes the place of a vault of that name, which otherwise must not exist.
    progress: called with the share of the data that is written, from 0 to 1.
    Raises RefusedError for data that fail a check, and for a name that is taken.
    """
    import tensorstore

    check(dataset)
    path = pathlib.Path(path)
    if path.exists() and not overwrite:
        raise RefusedError(
            f"{path} exists, and a vault is not overwritten. Choose another uid, or remove it."
        )
    if path.exists() and not (path / METADATA).is_file():
        raise RefusedError(f"{path} is not a vault and is not overwritten. Choose another name.")
    folder = path.with_name(path.name + UNFINISHED)  # renamed when whole
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    episode, step = np.nonzero(dataset.episodes.mask)
    leaves = _rows_to_write(dataset)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, leaf in leaves.items():
        shapes[name] = _write_leaf(folder, name, *leaf, episode, step)
        if progress is not None:
            progress(len(shapes) / len(leaves))
    index = tensorstore.open(_spec(folder, INDEX), shape=(1,), dtype="int32", create=True).result()
    index.write(np.array([len(episode)], np.int32)).result()
    metadata = {
        "version": VERSION,
        "structure_shape": _tree({name: str(shape) for name, shape in shapes.items()}),
        "structure_dtype": _tree({name: dtype for name, (_, dtype) in leaves.items()}),
        "jaxshare": dataset.card | {"common_reward": dataset.common_reward},
    }
    metadata[FILES] = _sums(folder)
    metadata[CHECKSUM] = _digest(metadata)
    durable.write_text(folder / METADATA, json.dumps(metadata))
    durable.sync_tree(folder)
    durable.replace_folder(folder, path)
    return path


def _sums(path: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file of the store, by its path in it. Raises OSError."""
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and file.name != METADATA]
    sums = {}
    for file in files:
        with file.open("rb") as raw:
            sums[str(file.relative_to(path))] = hashlib.file_digest(raw, "sha256").hexdigest()
    return sums


def _check_sums(path: pathlib.Path, metadata: dict[str, Any]) -> None:
    """Raise RefusedError unless metadata.json and the files are those that were written, if they have checksums."""
    if CHECKSUM not in metadata:
        return
    if _digest(metadata) != metadata[CHECKSUM]:
        raise damaged(path, f"{METADATA} is not what was written: its checksum differs")
    sums = _sums(path)
    for name, expected in metadata.get(FILES, {}).items():
        if sums.get(name) != expected:
            raise damaged(path, f"{name} is not what was written: its checksum differs")


def _digest(metadata: dict[str, Any]) -> str:
    """SHA-256 of metadata.json without its checksum and version; however its JSON is laid out.

    Minor versions do not matter, and any other is refused.
    """
    rest = {name: value for name, value in metadata.items() if name not in (CHECKSUM, "version")}
    plain = json.loads(json.dumps(rest))  # keys that are no text become text in the file
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _write_leaf(
    folder: pathlib.Path,
    name: str,
    values: Callable[[Array, Array], Array],
    dtype: str,
    episode: Array,
    step: Array,
) -> tuple[int, ...]:
    """Write one leaf, a chunk at a time; its shape, with the rows in use. episode, step: of every row, [M]."""
    import tensorstore

    sizes = values(episode[:1], step[:1]).shape[1:]
    spec = _spec(folder, f"{name}.") | {
        "metadata": {"compressor": {"id": "gzip", "level": 5}}
    }  # flashbax's default
    array: Any = tensorstore.open(
        spec, shape=(1, LONGEST, *sizes), dtype=dtype, create=True
    ).result()
    block = _block(array)
    for first in range(0, len(episode), block):
        part = slice(first, min(first + block, len(episode)))
        array[0, part].write(values(episode[part], step[part]).astype(dtype)).result()
    return (1, len(episode), *sizes)


def _block(array: Any) -> int:
    """Rows of a chunk."""
    return int(array.chunk_layout.write_chunk.shape[1])


def _rows_to_write(dataset: Dataset) -> dict[str, tuple[Any, str]]:
    """{leaf: (rows of (episode, step), each [M], as an array [M, ...]; dtype)}."""
    episodes, agents = dataset.episodes, dataset.num_agents
    discrete = bool(episodes.avail.shape[-1])

    def of(values: Any) -> Any:
        return lambda e, t: values[e, t]

    def copies(values: Any) -> Any:
        return lambda e, t: np.repeat(values[e, t][:, None], agents, axis=1)

    def constant(values: Any) -> Any:
        return lambda e, t: values[e]

    leaves = {
        "observations": (of(episodes.obs), "float32"),
        "actions": (of(episodes.action), "int32" if discrete else "float32"),
        "rewards": (of(episodes.reward), "float32"),
        "terminals": (copies(episodes.terminated), "bool"),
        "truncations": (copies(episodes.truncated), "bool"),
    }
    if episodes.state.shape[-1]:
        leaves["infos.state"] = (of(episodes.state), "float32")
    if discrete:
        leaves["infos.legals"] = (of(episodes.avail), "bool")
    if not np.asarray(episodes.alive[:, :-1])[np.asarray(episodes.mask)].all():
        leaves["infos.alive"] = (of(episodes.alive), "bool")
    for name, label in records.known_labels(dataset).items():
        leaves[f"infos.{name}"] = (constant(label), label.dtype.name)
    return leaves


def _tree(flat: dict[str, Any]) -> dict[str, Any]:
    """Dotted names as nested dictionaries."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *above, leaf = name.split(".")
        at = tree
        for key in above:
            at = at.setdefault(key, {})
        at[leaf] = value
    return tree


def _names(path: pathlib.Path, metadata: dict[str, Any]) -> list[str]:
    """Dotted names of the leaves."""

    def walk(tree: dict[str, Any], above: str) -> list[str]:
        pairs = tree.items()
        return [
            leaf
            for key, x in pairs
            for leaf in (walk(x, f"{above}{key}.") if isinstance(x, dict) else [above + key])
        ]

    structure = metadata.get("structure_shape")
    if not isinstance(structure, dict):
        raise damaged(path, f"{METADATA} has no structure_shape")
    try:
        return walk(structure, "")
    except RecursionError as error:
        raise damaged(path, f"{METADATA} is nested too deeply", error) from error


def _folder(path: pathlib.Path) -> pathlib.Path:
    """The folder of one uid: `path` itself, or the only one in it."""
    if not path.exists():
        unfinished = path.with_name(path.name + UNFINISHED)
        state = "is unfinished: its writer was stopped" if unfinished.exists() else "does not exist"
        raise RefusedError(f"{path} {state}. Check the path.")
    if (path / METADATA).is_file():
        return path
    within = (
        sorted(child.name for child in path.iterdir() if (child / METADATA).is_file())
        if path.is_dir()
        else []
    )
    if len(within) == 1:
        return path / within[0]
    if within:
        raise RefusedError(
            f"{path} holds several data sets: {', '.join(within)}. Name one, as in {path / within[0]}."
        )
    raise RefusedError(
        f"{path} is not a vault: it has no {METADATA}. Check the path, or the format."
    )


def _metadata(path: pathlib.Path) -> dict[str, Any]:
    """metadata.json, once its version is one that can be read."""
    metadata = limits.json_object(path, METADATA)
    version = metadata.get("version")
    if not isinstance(version, int | float) or isinstance(version, bool):
        raise RefusedError(
            f"{path} is not a vault: {METADATA} has no version. Check the path, or the format."
        )
    if version // 1 != VERSION // 1:
        raise RefusedError(
            f"{path} is a vault of version {version}; {VERSION // 1:.0f}.x can be read. "
            "Convert it with the flashbax that knows it."
        )
    unknown = set(metadata) - {
        "version",
        "structure_shape",
        "structure_dtype",
        "jaxshare",
        FILES,
        CHECKSUM,
    }
    if "jaxshare" in metadata and unknown:
        raise damaged(path, f"{METADATA} has {min(unknown)!r}, which no version wrote")
    return metadata


def _num_rows(path: pathlib.Path) -> int:
    rows = int(_read(path, INDEX, _array(path, INDEX))[0])
    if not 0 < rows <= LONGEST:
        raise RefusedError(
            f"{path} is empty: its {INDEX} is {rows}. Choose one that was written to."
        )
    return rows


def _check_leaves(path: pathlib.Path, leaves: dict[str, Any], rows: int) -> None:
    """Raise RefusedError unless the leaves are those of a multi-agent data set and agree in their sizes."""
    for name in REQUIRED:
        if name not in leaves:
            has = ", ".join(leaves)
            raise RefusedError(
                f"{path} has no {name}, but {has}: it is a vault of something else. Choose another."
            )
    agents = leaves["rewards"].shape[2] if len(leaves["rewards"].shape) == 3 else None
    ranks = {
        "observations": (4,),
        "actions": (3, 4),
        "rewards": (3,),
        "terminals": (3,),
        "truncations": (3,),
    }
    ranks |= {"infos.state": (3,), "infos.legals": (4,)}
    for name, array in leaves.items():
        shape = tuple(array.shape)
        wrong = len(shape) not in ranks.get(name, (len(shape),)) or shape[0] != 1 or shape[1] < rows
        if not wrong and name in ranks and name != "infos.state":
            wrong = shape[2] != agents
        if wrong:
            raise RefusedError(
                f"{path}: {name} has shape {shape}, which is not one batch of rows of vectors for {agents} agents "
                f"({rows} rows are in use). Only such data can be read."
            )
    real = not np.issubdtype(leaves["actions"].dtype.numpy_dtype, np.integer)
    if real and len(leaves["actions"].shape) != 4:
        raise RefusedError(
            f"{path}: actions are real numbers without a size of their own. Only [1, M, N, U] can be read."
        )


def _row_bytes(array: Any) -> int:
    """Bytes of a row of a leaf."""
    return math.prod(array.shape[2:]) * array.dtype.numpy_dtype.itemsize


def _check_descriptions(
    path: pathlib.Path, leaves: dict[str, Any], metadata: dict[str, Any], rows: int
) -> None:
    """Raise RefusedError unless what each leaf says of itself agrees with metadata.json and with its chunks.

    It stands in the store without a checksum; a chunk that is looked for under another name would be read as zeros.
    """
    keys = _keys(path)
    for name, array in leaves.items():
        about = array.spec().to_json()["metadata"]
        if str(about["dtype"]).startswith(">"):
            raise damaged(path, f"{name} says that its numbers are big-endian ({about['dtype']})")
        for kind, actual in (("shape", list(array.shape[2:])), ("dtype", array.dtype.name)):
            stated = _stated(metadata, kind, name)
            if stated is not None and stated != actual:
                raise damaged(path, f"{name} has the {kind} {actual}, {METADATA} says {stated}")
        row_bytes = _row_bytes(array)
        limits.check_chunk(
            path, name, _block(array) * row_bytes, max(rows * row_bytes, LARGEST_CHUNK)
        )

        separator = re.escape(about.get("dimension_separator", "."))
        chunk = re.compile(separator.join([r"\d+"] * array.rank))
        for key in keys.get(f"{name}.", []):
            if not key.startswith(".") and not chunk.fullmatch(key):
                raise damaged(path, f"{name} has {key!r}, which is no chunk of it")


def _keys(path: pathlib.Path) -> dict[str, list[str]]:
    """What the store holds of each leaf, by its path in it."""
    import tensorstore

    store: Any = {"driver": "ocdbt", "base": f"file://{path.absolute()}"}
    try:
        keys = tensorstore.KvStore.open(store).result().list().result()
    except FAILURES as error:
        raise damaged(path, "its content cannot be listed", error) from error
    leaves: dict[str, list[str]] = {}
    for key in keys:
        leaf, _, rest = key.decode(errors="replace").partition("/")
        leaves.setdefault(leaf, []).append(rest)
    return leaves


def _stated(metadata: dict[str, Any], kind: str, name: str) -> Any:
    """What metadata.json says of a leaf: its sizes behind [1, M], or its dtype; None if it says nothing."""
    stated = metadata.get(f"structure_{kind}")
    for key in name.split("."):
        stated = stated.get(key) if isinstance(stated, dict) else None
    if not isinstance(stated, str):
        return None
    return [int(size) for size in re.findall(r"\d+", stated)][2:] if kind == "shape" else stated


def _spec(path: pathlib.Path, name: str) -> dict[str, Any]:
    return {
        "driver": "zarr",
        "kvstore": {"driver": "ocdbt", "base": f"file://{path.absolute()}", "path": name},
    }


def _array(path: pathlib.Path, name: str) -> Any:
    import tensorstore

    try:
        return tensorstore.open(_spec(path, name), read=True).result()
    except FAILURES as error:
        raise damaged(path, f"{name} cannot be opened", error) from error


def _read(path: pathlib.Path, name: str, part: Any) -> Array:
    try:
        return np.asarray(part.read().result())
    except FAILURES as error:
        raise damaged(path, f"{name} cannot be read", error) from error

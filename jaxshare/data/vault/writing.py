"""A data set written as a vault."""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorstore

from jaxshare import durable
from jaxshare.data import records
from jaxshare.data.checks import check
from jaxshare.data.records import Array, Dataset
from jaxshare.data.vault import arrays, metadata
from jaxshare.data.vault.arrays import INDEX, LONGEST
from jaxshare.data.vault.metadata import CHECKSUM, FILES, METADATA, UNFINISHED, VERSION
from jaxshare.types import RefusedError

GZIP = {"compressor": {"id": "gzip", "level": 5}}  # flashbax's default


@dataclass(frozen=True)
class Leaf:
    """What is to be written. M rows."""

    rows: Callable[[Array, Array], Array]  # (episode [M], step [M]) -> [M, ...]
    dtype: str


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
    check(dataset)
    path = pathlib.Path(path)
    folder = _unfinished(path, overwrite)

    # the leaves, and how many of their rows are in use
    episode, step = np.nonzero(dataset.episodes.mask)
    leaves = _leaves(dataset)
    shapes: dict[str, str] = {}
    for name, leaf in leaves.items():
        shapes[name] = str(_write_leaf(folder, name, leaf, episode, step))
        if progress is not None:
            progress(len(shapes) / len(leaves))
    index = tensorstore.open(
        arrays.spec(folder, INDEX), shape=(1,), dtype="int32", create=True
    ).result()
    index.write(np.array([len(episode)], np.int32)).result()

    # what is said of them, with checksums
    dtypes = {name: leaf.dtype for name, leaf in leaves.items()}
    card = dataset.card | {"common_reward": dataset.common_reward}
    about = {
        "version": VERSION,
        "structure_shape": metadata.tree(shapes),
        "structure_dtype": metadata.tree(dtypes),
        "jaxshare": card,
    }
    about[FILES] = metadata.sums(folder)
    about[CHECKSUM] = metadata.digest(about)
    durable.write_text(folder / METADATA, json.dumps(about))
    durable.sync_tree(folder)
    durable.replace_folder(folder, path)
    return path


def _unfinished(path: pathlib.Path, overwrite: bool) -> pathlib.Path:
    """The folder to write in, which is renamed when it is whole. Raises RefusedError."""
    if path.exists() and not overwrite:
        raise RefusedError(
            f"{path} exists, and a vault is not overwritten. Choose another uid, or remove it."
        )
    if path.exists() and not (path / METADATA).is_file():
        raise RefusedError(f"{path} is not a vault and is not overwritten. Choose another name.")
    folder = path.with_name(path.name + UNFINISHED)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def _write_leaf(
    folder: pathlib.Path, name: str, leaf: Leaf, episode: Array, step: Array
) -> tuple[int, ...]:
    """Write one leaf, a chunk at a time; its shape, with the rows in use.

    episode, step: of every row, [M].
    """
    sizes = leaf.rows(episode[:1], step[:1]).shape[1:]
    where = arrays.spec(folder, f"{name}.") | {"metadata": GZIP}
    shape = (1, LONGEST, *sizes)
    array = tensorstore.open(where, shape=shape, dtype=leaf.dtype, create=True).result()

    # a chunk at a time
    block = arrays.chunk_rows(array)
    for first in range(0, len(episode), block):
        part = slice(first, min(first + block, len(episode)))
        rows = leaf.rows(episode[part], step[part])
        array[0, part].write(rows.astype(leaf.dtype)).result()
    return (1, len(episode), *sizes)


def _leaves(dataset: Dataset) -> dict[str, Leaf]:
    """What is written of a data set, by the names of the leaves."""
    episodes = dataset.episodes
    agents = dataset.num_agents
    discrete = bool(episodes.avail.shape[-1])

    # what every vault has
    action_dtype = "int32" if discrete else "float32"
    leaves: dict[str, Leaf] = {}
    leaves["observations"] = Leaf(_of_steps(episodes.obs), "float32")
    leaves["actions"] = Leaf(_of_steps(episodes.action), action_dtype)
    leaves["rewards"] = Leaf(_of_steps(episodes.reward), "float32")
    leaves["terminals"] = Leaf(_of_agents(episodes.terminated, agents), "bool")
    leaves["truncations"] = Leaf(_of_agents(episodes.truncated, agents), "bool")

    # what this data set has besides
    if episodes.state.shape[-1]:
        leaves["infos.state"] = Leaf(_of_steps(episodes.state), "float32")
    if discrete:
        leaves["infos.legals"] = Leaf(_of_steps(episodes.avail), "bool")
    if not np.asarray(episodes.alive[:, :-1])[np.asarray(episodes.mask)].all():
        leaves["infos.alive"] = Leaf(_of_steps(episodes.alive), "bool")
    for name, label in records.known_labels(dataset).items():
        leaves[f"infos.{name}"] = Leaf(_of_episodes(label), label.dtype.name)
    return leaves


def _of_steps(values: object) -> Callable[[Array, Array], Array]:
    """Rows of values [E, T, ...]."""
    array = np.asarray(values)
    return lambda episode, step: array[episode, step]


def _of_agents(values: object, agents: int) -> Callable[[Array, Array], Array]:
    """Rows of values [E, T], one copy for each agent."""
    array = np.asarray(values)
    return lambda episode, step: np.repeat(array[episode, step][:, None], agents, axis=1)


def _of_episodes(values: Array) -> Callable[[Array, Array], Array]:
    """Rows of values [E, ...], the same in every step."""
    return lambda episode, step: values[episode]

"""A data set written as an HDF5 file."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from jaxshare import durable
from jaxshare.data import padding, records
from jaxshare.data.checks import check
from jaxshare.data.hdf5.file import CARD, CHECKSUM, import_h5py, is_hdf5
from jaxshare.data.hdf5.masks import on, reached_by, with_last_column
from jaxshare.data.records import LABELS, Array, Dataset
from jaxshare.types import RefusedError

if TYPE_CHECKING:
    import h5py

BLOCK = 256  # episodes that are written at a time
MEMORY_BLOCK = 2**24  # bytes by which the file grows in memory


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
    package = import_h5py()
    check(dataset)
    path = pathlib.Path(path)
    _check_writable(dataset, path, overwrite)
    silent = _without_content(dataset)
    card = json.dumps(dataset.card)

    # into memory, as compressed as on disk: HDF5 ends the process if it meets a full disk
    memory = {"driver": "core", "backing_store": False, "block_size": MEMORY_BLOCK}
    with package.File(path.name, "w", libver=("v110", "v110"), **memory) as file:
        for part in padding.blocks(len(dataset), BLOCK):
            for name, values in columns(dataset.take(part)).items():
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


def _check_writable(dataset: Dataset, path: pathlib.Path, overwrite: bool) -> None:
    """Raise RefusedError for a name that is taken, and for what the format does not hold."""
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
            f"{path}: PyMARL's format has one reward per team, and these agents have rewards of "
            "their own (common_reward=false). Write jaxshare's own format or a vault instead."
        )


def _write_rows(file: h5py.File, name: str, values: Array, part: slice, episodes: int) -> None:
    """Write some episodes of an array, which is made with room for all of them at the first."""
    if name not in file:
        shape = (episodes, *values.shape[1:])
        options = {"compression": "gzip", "compression_opts": 4, "fletcher32": True}
        file.create_dataset(name, shape, values.dtype, **options)
    file[name][part] = values


def _without_content(dataset: Dataset) -> set[str]:
    """Arrays that say nothing of this data set: nobody dies, or a label is unknown."""
    reached = reached_by(np.asarray(dataset.episodes.mask))
    silent = set(LABELS) - set(records.known_labels(dataset))
    if np.asarray(dataset.episodes.alive)[reached].all():
        silent.add("alive")
    return silent


def columns(dataset: Dataset) -> dict[str, Array]:
    """The arrays of a file, [E, T+1, ...], and the labels, [E, ...]."""
    episode = dataset.episodes
    mask = np.asarray(episode.mask)
    reached = reached_by(mask)

    # 0 in the columns that are not filled
    obs = np.asarray(episode.obs, np.float32)
    obs = obs * on(reached, obs)
    state = np.asarray(episode.state, np.float32)
    state = state * on(reached, state)
    reward = np.asarray(episode.reward, np.float32)[..., :1]
    terminated = _longer(episode.terminated, mask)[..., None].astype(np.uint8)
    filled = reached[..., None].astype(np.int64)
    arrays = {
        "obs": obs,
        "state": state,
        "reward": _longer(reward, mask),
        "terminated": terminated,
        "filled": filled,
    }
    arrays |= _action_columns(dataset, mask, reached)
    arrays["alive"] = np.asarray(episode.alive).astype(np.uint8)
    return arrays | {name: getattr(dataset, name) for name in LABELS}


def _action_columns(dataset: Dataset, mask: Array, reached: Array) -> dict[str, Array]:
    """Those of actions. mask: [E, T]. reached: [E, T+1]."""
    episode = dataset.episodes
    if not episode.avail.shape[-1]:
        return {"actions": _longer(np.asarray(episode.action, np.float32), mask)}

    # the columns without an action have an available one
    avail = np.asarray(episode.avail) & reached[..., None, None]
    first = np.argmax(avail, axis=-1)
    stepped = with_last_column(mask, False)
    taken = _longer(np.asarray(episode.action, np.int64), mask)
    action = np.where(stepped[..., None], taken, first)

    is_chosen = np.arange(avail.shape[-1]) == action[..., None]
    onehot = is_chosen & reached[..., None, None]
    return {
        "actions": action[..., None],
        "actions_onehot": onehot.astype(np.float32),
        "avail_actions": avail.astype(np.int32),
    }


def _longer(values: object, mask: Array) -> Array:
    """Values [E, T, ...] as [E, T+1, ...], 0 where no step counts."""
    array = np.asarray(values)
    return with_last_column(array * on(mask, array), 0)

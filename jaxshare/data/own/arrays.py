"""Arrays of the own format: where they lie, how they are cut and compressed, and their dtypes."""

from __future__ import annotations

import math
import pathlib
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxshare.data.records import Array
from jaxshare.training.replay import DTYPES
from jaxshare.types import RefusedError

CHUNK_BYTES = 2**20  # of a chunk before compression, about: so few that single batches can be read
CHUNK_EPISODES = 1024  # at most
CODECS = (
    {"name": "bytes", "configuration": {"endian": "little"}},
    # measured: level 3, and blosc's shuffles, are no smaller on SMAX
    {"name": "zstd", "configuration": {"level": 1}},
    {"name": "crc32c"},
)


@dataclass(frozen=True)
class Field:
    """What a card says of an array."""

    shape: tuple[int, ...]  # of an episode
    dtype: str

    @staticmethod
    def of(values: Array) -> Field:
        """That of values [E, ...]."""
        return Field(tuple(values.shape[1:]), values.dtype.name)

    @staticmethod
    def read(about: dict[str, Any]) -> Field:
        """What a card has of it."""
        return Field(tuple(about["shape"]), about["dtype"])

    def plain(self) -> dict[str, Any]:
        """What a card has of it."""
        return {"shape": list(self.shape), "dtype": self.dtype}

    @property
    def is_empty(self) -> bool:
        """Whether it has no elements, and no array on disk."""
        return math.prod(self.shape) == 0

    def episode_bytes(self) -> int:
        """Bytes of an episode in memory."""
        return math.prod(self.shape) * numpy_dtype(self.dtype).itemsize

    def chunk_episodes(self) -> int:
        """Episodes of a chunk: a power of two, so that the chunks of fields end together."""
        fitting = min(max(CHUNK_BYTES // self.episode_bytes(), 1), CHUNK_EPISODES)
        return 2 ** int(math.log2(fitting))

    def metadata(self) -> dict[str, Any]:
        """What zarr is told of its array, as yet without episodes."""
        chunk_shape = [self.chunk_episodes(), *self.shape]
        return {
            "shape": [0, *self.shape],
            "data_type": self.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk_shape}},
            "codecs": list(CODECS),
        }


def location(folder: pathlib.Path, name: str) -> dict[str, Any]:
    """Where tensorstore has an array."""
    return {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{folder.absolute() / name}/"},
        "fill_missing_data_reads": False,  # a chunk that is not there is an error
        "store_data_equal_to_fill_value": True,  # so chunks of zeros must be there
    }


def rounded(name: str, values: Array, dtype: str) -> Array:
    """obs or state in a dtype of storage. Raises RefusedError for numbers beyond its range.

    name: for the message.
    values: obs [E, T+1, N, O] or state [E, T+1, S].
    """
    with np.errstate(over="ignore"):
        narrow = values.astype(numpy_dtype(dtype), copy=False)
    if narrow is not values and not np.isfinite(narrow.astype(np.float32, copy=False)).all():
        most = float(np.abs(values).max())
        raise RefusedError(
            f"dtype={dtype} cannot hold {name}, which reaches {most:.3g}. Use dtype=float32."
        )
    return narrow


def check_dtype(dtype: str) -> None:
    """Raise RefusedError for what obs and state cannot be stored as."""
    if dtype not in DTYPES:
        raise RefusedError(f"dtype={dtype} is not one of {', '.join(DTYPES)}.")


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """numpy's dtype of a name, bfloat16 included."""
    return np.dtype(jnp.dtype(dtype))

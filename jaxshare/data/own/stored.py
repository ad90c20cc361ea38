"""A data set of the own format on disk, read in parts."""

from __future__ import annotations

import math
import pathlib
from typing import Any

import numpy as np
import tensorstore

from jaxshare.data import limits, records
from jaxshare.data.checks import check, check_shapes
from jaxshare.data.own import arrays
from jaxshare.data.own import header as headers
from jaxshare.data.own.arrays import Field
from jaxshare.data.own.header import CARD, CHECKSUMS
from jaxshare.data.records import FAILURES, Array, Card, Dataset, Index, damaged
from jaxshare.training.replay import LOSSY
from jaxshare.types import RefusedError


class Stored:
    """A finished data set on disk: its card in memory, its arrays where they are."""

    def __init__(self, path: pathlib.Path, header: dict[str, Any]) -> None:
        self.path = path
        self.card: Card = header["card"]
        self._header = header
        self._episodes = int(header["episodes"])
        self._fields = {name: Field.read(about) for name, about in header["fields"].items()}

        # compare sizes before anything is opened
        limits.check_size(path, self._episodes * self._episode_bytes(), limits.bytes_on_disk(path))
        self._arrays: dict[str, tensorstore.TensorStore] = {}
        for name, field in self._fields.items():
            if not field.is_empty:
                self._arrays[name] = self._open(name)
        headers.check_arrays(path, header)

    def __len__(self) -> int:
        return self._episodes

    def _episode_bytes(self, dtype: str | None = None) -> int:
        """Bytes of an episode in memory, with its place in an index.

        dtype: of obs and state; by default as on disk.
        """
        total = 8
        for name, field in self._fields.items():
            asked = dtype if dtype and name in LOSSY else field.dtype
            total += Field(field.shape, asked).episode_bytes()
        return total

    def _open(self, name: str) -> tensorstore.TensorStore:
        """The array of a field. Raises RefusedError for a damaged one."""
        field = self._fields[name]
        where = arrays.location(self.path, name)
        try:
            array = tensorstore.open(where, read=True).result()
        except FAILURES as error:
            raise damaged(self.path, f"{name} cannot be opened", error) from error

        # as the card says, in chunks that fit into memory
        shape = (self._episodes, *field.shape)
        if tuple(array.shape) != shape or array.dtype.name != field.dtype:
            has = f"{array.dtype.name}{list(array.shape)}"
            raise damaged(self.path, f"{name} is {has}, {CARD} says something else")
        item = arrays.numpy_dtype(field.dtype).itemsize
        chunk = math.prod(limits.sizes_of_chunk(array.chunk_layout.read_chunk.shape)) * item
        limits.check_chunk(self.path, name, chunk, math.prod(array.shape) * item)
        return array

    def field(self, name: str, episodes: Index = None) -> Array:
        """One array by its name in `records.flat`, of the episodes at an index.

        Returns [K, ...], of K episodes, in the dtype on disk.
        """
        if name not in self._fields:
            raise RefusedError(
                f"{self.path} has no field {name}. It has {', '.join(self._fields)}."
            )
        chosen = records.indices(episodes, len(self))
        field = self._fields[name]
        if name not in self._arrays:
            return np.zeros((len(chosen), *field.shape), field.dtype)

        # the chunks that hold them
        array = self._arrays[name]
        episodes_of_chunk = limits.sizes_of_chunk(array.chunk_layout.read_chunk.shape)[0]
        headers.check_chunks(self.path, name, np.unique(chosen // episodes_of_chunk), self._header)
        contiguous = len(chosen) and (np.diff(chosen) == 1).all()
        part = slice(int(chosen[0]), int(chosen[-1]) + 1) if contiguous else chosen
        try:
            return np.asarray(array.oindex[part].read().result())
        except FAILURES as error:
            raise damaged(self.path, f"{name} cannot be read", error) from error

    def read(self, episodes: Index = None, dtype: str | None = None) -> Dataset:
        """The episodes at an index (all by default) in memory.

        dtype: of obs and state; by default as on disk.
        """
        if dtype is not None:
            arrays.check_dtype(dtype)
        count = len(records.indices(episodes, len(self)))
        limits.check_memory(self.path, count * self._episode_bytes(dtype))
        fields = {name: self.field(name, episodes) for name in self._fields}
        if dtype is not None:
            fields |= {name: arrays.rounded(name, fields[name], dtype) for name in LOSSY}
        dataset = records.unflat(fields, self.card)
        if count:
            # what has checksums is what the writer checked
            checked = check_shapes if CHECKSUMS in self._header else check
            checked(dataset, f"{self.path}, of the episodes read")
        return dataset


def open(path: str | pathlib.Path) -> Stored:
    """A data set whose arrays stay on disk until they are read.

    Raises RefusedError for anything else at `path`.
    """
    path = pathlib.Path(path)
    return Stored(path, headers.read(path))


def load(path: str | pathlib.Path, episodes: Index = None, dtype: str | None = None) -> Dataset:
    """The episodes at an index (all by default) in memory.

    dtype: of obs and state; by default as on disk.
    """
    return open(path).read(episodes, dtype)

"""The arrays of a vault's store, through tensorstore."""

from __future__ import annotations

import math
import pathlib
from typing import Protocol

import numpy as np
import tensorstore

from jaxshare.data import limits
from jaxshare.data.records import FAILURES, Array, damaged
from jaxshare.types import RefusedError

INDEX = "vault_index"
LONGEST = 10**13  # rows of every leaf


class Readable(Protocol):
    """An array of a store, or a part of one."""

    def read(self) -> tensorstore.Future[Array]:
        """Start to read it."""


def spec(path: pathlib.Path, name: str) -> dict[str, object]:
    """Where tensorstore has an array; name: its path in the store."""
    store = {"driver": "ocdbt", "base": f"file://{path.absolute()}", "path": name}
    return {"driver": "zarr", "kvstore": store}


def open_array(path: pathlib.Path, name: str) -> tensorstore.TensorStore:
    """An array, to be read. Raises RefusedError for a damaged one."""
    try:
        return tensorstore.open(spec(path, name), read=True).result()
    except FAILURES as error:
        raise damaged(path, f"{name} cannot be opened", error) from error


def read(path: pathlib.Path, name: str, part: Readable) -> Array:
    """What an array, or a part of it, holds. Raises RefusedError for a damaged one.

    path, name: for the message.
    Returns [...], of the shape of `part`.
    """
    try:
        return np.asarray(part.read().result())
    except FAILURES as error:
        raise damaged(path, f"{name} cannot be read", error) from error


def num_rows(path: pathlib.Path) -> int:
    """M: the rows in use. Raises RefusedError if there are none."""
    rows = int(read(path, INDEX, open_array(path, INDEX))[0])
    if not 0 < rows <= LONGEST:
        raise RefusedError(
            f"{path} is empty: its {INDEX} is {rows}. Choose one that was written to."
        )
    return rows


def row_bytes(array: tensorstore.TensorStore) -> int:
    """Bytes of a row of a leaf."""
    return math.prod(array.shape[2:]) * array.dtype.numpy_dtype.itemsize


def chunk_rows(array: tensorstore.TensorStore) -> int:
    """Rows of a chunk of a leaf."""
    return limits.sizes_of_chunk(array.chunk_layout.write_chunk.shape)[1]


def keys(path: pathlib.Path) -> dict[str, list[str]]:
    """What the store holds of each leaf, by its path in it. Raises RefusedError."""
    store = {"driver": "ocdbt", "base": f"file://{path.absolute()}"}
    try:
        names = tensorstore.KvStore.open(store).result().list().result()
    except FAILURES as error:
        raise damaged(path, "its content cannot be listed", error) from error
    leaves: dict[str, list[str]] = {}
    for name in names:
        leaf, _, rest = name.decode(errors="replace").partition("/")
        leaves.setdefault(leaf, []).append(rest)
    return leaves

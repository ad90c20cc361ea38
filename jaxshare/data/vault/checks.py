"""What the leaves of a vault must be before any is read."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorstore

from jaxshare.data import limits
from jaxshare.data.records import damaged
from jaxshare.data.vault import arrays, metadata
from jaxshare.data.vault.metadata import METADATA
from jaxshare.types import RefusedError

REQUIRED = ("observations", "actions", "rewards", "terminals")
RANKS: dict[str, tuple[int, ...]] = {
    "observations": (4,),
    "actions": (3, 4),
    "rewards": (3,),
    "terminals": (3,),
    "truncations": (3,),
    "infos.state": (3,),
    "infos.legals": (4,),
}
LARGEST_CHUNK = 2**30  # bytes in memory, unless the leaf's rows take more

Leaves = Mapping[str, tensorstore.TensorStore]


def check_leaves(path: pathlib.Path, leaves: Leaves, rows: int) -> None:
    """Raise RefusedError unless the leaves are those of several agents and agree in size."""
    for name in REQUIRED:
        if name not in leaves:
            has = ", ".join(leaves)
            raise RefusedError(
                f"{path} has no {name}, but {has}: it is a vault of something else. Choose another."
            )

    # shapes, for so many agents
    agents = leaves["rewards"].shape[2] if len(leaves["rewards"].shape) == 3 else None
    for name, array in leaves.items():
        shape = tuple(array.shape)
        ranks = RANKS.get(name, (len(shape),))
        wrong = len(shape) not in ranks or shape[0] != 1 or shape[1] < rows
        if not wrong and name in RANKS and name != "infos.state":
            wrong = shape[2] != agents
        if wrong:
            raise RefusedError(
                f"{path}: {name} has shape {shape}, which is not one batch of rows of vectors for "
                f"{agents} agents ({rows} rows are in use). Only such data can be read."
            )

    # real numbers have a size of their own
    is_real = not np.issubdtype(leaves["actions"].dtype.numpy_dtype, np.integer)
    if is_real and len(leaves["actions"].shape) != 4:
        raise RefusedError(
            f"{path}: actions are real numbers without a size of their own. Only [1, M, N, U] can "
            "be read."
        )


def check_descriptions(
    path: pathlib.Path, leaves: Leaves, about: Mapping[str, Any], rows: int
) -> None:
    """Raise RefusedError unless what each leaf says of itself agrees with metadata.json and chunks.

    It stands in the store without a checksum; a chunk that is looked for under another name would
    be read as zeros.

    about: what metadata.json holds.
    """
    keys = arrays.keys(path)
    for name, array in leaves.items():
        _check_description(path, name, array, about)

        # chunks that fit into memory
        row_bytes = arrays.row_bytes(array)
        chunk_bytes = arrays.chunk_rows(array) * row_bytes
        limits.check_chunk(path, name, chunk_bytes, max(rows * row_bytes, LARGEST_CHUNK))

        # no chunk under another name
        own_form = array.spec().to_json()["metadata"]
        separator = re.escape(own_form.get("dimension_separator", "."))
        chunk = re.compile(separator.join([r"\d+"] * array.rank))
        for key in keys.get(f"{name}.", []):
            if not key.startswith(".") and not chunk.fullmatch(key):
                raise damaged(path, f"{name} has {key!r}, which is no chunk of it")


def _check_description(
    path: pathlib.Path, name: str, array: tensorstore.TensorStore, about: Mapping[str, Any]
) -> None:
    dtype = str(array.spec().to_json()["metadata"]["dtype"])
    if dtype.startswith(">"):
        raise damaged(path, f"{name} says that its numbers are big-endian ({dtype})")
    sizes = list(array.shape[2:])
    stated_sizes = metadata.stated_sizes(about, name)
    if stated_sizes is not None and stated_sizes != sizes:
        raise damaged(path, f"{name} has the shape {sizes}, {METADATA} says {stated_sizes}")
    stated_dtype = metadata.stated_dtype(about, name)
    if stated_dtype is not None and stated_dtype != array.dtype.name:
        raise damaged(
            path, f"{name} has the dtype {array.dtype.name}, {METADATA} says {stated_dtype}"
        )

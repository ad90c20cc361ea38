"""Limits that a data set is held to before anything is allocated, or opened by a name in it.

A received data set may claim any size: chunks of zeros shrink by a factor of 30,000, and a chunk
that was never written takes no bytes at all. What is in memory later is therefore compared with the
files and with the memory that is free. No file of a set may lie outside it: links are refused.
"""

from __future__ import annotations

import json
import os
import pathlib
import stat
from collections.abc import Sequence
from typing import Any

from jaxshare.data.records import damaged
from jaxshare.run import parallel
from jaxshare.types import RefusedError

# bytes of a JSON file; that of a set of 1 TB in our own format takes about 15 MB
MOST_TEXT = 64 * 2**20
# ours: bytes in memory per byte on disk; measured: 49 of SMAX 3m; gzip never reaches 1033
MOST_RATIO = 1000
ALWAYS = 256 * 2**20  # bytes that are read whatever they take on disk
LARGEST_CHUNK = 64 * 2**20  # bytes of a chunk in memory, unless the array itself is larger
MEMORY_SHARE = 0.9  # of what is free may be used


def bytes_on_disk(path: pathlib.Path) -> int:
    """Bytes of the file `path`, or of all files below the folder `path`.

    Raises RefusedError if a link, a pipe or a device is among them: its content lies outside of the
    data set.
    """
    if not path.is_dir():
        return path.stat().st_size

    # what lies in a folder, but nothing that lies elsewhere
    total = 0
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            entry = pathlib.Path(folder) / name
            mode = entry.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                what = "a link" if stat.S_ISLNK(mode) else "no plain file"
                raise RefusedError(
                    f"{entry} is {what}: a data set holds its own files. Copy it with what its "
                    "links stand for, as cp -rL does."
                )
            total += entry.lstat().st_size if stat.S_ISREG(mode) else 0
    return total


def json_object(path: pathlib.Path, name: str) -> dict[str, Any]:
    """The JSON object in the file `name` of the data set `path`, or {} if it holds something else.

    Raises RefusedError if it is too large, cannot be read or is no JSON.
    """
    file = path / name
    try:
        size = file.stat().st_size
        if size > MOST_TEXT:
            raise RefusedError(
                f"{file} has {_bytes(size)}; at most {_bytes(MOST_TEXT)} are read. Get it again."
            )
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise damaged(path, f"{name} cannot be read", error) from error
    return content if isinstance(content, dict) else {}


def check_size(path: pathlib.Path, in_memory: int, on_disk: int) -> None:
    """Raise RefusedError if a data set claims implausibly many bytes for those on disk."""
    if in_memory > max(ALWAYS, MOST_RATIO * on_disk):
        raise RefusedError(
            f"{path} has {_bytes(on_disk)} on disk and claims to be {_bytes(in_memory)} in memory, "
            f"more than {MOST_RATIO} times as much, as no recorded data are. It is not read; get "
            "the data set again."
        )


def sizes_of_chunk(shape: Sequence[int | None] | None) -> tuple[int, ...]:
    """The shape of a zarr array's chunk, as tensorstore tells it, which knows all of it."""
    assert shape is not None
    return tuple(int(size or 0) for size in shape)


def check_chunk(path: pathlib.Path, name: str, chunk: int, array: int) -> None:
    """Raise RefusedError if a chunk of an array is large, and larger than the array itself.

    chunk, array: bytes in memory.
    """
    if chunk > max(LARGEST_CHUNK, array):
        raise RefusedError(
            f"{path}: a chunk of {name} claims {_bytes(chunk)} for an array of {_bytes(array)}. It "
            "is not read; get the data set again."
        )


def check_memory(path: pathlib.Path, needed: int) -> None:
    """Raise RefusedError if `needed` bytes do not fit into this machine's free memory."""
    free = parallel.free_host_bytes()
    if free is not None and needed > MEMORY_SHARE * free:
        raise RefusedError(
            f"{path}: what is to be read takes {_bytes(needed)} in memory, but {_bytes(free)} are "
            "free. Free some, or use a data set of fewer episodes."
        )


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"

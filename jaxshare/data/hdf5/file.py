"""An HDF5 file: opening it, which arrays it holds, and the card in it."""

from __future__ import annotations

import hashlib
import json
import math
import pathlib
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from jaxshare.data import limits
from jaxshare.data.records import FAILURES, Card, damaged
from jaxshare.types import RefusedError

if TYPE_CHECKING:
    import h5py

INSTALL = "pip install 'jaxshare[hdf5]'"
REQUIRED = ("obs", "actions", "reward", "terminated", "filled")
OPTIONAL = ("state", "avail_actions", "actions_onehot", "alive", "level", "policy", "component")
ARRAYS = (*REQUIRED, *OPTIONAL)
CARD = "jaxshare"  # attribute
CHECKSUM = "jaxshare_sha256"  # attribute: of the card's text
SIGNATURE = b"\x89HDF\r\n\x1a\n"

Arrays = dict[str, tuple[tuple[int, ...], np.dtype]]  # (shape, dtype) of each array of a file


def import_h5py() -> ModuleType:
    """The optional package. Raises RefusedError that says how to get it."""
    try:
        import h5py
    except ImportError as error:
        raise RefusedError(f"HDF5 files need h5py, which is not installed: {INSTALL}.") from error
    return h5py


def is_hdf5(path: pathlib.Path) -> bool:
    """Whether a file begins as HDF5 files do. Raises OSError."""
    if not path.is_file():
        return False
    with path.open("rb") as raw:
        return raw.read(len(SIGNATURE)) == SIGNATURE


def open_file(path: pathlib.Path) -> h5py.File:
    """A file, to be read. Raises RefusedError for anything else, and without h5py."""
    package = import_h5py()
    if not path.is_file():
        raise RefusedError(f"{path} does not exist or is no file. Check the path.")
    if not is_hdf5(path):
        raise RefusedError(f"{path} is not an HDF5 file. Check the path, or the format.")
    try:
        return package.File(path, "r")
    except FAILURES as error:
        raise damaged(path, "it cannot be opened", error) from error


def arrays(path: pathlib.Path, file: h5py.File) -> Arrays:
    """The arrays of a file.

    Raises RefusedError for claims and links that `limits` are against.
    """
    package = import_h5py()
    about: Arrays = {}
    size = 0
    for name in file:
        if not isinstance(file.get(name, getlink=True), package.HardLink):
            raise RefusedError(
                f"{path}: {name} is a link: a data set holds its own arrays. Copy what it stands "
                "for."
            )
        array = file[name]
        if isinstance(array, package.Dataset):
            about[name] = (tuple(array.shape or ()), array.dtype)
            if name in ARRAYS:
                _check_array(path, name, array)
                size += math.prod(about[name][0]) * array.dtype.itemsize

    # compare what they claim with what is on disk
    limits.check_size(path, size, limits.bytes_on_disk(path))
    return about


def _check_array(path: pathlib.Path, name: str, array: h5py.Dataset) -> None:
    """Raise RefusedError for an array that holds no numbers, lies elsewhere, or claims too much."""
    if array.dtype.kind not in "biuf":
        raise RefusedError(
            f"{path}: {name} holds {array.dtype}, which are no numbers. Choose another file."
        )
    if array.is_virtual or array.external:
        raise RefusedError(
            f"{path}: {name} lies in other files: a data set holds its own. Copy them into it."
        )

    # zeros that are compressed twice take next to nothing on disk
    description = array.id.get_create_plist()
    filters = [description.get_filter(i)[0] for i in range(description.get_nfilters())]
    if len(filters) != len(set(filters)):
        raise RefusedError(
            f"{path}: {name} is compressed twice. It is not read; get the data set again."
        )
    chunk = math.prod(array.chunks or (0,)) * array.dtype.itemsize
    limits.check_chunk(path, name, chunk, array.size * array.dtype.itemsize)


def card(path: pathlib.Path, file: h5py.File) -> Card:
    """The card that jaxshare wrote into a file, {} in files of others. Raises RefusedError."""
    text = str(file.attrs.get(CARD, "{}"))
    expected = file.attrs.get(CHECKSUM)
    if expected is not None and hashlib.sha256(text.encode()).hexdigest() != str(expected):
        raise damaged(path, "its card is not what was written: the checksum differs")
    content = json.loads(text)
    return content if isinstance(content, dict) else {}

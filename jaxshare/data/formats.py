"""Data sets on disk, of whichever format they are."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jaxshare.data import hdf5, options, own, parts, vault
from jaxshare.data.records import Source
from jaxshare.types import RefusedError


@dataclass(frozen=True)
class Format:
    """How a data set is opened."""

    open: Callable[..., Source]  # (path, options by name)
    options: tuple[str, ...]  # their names
    name: str  # for messages


OWN = Format(own.open, options.OF_OWN, "jaxshare's own format")
VAULT = Format(vault.open, options.OF_VAULT, "a vault")
HDF5 = Format(hdf5.open, options.OF_HDF5, "an HDF5 file of PyMARL")
HDF5_PARTS = Format(parts.Stored, options.OF_HDF5, "HDF5 files of PyMARL")


def open_any(path: str | pathlib.Path, **asked: object) -> Source:
    """The data set at `path` in whichever format it is: jaxshare's own, a vault, or PyMARL's HDF5.

    It is recognised by what it is, not by its name; a folder of parts (part_0.h5, part_1.h5, ...)
    is one data set.
    asked: of `DatasetConfig`, by name.
    Raises RefusedError with what was looked for if it is none of them, and for options that have no
    effect on what it is.
    """
    form = format_of(pathlib.Path(path))
    options.check(asked, form.options, form.name)
    return _opened(path, form, asked)


def open_like(path: str | pathlib.Path, asked: Mapping[str, object]) -> Source:
    """As `open_any`, without those options that have no effect on this data set."""
    return _opened(path, format_of(pathlib.Path(path)), asked)


def _opened(path: str | pathlib.Path, form: Format, asked: Mapping[str, object]) -> Source:
    return form.open(path, **{name: x for name, x in asked.items() if name in form.options})


def format_of(path: pathlib.Path) -> Format:
    """The format of a data set, by what it is. Raises RefusedError."""
    # a file, or a folder of ours, perhaps unfinished
    if path.is_file():
        return HDF5
    unfinished = path.with_name(path.name + own.UNFINISHED).exists()
    if (path / own.CARD).is_file() or (unfinished and path.suffix == own.SUFFIX):
        return OWN

    # folders of others
    if (path / vault.METADATA).is_file() or any(path.glob(f"*/{vault.METADATA}")) or unfinished:
        return VAULT
    if parts.numbered(path):
        return HDF5_PARTS
    if not path.exists():
        raise RefusedError(f"{path} does not exist. Check the path.")
    raise RefusedError(
        f"{path} is no data set: it has neither {own.CARD} (jaxshare's own format) nor "
        f"{vault.METADATA} (a vault of OG-MARL), and is no HDF5 file (PyMARL) or folder of "
        "numbered ones (part_0.h5, ...). Check the path."
    )

"""Data sets for offline learning: in memory (`records`), on disk (`own`, `vault`, `hdf5`).

Who acts in them: `composition`, `pools`, `paper_sets`.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxshare.data.records import Source


def open_any(path: str | pathlib.Path, **options: Any) -> Source:
    """The data set at `path` in whichever format it is: jaxshare's own, a vault, or PyMARL's HDF5.

    It is recognised by what it is, not by its name; a folder of parts (part_0.h5, part_1.h5, ...)
    is one data set.
    options: of `DatasetConfig`, by name.
    Raises RefusedError with what was looked for if it is none of them, and for options that have no
    effect on what it is.
    """
    from jaxshare.data.options import check

    opener, known, what = _format(pathlib.Path(path))
    check(options, known, what)
    return opener(path, **{name: value for name, value in options.items() if name in known})


def open_like(path: str | pathlib.Path, options: dict[str, Any]) -> Source:
    """As `open_any`, without those options that have no effect on this data set."""
    opener, known, _ = _format(pathlib.Path(path))
    return opener(path, **{name: value for name, value in options.items() if name in known})


def _format(path: pathlib.Path) -> tuple[Callable[..., Source], tuple[str, ...], str]:
    """What opens a data set, the names of its options, and the name of its format.

    Raises RefusedError.
    """
    from jaxshare.data import hdf5, options, own, parts, vault
    from jaxshare.types import RefusedError

    # by what it holds, whatever it is called
    if path.is_file():
        return hdf5.open, options.OF_HDF5, "an HDF5 file of PyMARL"
    unfinished = path.with_name(path.name + own.UNFINISHED).exists()
    if (path / own.CARD).is_file() or (unfinished and path.suffix == own.SUFFIX):
        return own.open, options.OF_OWN, "jaxshare's own format"
    if (path / vault.METADATA).is_file() or any(path.glob(f"*/{vault.METADATA}")) or unfinished:
        return vault.open, options.OF_VAULT, "a vault"
    if parts.numbered(path):
        return parts.Stored, options.OF_HDF5, "HDF5 files of PyMARL"
    if not path.exists():
        raise RefusedError(f"{path} does not exist. Check the path.")
    raise RefusedError(
        f"{path} is no data set: it has neither {own.CARD} (jaxshare's own format) nor "
        f"{vault.METADATA} (a vault of OG-MARL), and is no HDF5 file (PyMARL) or folder of "
        "numbered ones (part_0.h5, ...). Check the path."
    )

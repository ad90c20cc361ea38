"""Data sets for offline learning: in memory (`records`), on disk (`own`, `vault`, `hdf5`), how they are made up."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxshare.data.records import Source


def open_any(path: str | pathlib.Path, **options: Any) -> Source:
    """The data set at `path` in whichever format it is: jaxshare's own, a vault, or PyMARL's HDF5.

    It is recognised by what it is, not by its name. options: of that format's `open`. Raises RefusedError with what
    was looked for if it is none of them.
    """
    from jaxshare.data import hdf5, own, vault
    from jaxshare.types import RefusedError

    path = pathlib.Path(path)
    if path.is_file():
        return hdf5.open(path, **options)
    unfinished = path.with_name(path.name + own.UNFINISHED).exists()
    if (path / own.CARD).is_file() or (unfinished and path.suffix == own.SUFFIX):
        return own.open(path, **options)
    if (path / vault.METADATA).is_file() or any(path.glob(f"*/{vault.METADATA}")) or unfinished:
        return vault.open(path, **options)
    if not path.exists():
        raise RefusedError(f"{path} does not exist. Check the path.")
    raise RefusedError(
        f"{path} is no data set: it has neither {own.CARD} (jaxshare's own format) nor {vault.METADATA} (a vault of "
        "OG-MARL), and is no HDF5 file (PyMARL). Check the path."
    )

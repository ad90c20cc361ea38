"""Where a data set is to be written and in which format: the settings out, format and dtype."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

from jaxshare.data import hdf5, own, vault
from jaxshare.data.records import Source
from jaxshare.types import RefusedError

FORMATS = {
    "own": "jaxshare's own format",
    "vault": "a vault of OG-MARL",
    "hdf5": "an HDF5 file of PyMARL",
}
ENDINGS = {own.SUFFIX: "own", ".vlt": "vault", ".h5": "hdf5", ".hdf5": "hdf5"}
UNFINISHED = own.UNFINISHED  # behind the name of a folder that is being written


@dataclass(frozen=True)
class Target:
    """The data set to write."""

    path: pathlib.Path
    format: str  # one of FORMATS
    dtype: str | None = None  # of obs and state in the own format; None: as they are read
    overwrite: bool = False


def target_of(out: str, form: str | None, dtype: str | None, overwrite: bool) -> Target:
    """What the settings out, format, dtype and overwrite ask for.

    Raises RefusedError for a name that does not say which format, or says another, for a dtype
    without effect, and for a place that is taken.
    """
    # which format
    path = pathlib.Path(out)
    by_name = _format_of_name(path)
    if path.suffix == ".vlt":
        raise RefusedError(
            f"out={out}: a vault holds data sets by their uid. Name one, as in out={out}/Good."
        )
    if form is None and by_name is None:
        raise RefusedError(
            f"out={out} does not say which format: end it with .jds (jaxshare's own), .vlt/UID (a "
            "vault) or .h5 (PyMARL), or say format=own, format=vault or format=hdf5."
        )
    if form is not None and by_name is not None and form != by_name:
        raise RefusedError(
            f"format={form}: out={out} has the name of {FORMATS[by_name]}. Leave format out, or "
            "choose another name."
        )

    # how it is written
    chosen = form or by_name or ""
    if dtype is not None and chosen != "own":
        raise RefusedError(
            f"dtype={dtype} has no effect on {FORMATS[chosen]}, which holds float32. Leave it out."
        )
    target = Target(path, chosen, dtype, overwrite)
    check_free(target)
    return target


def check_apart(source: Source, target: Target) -> None:
    """Raise RefusedError if the target is the data set that is read, or lies in it."""
    if target.path.resolve().is_relative_to(source.path.resolve()):
        raise RefusedError(
            f"out={target.path} is data={source.path} itself, or lies in it. Choose another place."
        )


def _format_of_name(path: pathlib.Path) -> str | None:
    if path.parent.suffix == ".vlt":
        return "vault"
    return ENDINGS.get(path.suffix)


def check_free(target: Target) -> None:
    """Raise RefusedError for what the writers refuse, before anything is read."""
    # nothing in the way, unless it is to be replaced
    path = target.path
    if target.format == "own" and path.suffix != own.SUFFIX:
        raise RefusedError(
            f"out={path}: the name of a data set ends with {own.SUFFIX}, as in "
            f"{path.name}{own.SUFFIX}."
        )
    unfinished = path.with_name(path.name + UNFINISHED)
    for there in (path, unfinished):
        if there.exists() and not target.overwrite:
            state = "exists" if there == path else "was left unfinished"
            raise RefusedError(
                f"out={there} {state}. Choose another name, remove it, or say overwrite=true."
            )

    # and that only by one of its format
    is_of_format = {
        "own": (path / own.CARD).is_file(),
        "vault": (path / vault.METADATA).is_file(),
        "hdf5": hdf5.is_hdf5(path),
    }
    if path.exists() and not is_of_format[target.format]:
        raise RefusedError(
            f"out={path} is not {FORMATS[target.format]} and is not overwritten. Choose another "
            "name."
        )

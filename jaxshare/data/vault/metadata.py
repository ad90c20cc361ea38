"""metadata.json of a vault: where it lies, which leaves it names, and the checksums in it."""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from jaxshare.data import limits
from jaxshare.data.records import damaged
from jaxshare.types import RefusedError

VERSION = 1.2
METADATA = "metadata.json"
UNFINISHED = ".unfinished"
CHECKSUM = "jaxshare_sha256"  # of metadata.json without it
FILES = "jaxshare_files"  # {file of the store: its SHA-256}
KEYS = {"version", "structure_shape", "structure_dtype", "jaxshare", FILES, CHECKSUM}


def folder_of(path: pathlib.Path) -> pathlib.Path:
    """The folder of one uid: `path` itself, or the only one in it. Raises RefusedError."""
    if not path.exists():
        unfinished = path.with_name(path.name + UNFINISHED)
        state = "is unfinished: its writer was stopped" if unfinished.exists() else "does not exist"
        raise RefusedError(f"{path} {state}. Check the path.")
    if (path / METADATA).is_file():
        return path

    # the folders of uids in a folder <name>.vlt
    children = sorted(path.iterdir()) if path.is_dir() else []
    within = [child.name for child in children if (child / METADATA).is_file()]
    if len(within) == 1:
        return path / within[0]
    if within:
        names = ", ".join(within)
        raise RefusedError(
            f"{path} holds several data sets: {names}. Name one, as in {path / within[0]}."
        )
    raise RefusedError(
        f"{path} is not a vault: it has no {METADATA}. Check the path, or the format."
    )


def read(path: pathlib.Path) -> dict[str, Any]:
    """metadata.json, once its version is one that can be read. Raises RefusedError."""
    metadata = limits.json_object(path, METADATA)

    # of a version that is known
    version = metadata.get("version")
    if not isinstance(version, int | float) or isinstance(version, bool):
        raise RefusedError(
            f"{path} is not a vault: {METADATA} has no version. Check the path, or the format."
        )
    if version // 1 != VERSION // 1:
        raise RefusedError(
            f"{path} is a vault of version {version}; {VERSION // 1:.0f}.x can be read. Convert it "
            "with the flashbax that knows it."
        )

    # with no other keys, if it is ours
    unknown = set(metadata) - KEYS
    if "jaxshare" in metadata and unknown:
        raise damaged(path, f"{METADATA} has {min(unknown)!r}, which no version wrote")
    return metadata


def names(path: pathlib.Path, metadata: Mapping[str, Any]) -> list[str]:
    """Dotted names of the leaves. Raises RefusedError if there is no tree of them."""
    structure = metadata.get("structure_shape")
    if not isinstance(structure, dict):
        raise damaged(path, f"{METADATA} has no structure_shape")
    try:
        return list(_walk(structure, ""))
    except RecursionError as error:
        raise damaged(path, f"{METADATA} is nested too deeply", error) from error


def _walk(tree: Mapping[str, Any], above: str) -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _walk(value, f"{above}{key}.")
        else:
            yield above + key


def tree(flat: Mapping[str, str]) -> dict[str, Any]:
    """Dotted names as nested dictionaries."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *above, leaf = name.split(".")
        branch = nested
        for key in above:
            branch = branch.setdefault(key, {})
        branch[leaf] = value
    return nested


def stated_sizes(metadata: Mapping[str, Any], name: str) -> list[int] | None:
    """What is said of a leaf's sizes behind [1, M]; None if nothing."""
    text = _stated(metadata, "structure_shape", name)
    return None if text is None else [int(size) for size in re.findall(r"\d+", text)][2:]


def stated_dtype(metadata: Mapping[str, Any], name: str) -> str | None:
    """What is said of a leaf's dtype; None if nothing."""
    return _stated(metadata, "structure_dtype", name)


def _stated(metadata: Mapping[str, Any], key: str, name: str) -> str | None:
    stated = metadata.get(key)
    for part in name.split("."):
        stated = stated.get(part) if isinstance(stated, dict) else None
    return stated if isinstance(stated, str) else None


# --------------------------------------------------------------------------------------- checksums


def sums(path: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file of the store, by its path in it. Raises OSError."""
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and file.name != METADATA]
    digests = {}
    for file in files:
        with file.open("rb") as raw:
            digests[str(file.relative_to(path))] = hashlib.file_digest(raw, "sha256").hexdigest()
    return digests


def check_sums(path: pathlib.Path, metadata: Mapping[str, Any]) -> None:
    """Raise RefusedError unless metadata.json and the files are those that were written.

    Nothing is checked of a vault without checksums.
    """
    if CHECKSUM not in metadata:
        return
    if digest(metadata) != metadata[CHECKSUM]:
        raise damaged(path, f"{METADATA} is not what was written: its checksum differs")
    actual = sums(path)
    for name, expected in metadata.get(FILES, {}).items():
        if actual.get(name) != expected:
            raise damaged(path, f"{name} is not what was written: its checksum differs")


def digest(metadata: Mapping[str, Any]) -> str:
    """SHA-256 of metadata.json without its checksum and version; however its JSON is laid out.

    Minor versions do not matter, and any other is refused.
    """
    rest = {name: value for name, value in metadata.items() if name not in (CHECKSUM, "version")}
    plain = json.loads(json.dumps(rest))  # keys that are no text become text in the file
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()

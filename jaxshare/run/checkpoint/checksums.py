"""Checksums of a checkpoint's files, so that no damaged one is loaded in silence.

The list is a text file as `sha256sum` writes and checks it, one line per file, and a last line with
the checksum of the lines before it, which `sha256sum` passes over as a comment.
"""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

NAME = "SHA256SUMS"
THREADS = 4  # hashing releases the interpreter's lock
LARGEST_TEXT = 64 * 2**20  # bytes; ours: of a file of metadata, which is read as a whole


class DamageError(ValueError):
    """Files of a checkpoint are not what was written."""


def write(folder: pathlib.Path) -> None:
    """Write the list of all files below `folder` into it. Raises OSError."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
    with ThreadPoolExecutor(THREADS) as pool:
        digests = list(pool.map(_digest, paths))

    lines = ""
    for path, digest in zip(paths, digests, strict=True):
        lines += f"{digest}  {path.relative_to(folder).as_posix()}\n"
    (folder / NAME).write_text(f"{lines}# {_digest_of(lines)}\n", encoding="utf-8")


def check(folder: pathlib.Path, parts: Collection[str]) -> bool:
    """Whether there is a list; what stands below `parts` of the folder is then what was written.

    Raises DamageError that names the first file which is not, and OSError.
    """
    listed = _read(folder)
    if listed is None:
        return False
    chosen = {name: digest for name, digest in listed.items() if name.split("/")[0] in parts}

    # every part has files
    absent = set(parts) - {name.split("/")[0] for name in chosen}
    if absent:
        raise DamageError(f"{NAME} does not list {min(absent)}")

    # every file is there
    for name in chosen:
        if not (folder / name).is_file():
            raise DamageError(f"{name} is missing")

    # every file is as it was
    paths = [folder / name for name in chosen]
    with ThreadPoolExecutor(THREADS) as pool:
        for name, digest in zip(chosen, pool.map(_digest, paths), strict=True):
            if digest != chosen[name]:
                raise DamageError(f"{name} is not what was written")
    return True


def check_sizes(folder: pathlib.Path) -> None:
    """Raise DamageError for a file of metadata that is too large to be one, before it is read."""
    for path in folder.rglob("*"):
        is_metadata = path.parent.name != "d"  # where numbers are
        if is_metadata and path.is_file() and path.stat().st_size > LARGEST_TEXT:
            raise DamageError(f"{path.relative_to(folder)} is too large for what it should hold")


def _read(folder: pathlib.Path) -> dict[str, str] | None:
    """{path in the folder: checksum}, or None if there is no list."""
    path = folder / NAME
    if not path.exists():
        return None
    if path.stat().st_size > LARGEST_TEXT:
        raise DamageError(f"{NAME} is too large for what it should hold")

    # the last line has the checksum of the others
    text = path.read_bytes().decode("utf-8", errors="replace")
    lines, mark, last = text.rpartition("# ")
    if not mark or last != f"{_digest_of(lines)}\n":
        raise DamageError(f"{NAME} is not what was written")

    listed: dict[str, str] = {}
    for line in lines.splitlines():
        digest, _, name = line.partition("  ")
        listed[name] = digest
    if any(pathlib.PurePosixPath(name).is_absolute() or ".." in name.split("/") for name in listed):
        raise DamageError(f"{NAME} names a file outside of the checkpoint")
    return listed


def _digest(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", errors="replace")).hexdigest()

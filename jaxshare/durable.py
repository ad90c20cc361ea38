"""Files that survive power loss: written whole under a new name, synced, renamed, and the folder synced.

A reader finds the old content or the new one, never half of it. The rename replaces a symbolic link
instead of following it, so that a link in a received folder cannot overwrite a file elsewhere.
"""

from __future__ import annotations

import os
import pathlib

SUFFIX = ".new"  # of a file that is being written, or was when a kill came


def write_text(path: pathlib.Path, text: str) -> None:
    """Replace the file at `path` by `text` in UTF-8. Raises OSError; the old content stays then."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Replace the file at `path` by `content`. Raises OSError; the old content stays then."""
    new = path.with_name(f"{path.name}.{os.getpid()}{SUFFIX}")
    try:
        with open(new, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: pathlib.Path) -> None:
    """Make the names in a folder durable: files that were made, renamed or removed there."""
    _sync(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))


def sync_tree(folder: pathlib.Path) -> None:
    """Make everything below a folder durable, the deepest first, then the folder itself and its own name."""
    for where, _, files in os.walk(folder, topdown=False):
        for name in files:
            _sync(pathlib.Path(where) / name, os.O_RDONLY)
        sync_folder(pathlib.Path(where))
    sync_folder(folder.parent)


def _sync(path: pathlib.Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

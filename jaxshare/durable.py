"""Files that survive power loss: written under a new name, synced, renamed, the folder synced.

A reader finds the old content or the new one, never half of it. The rename replaces a symbolic link
instead of following it, so that a link in a received folder cannot overwrite a file elsewhere.
"""

from __future__ import annotations

import errno
import os
import pathlib
import shutil
from concurrent.futures import ThreadPoolExecutor

SUFFIX = ".new"  # of a file that is being written, or was when a kill came
OLD = ".old"  # of a folder whose place another one takes
THREADS = 8  # a journal commits what several wait for at once
NOT_OFFERED = (errno.EINVAL, errno.ENOTSUP)  # syncing a folder, on some network file systems


def write_text(path: pathlib.Path, text: str) -> None:
    """Replace the file at `path` by `text` in UTF-8. Raises OSError; the old content stays then."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Replace the file at `path` by `content`. Raises OSError; the old content stays then."""
    new = path.with_name(f"{path.name}.{os.getpid()}{SUFFIX}")
    new.unlink(missing_ok=True)  # of a process of this number that a kill or power loss ended
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


def sync_file(path: pathlib.Path) -> None:
    """Make the content of a file durable. Raises OSError."""
    _sync(path, os.O_RDONLY)


def sync_folder(folder: pathlib.Path) -> None:
    """Make the names in a folder durable: files that were made, renamed or removed there."""
    try:
        _sync(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError as error:
        if error.errno not in NOT_OFFERED:
            raise


def sync_tree(folder: pathlib.Path) -> None:
    """Make everything below a folder durable, and the folder itself with its own name."""
    paths = [path for path in folder.rglob("*") if not path.is_symlink()]
    folders = [path for path in paths if path.is_dir()]
    files = [path for path in paths if path.is_file()]
    with ThreadPoolExecutor(THREADS) as pool:
        for jobs in (pool.map(sync_file, files), pool.map(sync_folder, folders)):
            list(jobs)  # waits, and raises what went wrong
    sync_folder(folder)
    sync_folder(folder.parent)


def replace_folder(new: pathlib.Path, path: pathlib.Path) -> None:
    """Give the folder `new`, which is whole, the name `path`; what has this name is removed then.

    A folder cannot be renamed onto one that holds something, so a kill between the two renames
    leaves the earlier one beside its place, with a name that ends with `OLD`.

    Raises OSError; the earlier one stays in its place then.
    """
    old = path.with_name(f"{path.name}.{os.getpid()}{OLD}")
    is_taken = path.is_symlink() or path.exists()
    if is_taken:
        path.rename(old)
    try:
        new.rename(path)
    except OSError:
        if is_taken:
            old.rename(path)
        raise
    sync_folder(path.parent)

    # the earlier one is in nobody's way: that it cannot be removed is no failure
    if is_taken and (old.is_symlink() or old.is_file()):
        old.unlink(missing_ok=True)
    elif is_taken:
        shutil.rmtree(old, ignore_errors=True)


def sync_parents(folder: pathlib.Path) -> None:
    """Make a folder's own name durable, and the names of those that it stands in.

    Folders that may not be read are passed over: they were there before us.
    """
    for parent in folder.absolute().parents:
        try:
            sync_folder(parent)
        except PermissionError:
            return


def _sync(path: pathlib.Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Files that a command writes beside what it shows.

The place is tried first, and the work is shown in any case.
"""

from __future__ import annotations

import os
import pathlib
import uuid
from contextlib import suppress

from jaxshare import durable
from jaxshare.types import RefusedError


def check_writable(path: pathlib.Path, key: str, folder: bool = False) -> None:
    """Raise RefusedError if a file (or a folder) cannot be made at `path`.

    key: the setting that says where, for the message.
    Nothing is left of the trial, so that a command that is refused later leaves no folder.
    """
    probe = path.with_name(f".{uuid.uuid4().hex}")  # nobody's file
    missing = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
        os.close(descriptor)
        probe.unlink()
    except OSError as error:
        raise _unwritable(path, key, error.strerror or str(error)) from error
    finally:
        for parent in missing:
            with suppress(OSError):  # it is not there, or another process uses it already
                parent.rmdir()
    if path.is_dir() and not folder:
        raise _unwritable(path, key, "it is a folder")


def _unwritable(path: pathlib.Path, key: str, why: str) -> RefusedError:
    return RefusedError(f"{key}={path} cannot be written ({why}): name another place with {key}=…")


def write_if_possible(path: pathlib.Path, content: bytes, key: str, chosen: bool) -> str:
    """Write a result that was shown already, and return the sentence about it.

    chosen: whether the person named the place by the setting `key`: RefusedError is raised then if
    it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.write_bytes(path, content)
    except OSError as error:
        why = error.strerror or str(error)
        if chosen:
            raise _unwritable(path, key, why) from error
        return f"note: {path} could not be written ({why}); {key}=… names another place."
    return f"written: {path}"

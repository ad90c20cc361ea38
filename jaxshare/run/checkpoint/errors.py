"""What can be wrong with a checkpoint, told to the person at the command line."""

from __future__ import annotations

import errno
import functools
import logging
import os
import pathlib
import re
import sys

from jaxshare.run.checkpoint.step_folders import StepFolders
from jaxshare.types import RefusedError

# what a broken file or disk says; anything else says that the file could not be reached
OF_DAMAGE = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO)


class DamagedError(RefusedError):
    """A checkpoint's files are not what was written; `reason` says which."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class GoneError(RefusedError):
    """A checkpoint was removed while it was read, by the run that writes them."""


@functools.cache
def silence_orbax() -> None:
    """Keep from the person what orbax logs of a failed save: it reaches us as an exception too.

    A write that fails also ends the event loop which other writes of the same save still call, from
    threads where the error that this makes can only be printed.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    usual = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            usual(unraisable)

    sys.unraisablehook = hook


def to_stderr(text: str) -> None:
    """Tell the person at the command line what is not an error."""
    print(f"warning: {text}", file=sys.stderr)


def unwritten(folders: StepFolders, run_dir: pathlib.Path, error: Exception) -> RefusedError:
    """A checkpoint could not be written because of `error`."""
    code = _errno(error)
    remedy = "Put that right"
    if code in (errno.ENOSPC, errno.EDQUOT):
        remedy = "Free some space (or set checkpoint.replay=false)"
    elif code in (errno.EACCES, errno.EPERM, errno.EROFS):
        remedy = "Make the folder writable"
    then = "start again: there is no earlier checkpoint"
    if folders.steps():
        then = f"go on with run_dir={run_dir} resume=auto: the earlier checkpoints are kept"
    return RefusedError(
        f"run_dir: a checkpoint could not be written to {folders.folder} ({_reason(error)}). "
        f"{remedy}, and {then}."
    )


def unread(folders: StepFolders, step: int, error: Exception) -> RefusedError:
    """A checkpoint could not be read because of `error`: removed, out of reach, or damaged."""
    path = folders.path(step)
    others = ", ".join(str(other) for other in folders.steps() if other != step)

    # removed
    if not path.is_dir():
        return GoneError(
            f"run_dir: checkpoint {path} was removed while it was read, by the run that writes "
            f"checkpoints and keeps the newest. There are now: {others or 'none'}."
        )

    # out of reach
    reason = _reason(error)
    if isinstance(error, MemoryError) or _errno(error) not in OF_DAMAGE:
        return RefusedError(
            f"run_dir: checkpoint {path} cannot be read ({reason}). Nothing was changed."
        )

    # damaged
    remedy = f"Sound ones may be: {others}" if others else "Restore it from a copy"
    message = f"run_dir: checkpoint {path} is damaged ({reason}). Nothing was changed. {remedy}."
    return DamagedError(message, reason)


def none_sound(
    folders: StepFolders, run_dir: pathlib.Path, reasons: dict[int, str]
) -> RefusedError:
    """Every checkpoint is damaged, for `reasons` by iteration, or was removed while it was read."""
    if not reasons:
        return RefusedError(
            f"run_dir={run_dir}: its checkpoints are removed faster than they can be read, by the "
            "run that writes them. Wait for its end, or train with a larger checkpoint.every."
        )
    what = "; ".join(f"{step}: {reason}" for step, reason in reasons.items())
    return RefusedError(
        f"run_dir: no checkpoint in {folders.folder} is sound ({what}). Nothing was changed; "
        "restore one from a copy, or start anew in another run_dir."
    )


def misfit(
    run_dir: pathlib.Path, path: pathlib.Path, difference: str, changes: str
) -> RefusedError:
    """A sound checkpoint of something else.

    difference: the first array that does not fit; changes: those of the environment, in words.
    """
    if changes:
        return RefusedError(
            f"run_dir={run_dir}: the environment {changes}. Use the environment as it was then, or "
            "train anew in another run_dir."
        )
    return RefusedError(
        f"run_dir: checkpoint {path} belongs to another network or environment ({difference}). "
        "Use the configuration and the environment that it was trained with, or train anew in "
        "another run_dir."
    )


def _errno(error: Exception) -> int | None:
    """The number of the operating system's error behind an exception, or None."""
    if isinstance(error, OSError):
        return error.errno
    code = re.search(r"os_error_code='(\d+)'", str(error))  # as tensorstore tells it
    return int(code[1]) if code else None


def _reason(error: Exception) -> str:
    """Why, in one line."""
    code = _errno(error)
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{pathlib.Path(error.filename).name} is missing"
    if code is not None:
        return os.strerror(code)
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

"""Memory that workers share with the trainer."""

from __future__ import annotations

import os
import tempfile
from typing import IO

MEMORY = "/dev/shm"  # where files are in memory; else the temporary directory


def shared_file(size: int) -> IO[bytes]:
    """A file without a name, in memory where there is room.

    Nothing is left of it when all have closed it. Its bytes are reserved at once: a full file
    system would otherwise end a process by SIGBUS when it writes there.
    Raises OSError, with one sentence, if there is room in neither place.
    """
    reasons = []
    for folder in (MEMORY, tempfile.gettempdir()):
        try:
            file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        except OSError as error:
            reasons.append(f"{folder} ({error.strerror or error})")
            continue

        # room for all of it, or the next place
        try:
            _reserve(file, size)
            return file
        except OSError as error:
            file.close()
            reasons.append(f"{folder} ({error.strerror or error})")
    places = " nor in ".join(reasons)
    raise OSError(
        f"there is no room for {size:,} bytes that they share, neither in {places}; free some "
        "space there, set TMPDIR to a folder that has some, or use env.workers=0"
    )


def _reserve(file: IO[bytes], size: int) -> None:
    """Give a file so many bytes. Raises OSError if there is no room for them."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.write(bytes(size))
        file.flush()

"""How long a lock of another machine counts: its holder touches the file again and again.

Ages are told by the clock of the file system, since those of machines differ.
"""

from __future__ import annotations

import os
import pathlib
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress

LOCK = "run.lock"  # the file of a run directory in use
BEAT = 15.0  # ours: seconds between touches
LEASE = 120.0  # ours: seconds of silence after which the holder counts as gone; eight touches


def silence(path: pathlib.Path) -> float:
    """Seconds since the file was touched. Raises OSError, such as FileNotFoundError."""
    with tempfile.TemporaryFile(dir=path.parent) as now:
        return os.fstat(now.fileno()).st_mtime - path.lstat().st_mtime


class Beat:
    """Touches a file as long as it is held."""

    def __init__(self, path: pathlib.Path, is_ours: Callable[[], bool]) -> None:
        self._path = path
        self._is_ours = is_ours
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Touch it no more. Idempotent."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(BEAT):
            with suppress(OSError):  # the file system may be away for a moment
                if not self._is_ours():
                    return
                os.utime(self._path, follow_symlinks=False)

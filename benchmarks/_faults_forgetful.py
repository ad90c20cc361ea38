"""A disk that forgets what was not synced, for lack of one that can be switched off.

It notes every `os.fsync` of the process with what it made durable: the bytes of a file, or the names
in a folder. An image of the folder can be taken at any moment, of two kinds: with the names and bytes
that were synced and no others, or with all names but only synced bytes, as a journal of names leaves
it (files written and renamed without a sync come out empty).
"""

from __future__ import annotations

import os
import pathlib
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest import mock


@dataclass
class ForgetfulDisk:
    """What is durable below `root`: of each inode the bytes, or the names with their inodes."""

    root: pathlib.Path
    contents: dict[int, bytes] = field(default_factory=dict)
    names: dict[int, dict[str, int]] = field(default_factory=dict)
    _held: list[int] = field(default_factory=list)  # descriptors, so that no inode is used again
    _lock: threading.RLock = field(default_factory=threading.RLock)  # threads sync side by side

    @contextmanager
    def watch(self, at_sync: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Note what is synced; `at_sync` is called after each sync and rename."""
        fsync = os.fsync
        replace = os.replace
        rename = os.rename

        def noting(descriptor: int) -> None:
            fsync(descriptor)
            with self._lock:
                self._note(descriptor)
                at_sync()

        def replacing(source: str, target: str) -> None:
            replace(source, target)
            at_sync()

        def renaming(source: str, target: str) -> None:
            rename(source, target)
            at_sync()

        with (
            mock.patch.object(os, "fsync", noting),
            mock.patch.object(os, "replace", replacing),
            mock.patch.object(os, "rename", renaming),
        ):
            yield
        for descriptor in self._held:
            os.close(descriptor)
        self._held.clear()

    def image(self, target: pathlib.Path, all_names: bool) -> pathlib.Path:
        """Write to `target` what is left after power loss now; see the two kinds above."""
        target.mkdir(parents=True)
        self._copy(self.root.stat().st_ino, self.root if all_names else None, target)
        return target

    def _copy(self, inode: int, live: pathlib.Path | None, target: pathlib.Path) -> None:
        names = _listed(live) if live else self.names.get(inode, {})
        for name, child in names.items():
            path = live / name if live else None
            is_folder = path.is_dir() if path else child in self.names
            if is_folder:
                (target / name).mkdir()
                self._copy(child, path, target / name)
            else:
                (target / name).write_bytes(self.contents.get(child, b""))

    def _note(self, descriptor: int) -> None:
        about = os.fstat(descriptor)
        if about.st_ino not in self.names and about.st_ino not in self.contents:
            self._held.append(os.dup(descriptor))
        path = pathlib.Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if stat.S_ISDIR(about.st_mode):
            self.names[about.st_ino] = _listed(path)
        elif about.st_nlink:
            self.contents[about.st_ino] = path.read_bytes()


def _listed(folder: pathlib.Path) -> dict[str, int]:
    with os.scandir(folder) as entries:
        return {entry.name: entry.inode() for entry in entries}

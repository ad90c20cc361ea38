"""Disks that fail: a file system on a loop device, and for lack of it one that forgets what was not synced.

`ForgetfulDisk` notes every `os.fsync` of the process with what it made durable: the bytes of a file,
or the names in a folder. An image of the folder can be taken at any moment, of two kinds: with the
names and bytes that were synced and no others, or with all names but only synced bytes, as a journal
of names leaves it (files written and renamed without a sync come out empty).
"""

from __future__ import annotations

import functools
import itertools
import os
import pathlib
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest import mock

SIZE = 48  # MB of a file system
SYNCS = 300  # of a run at least, and renames


def flip(path: pathlib.Path) -> None:
    """Flip one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def cut(path: pathlib.Path) -> None:
    """Leave the first half."""
    os.truncate(path, path.stat().st_size // 2)


def empty(path: pathlib.Path) -> None:
    """Leave nothing."""
    os.truncate(path, 0)


DAMAGES: dict[str, Callable[[pathlib.Path], None]] = {
    "bit flipped": flip,
    "cut in half": cut,
    "emptied": empty,
    "deleted": os.unlink,
}


# ---------------------------------------------------------------------------------------- loop devices


@functools.cache
def can_mount() -> bool:
    """Whether a file system can be made in a file and mounted here."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        return False
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        try:
            with mounted(folder / "image", folder / "place"):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


@contextmanager
def mounted(image: pathlib.Path, place: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system in the file `image`, made if it is not there, mounted at `place`."""
    place.mkdir(parents=True, exist_ok=True)
    if not image.exists():
        image.touch()
        os.truncate(image, SIZE * 2**20)
        subprocess.run(["mkfs.ext4", "-q", str(image)], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True, capture_output=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True, capture_output=True)


def fill(place: pathlib.Path) -> None:
    """Leave not a byte free."""
    with open(place / "filler", "wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


# ---------------------------------------------------------------------------------------------- images


@dataclass(frozen=True)
class Image:
    """What power loss left: a file system in a file, or a folder."""

    path: pathlib.Path
    kind: str

    @contextmanager
    def opened(self) -> Iterator[pathlib.Path]:
        """The run directory in it."""
        if self.path.is_dir():
            yield self.path / "run"
        else:
            with mounted(self.path, self.path.with_suffix(".place")) as place:
                yield place / "run"


def images_of_mounted(
    folder: pathlib.Path, number: int, start: Callable[[pathlib.Path], subprocess.Popen[str]]
) -> list[Image]:
    """Copies of a mounted file system's blocks at so many moments; `start` begins a run in a directory."""
    images: list[Image] = []
    while len(images) < number:
        name = f"live{len(images)}"
        with mounted(folder / f"{name}.img", folder / name) as place:
            run_dir = place / "run"
            process = start(run_dir)
            early = 0  # images without a checkpoint
            while process.poll() is None and len(images) < number:
                has_checkpoints = (run_dir / "checkpoints").is_dir()
                if has_checkpoints or (run_dir.is_dir() and early < 2):
                    time.sleep(random.uniform(0, 0.4 if has_checkpoints else 2.0))
                    images.append(_copied(process, place, folder / f"{len(images)}.img"))
                    early += not has_checkpoints
                time.sleep(0.001)
            process.kill()
            process.communicate()
    return images


def images_of_forgetful(folder: pathlib.Path, number: int, train: Callable[[pathlib.Path], None]) -> list[Image]:
    """Images of a disk that forgets, at so many moments; `train` makes a run in this process."""
    disk = ForgetfulDisk(folder / "live")
    disk.root.mkdir(parents=True)
    moments = set(random.sample(range(SYNCS), number))
    images: list[Image] = []
    count = itertools.count()

    def lose_power() -> None:
        if next(count) in moments:
            all_names = len(images) % 2 == 0
            path = disk.image(folder / str(len(images)), all_names)
            (path / "run").mkdir(exist_ok=True)
            images.append(Image(path, "names without bytes" if all_names else "nothing unsynced"))

    with disk.watch(lose_power):
        train(disk.root / "run")
    return images


def _copied(process: subprocess.Popen[str], place: pathlib.Path, target: pathlib.Path) -> Image:
    """The blocks below a mounted file system at this moment, without what only memory holds."""
    process.send_signal(signal.SIGSTOP)
    shutil.copyfile(place.with_suffix(".img"), target)
    process.send_signal(signal.SIGCONT)
    return Image(target, "loop device")


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

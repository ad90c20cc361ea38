"""Damaged files, full disks, and what power loss leaves: copies of a file system on a loop device.

Where nothing can be mounted, a disk is played that forgets what was not synced (_faults_forgetful.py).
"""

from __future__ import annotations

import functools
import itertools
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from _faults_forgetful import ForgetfulDisk

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
    had_checkpoint: bool  # whether there were two, of which one at least was on the disk before

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
            early = 0  # images without a checkpoint, which only start anew
            while process.poll() is None and len(images) < number:
                complete = has_checkpoint(run_dir)
                if complete or (run_dir.is_dir() and early < 1):
                    time.sleep(random.uniform(0, 0.4 if complete else 2.0))
                    images.append(_copied(process, place, folder / f"{len(images)}.img"))
                    early += not complete
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
            kind = "names without bytes" if all_names else "nothing unsynced"
            images.append(Image(path, kind, has_checkpoint(disk.root / "run", 2)))

    with disk.watch(lose_power):
        train(disk.root / "run")
    return images


def _copied(process: subprocess.Popen[str], place: pathlib.Path, target: pathlib.Path) -> Image:
    """The blocks below a mounted file system at this moment, without what only memory holds."""
    process.send_signal(signal.SIGSTOP)
    shutil.copyfile(place.with_suffix(".img"), target)
    image = Image(target, "loop device", has_checkpoint(place / "run", 2))
    process.send_signal(signal.SIGCONT)
    return image


def has_checkpoint(run_dir: pathlib.Path, number: int = 1) -> bool:
    """Whether as many complete checkpoints are there."""
    folder = run_dir / "checkpoints"
    return folder.is_dir() and sum(name.isdigit() for name in os.listdir(folder)) >= number

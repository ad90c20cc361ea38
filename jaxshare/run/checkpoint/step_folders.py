"""The folders of a run's checkpoints, by iteration: made under another name, renamed, removed.

A folder whose name is a number is a complete checkpoint, on the disk down to its last byte; while
it is written, and once it is being removed, its name says that it is unfinished. The order is:
write, sync, rename, sync the names, and only then remove older ones, so that power may fail at any
time.
"""

from __future__ import annotations

import contextlib
import glob
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from jaxshare import durable

FOLDER = "checkpoints"  # of a run directory
UNFINISHED = ".orbax-checkpoint-tmp"  # in the name of what is being written, or was at a kill


class StepFolders:
    """Checkpoint folders below one folder; `keep` newest sound ones stay (None: all)."""

    def __init__(self, folder: pathlib.Path, keep: int | None) -> None:
        self.folder = folder
        self.damaged: set[int] = set()  # as readers found them; never counted as one that stays
        self._keep = keep
        self._new_names = True  # whether the folder's name may not be on the disk yet

    def path(self, step: int) -> pathlib.Path:
        """Where the complete checkpoint of an iteration is."""
        return self.folder / str(step)

    def steps(self) -> list[int]:
        """Iterations of all complete checkpoints, the oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if _is_complete(path))

    def sound(self) -> list[int]:
        """The same without those that were found damaged."""
        return [step for step in self.steps() if step not in self.damaged]

    def begin(self, step: int) -> pathlib.Path:
        """An empty folder to write a checkpoint into. Raises OSError."""
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True)
            self._new_names = True
        self.sweep()
        new = self.folder / f"{step}{UNFINISHED}-new"
        new.mkdir()
        return new

    def finish(self, step: int, new: pathlib.Path) -> None:
        """Name a whole checkpoint, durably, and remove what is not to stay. Raises OSError."""
        durable.sync_tree(new)
        if self._new_names:
            durable.sync_parents(self.folder)
            self._new_names = False
        if self.path(step).exists():  # a damaged one, which this one replaces
            self._set_aside(step)
        new.rename(self.path(step))
        durable.sync_folder(self.folder)
        self.damaged.discard(step)
        with contextlib.suppress(OSError):  # the checkpoint is there; the next one tries again
            self._prune(step)

    def sweep(self) -> None:
        """Remove what a kill or an error left unfinished."""
        for path in self.folder.glob(f"*{UNFINISHED}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _prune(self, newest: int) -> None:
        """Remove the oldest beyond `keep`, and damaged ones that are older than a sound one."""
        if self._keep is not None:
            for step in self.sound()[: -self._keep]:
                self._set_aside(step)
            for step in self.steps():
                if step in self.damaged and step < newest:
                    self._set_aside(step)
        self.sweep()

    def _set_aside(self, step: int) -> None:
        """Rename a checkpoint, durably, so that no half removed folder passes for a whole one."""
        self.path(step).rename(self.folder / f"{step}{UNFINISHED}-old")
        durable.sync_folder(self.folder)


@contextlib.contextmanager
def plain_path(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to a folder without characters of patterns, which orbax would search by."""
    whole = folder.absolute()
    if glob.escape(str(whole)) == str(whole):
        yield whole
        return
    with tempfile.TemporaryDirectory(prefix="jaxshare-") as where:
        link = pathlib.Path(where) / "checkpoint"
        link.symlink_to(whole, target_is_directory=True)
        yield link


def _is_complete(path: pathlib.Path) -> bool:
    number = path.name.isascii() and path.name.isdigit() and str(int(path.name)) == path.name
    return number and path.is_dir()

"""Runs in an object store: they live in a folder of this machine, and are copied at checkpoints.

A run appends to its log and replaces files whole, which object stores cannot do. So run_dir=gs://…
is trained in a scratch folder: what is there is fetched before the first chunk, and after every
checkpoint all that has changed is sent. A list of files and sizes is sent last, and says what
counts; what a kill left unfinished is not in it. Every file is there whole or as it was before, so
that a kill between two of them leaves a run that goes on. fsspec knows the stores.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import posixpath
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxshare import durable
from jaxshare.run import reader
from jaxshare.run.callbacks import Callback
from jaxshare.run.checkpoint.step_folders import FOLDER
from jaxshare.run.lease import LOCK
from jaxshare.settings.records import Settings
from jaxshare.types import RefusedError

if TYPE_CHECKING:
    from jaxshare.run.training import Training

MARK = "://"  # in a run_dir that is elsewhere
LIST = "files.json"  # the list of what counts
SCRATCH = "JAXSHARE_SCRATCH"  # environment variable: where such runs live on this machine
KIND = reader.Record({"token": reader.TEXT, "files": reader.Record(others=reader.WHOLE)})
AGAIN = "Choose another run_dir."
NEW = ".jaxshare-new"  # what a file is called until it is whole
# where a file is there once it is whole; elsewhere it grows under its name
OBJECT_STORES = {"memory", "gs", "gcs", "s3", "s3a", "abfs", "az", "adl"}
APPENDED = (".jsonl", ".tfevents")  # in names of files that only grow


def is_remote(run_dir: str | None) -> bool:
    """Whether a run directory is in an object store."""
    return MARK in (run_dir or "")


@contextmanager
def on_this_machine(settings: Settings) -> Iterator[tuple[Settings, list[Callback]]]:
    """The settings with a folder of this machine, and the callback that sends what is there.

    Raises RefusedError for a store that is not known or does not answer, and where several
    processes share a run.
    """
    url = settings.run.run_dir
    if not is_remote(url):
        yield settings, []
        return
    processes = settings.run.parallel.processes
    if processes > 1:
        raise RefusedError(
            f"run_dir={url} cannot be used with parallel.processes={processes}, each of which "
            "would fetch it: use a run_dir on the first one's disk."
        )

    # what is there comes here first, and what changed goes back
    staged = Staged(str(url), scratch(str(url)))
    staged.fetch()
    run = dataclasses.replace(settings.run, run_dir=str(staged.folder))
    try:
        yield dataclasses.replace(settings, run=run), [Sending(staged)]
    finally:
        staged.send_if_claimed()


def scratch(url: str) -> pathlib.Path:
    """Where a run of an object store lives on this machine."""
    base = os.environ.get(SCRATCH) or os.path.join(tempfile.gettempdir(), f"jaxshare-{os.getuid()}")
    name = hashlib.sha256(url.encode()).hexdigest()[:16]
    return pathlib.Path(base, name, posixpath.basename(url.rstrip("/")) or "run")


@dataclass(frozen=True)
class _Known:
    """A file as it was when it was sent or fetched."""

    size: int
    changed: int  # nanoseconds


class Staged:
    """A folder here and its copy in a store."""

    def __init__(self, url: str, folder: pathlib.Path) -> None:
        self.url = url
        self.folder = folder
        self._store, self._root = _store(url)
        self._token = uuid.uuid4().hex
        self._known: dict[str, _Known] = {}
        self._is_claimed = False

    def fetch(self) -> None:
        """Make the folder what the store has, which is nothing for a new run."""
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)
        for name, size in self._list()["files"].items():
            path = _inside(self.folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._store.get_file(f"{self._root}/{name}", str(path))
            self._cut(path, name, size)
            self._known[name] = _state(path)

    def _cut(self, path: pathlib.Path, name: str, size: int) -> None:
        """Make a file what it was when the list was sent, as far as that matters.

        A kill may have left a newer one than the list says. Logs have more lines then; whatever
        else is replaced is as good as before; parts of checkpoints never change.
        """
        grows = any(mark in name for mark in APPENDED)
        is_part = name.startswith(f"{FOLDER}/")
        length = path.stat().st_size
        if grows and length > size:
            os.truncate(path, size)
        elif length != size and (grows or is_part):
            raise RefusedError(
                f"run_dir={self.url}: {name} has {length:,} bytes, and had {size:,}. {AGAIN}"
            )

    def claim(self) -> None:
        """Let whoever trains this run elsewhere know that it is ours now."""
        self._write_list(self._list()["files"])
        self._is_claimed = True

    def send(self) -> None:
        """Send what has changed, then the list, then remove what is in it no more.

        Raises RefusedError if another command has begun with this run meanwhile.
        """
        before = self._list()
        if before["token"] != self._token:
            self._is_claimed = False
            raise RefusedError(
                f"run_dir={self.url} was taken over by another command: this one ends here, and "
                "sends nothing more."
            )

        # contents
        states = {name: _state(self.folder / name) for name in self._names()}
        for name, state in states.items():
            if self._known.get(name) != state:
                self._put(self.folder / name, name)
        self._known = states

        # the list, which makes them count
        sizes = {name: state.size for name, state in states.items()}
        self._write_list(sizes)
        for name in before["files"].keys() - sizes.keys():
            if self._store.exists(f"{self._root}/{name}"):
                self._store.rm_file(f"{self._root}/{name}")

    def send_if_claimed(self) -> None:
        """Send the end of a run, unless it never began."""
        if self._is_claimed:
            self.send()

    def _write_list(self, sizes: dict[str, int]) -> None:
        text = json.dumps({"token": self._token, "files": sizes})
        with tempfile.TemporaryDirectory() as passing:
            path = pathlib.Path(passing, LIST)
            path.write_text(text, encoding="utf-8")
            self._put(path, LIST)

    def _put(self, path: pathlib.Path, name: str) -> None:
        """Send a file, which takes the place of an older one once it is whole."""
        target = f"{self._root}/{name}"
        self._store.makedirs(posixpath.dirname(target), exist_ok=True)
        if OBJECT_STORES.intersection(_protocols(self._store)):
            self._store.put_file(str(path), target)
            return
        self._store.put_file(str(path), target + NEW)
        self._store.mv(target + NEW, target)

    def _names(self) -> list[str]:
        """All files of the run, as the store names them."""
        names = []
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            is_passing = name == LOCK or name.endswith((durable.SUFFIX, durable.OLD))
            if path.is_file() and not path.is_symlink() and not is_passing:
                names.append(name)
        return names

    def _list(self) -> reader.Content:
        """What the store says that it has. Raises RefusedError."""
        place = f"{self._root}/{LIST}"
        try:
            if not self._store.exists(place):
                return {"token": "", "files": {}}
            with tempfile.TemporaryDirectory() as passing:
                path = pathlib.Path(passing, LIST)
                self._store.get_file(place, str(path))
                return reader.read_json(path, KIND, AGAIN)
        except OSError as error:
            raise RefusedError(f"run_dir={self.url} cannot be read: {error}. {AGAIN}") from error


class Sending(Callback):
    """Sends a run after every checkpoint."""

    def __init__(self, staged: Staged) -> None:
        self._staged = staged

    def on_start(self, training: Training) -> None:
        """The run is ours from now on."""
        self._staged.claim()

    def on_checkpoint(self, training: Training, path: pathlib.Path) -> None:
        """All that has changed."""
        self._staged.send()


def _store(url: str) -> tuple[reader.Content, str]:
    """fsspec's file system of a URL, and the path there."""
    try:
        import fsspec
    except ImportError as error:
        raise RefusedError(
            f"run_dir={url} needs the package fsspec: pip install 'jaxshare[remote]'."
        ) from error
    try:
        store, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        known = ", ".join(("gs", "s3", "file", "memory"))
        raise RefusedError(
            f"run_dir={url}: {error}. fsspec knows {known} and others; each store has a package."
        ) from error
    return store, root.rstrip("/")


def _protocols(store: reader.Content) -> tuple[str, ...]:
    """The names that fsspec has for a kind of store."""
    names = store.protocol
    return (names,) if isinstance(names, str) else tuple(names)


def _inside(folder: pathlib.Path, name: str) -> pathlib.Path:
    """A file of the folder. Raises RefusedError for a name that leads elsewhere."""
    path = pathlib.PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise RefusedError(f"{LIST} names {name}, which is no file of a run. {AGAIN}")
    return folder / path


def _state(path: pathlib.Path) -> _Known:
    status = path.stat()
    return _Known(status.st_size, status.st_mtime_ns)

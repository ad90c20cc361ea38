"""A run directory has one process that trains in it: a lock file says which.

The file is made with O_CREAT and O_EXCL before anything else is written, and removed at the end.
One that a dead process of this machine left behind is taken over. Other machines cannot be asked
whether a process still lives there: their locks are refused until nobody has touched them for a
while (`lease.py`). A process whose lock was taken over writes nothing more. Reading a run directory
needs no lock.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import math
import os
import pathlib
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

from jaxshare.run import processes
from jaxshare.run.lease import LEASE, LOCK, Beat, silence
from jaxshare.run.reader import NUMBER, TEXT, WHOLE, Record, fault
from jaxshare.types import RefusedError

PATIENCE = 1.0  # seconds in which a process that has just made the file writes into it
MOST_BYTES = 4096  # ours; one holder takes about 250


@dataclass(frozen=True)
class Holder:
    """The process that a lock belongs to."""

    host: str
    pid: int
    # when the process was started, as the kernel counts it, so that a reused pid is told apart
    started: str
    boot: str  # which start of which machine
    namespace: str  # of process numbers: a container has its own
    since: str  # when the lock was made, for the person
    token: str  # of this lock alone
    lease: float = LEASE  # seconds of silence after which it counts as left behind


TEXTS = ("host", "started", "boot", "namespace", "since", "token")
NO_LEASE = {"lease": math.inf}  # of locks that earlier versions made, which nobody touches
HOLDER = Record({**dict.fromkeys(TEXTS, TEXT), "pid": WHOLE}, optional={"lease": NUMBER})


class Lock:
    """The lock of one run directory, held from the making of this object until `release`.

    Raises RefusedError if another process has it, OSError if the file cannot be made.
    """

    def __init__(self, run_dir: pathlib.Path) -> None:
        self.path = run_dir / LOCK
        self._holder = this_process()
        self._descriptor: int | None = self._take()
        self._beat = Beat(self.path, self._is_ours)

    def check(self) -> None:
        """Raise RefusedError if another process took the directory over, as this one was silent."""
        if self._descriptor is not None and not self._is_ours():
            raise RefusedError(
                f"run_dir={self.path.parent} was taken over by another process, since this one "
                f"gave no sign of life for {LEASE:.0f} seconds: it ends here, and writes nothing "
                "more."
            )

    def _is_ours(self) -> bool:
        """Whether the file is still the one that this process has made."""
        try:
            return _parsed(_content(self.path)) == self._holder
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Remove the file. Idempotent; a file that is not ours any more is left alone."""
        descriptor = self._descriptor
        self._descriptor = None
        if descriptor is None:
            return
        self._beat.end()
        with suppress(OSError, RefusedError):
            if _read(self.path) == self._holder:
                self.path.unlink()
        os.close(descriptor)

    def _take(self) -> int:
        while True:
            try:
                return self._make()
            except FileExistsError:
                self._remove_if_left_behind()

    def _make(self) -> int:
        """A descriptor of the new file. Raises FileExistsError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o644)
        try:
            # held as long as the process lives: a witness for containers, which do not see each
            # other's processes
            _flock(descriptor)
            os.write(descriptor, (json.dumps(asdict(self._holder)) + "\n").encode())
            os.fsync(descriptor)
        except BaseException:
            os.close(descriptor)
            self.path.unlink(missing_ok=True)
            raise
        return descriptor

    def _remove_if_left_behind(self) -> None:
        """Remove the file of a dead process, one taker at a time.

        Raises RefusedError if its process may live.
        """
        with alone_in(self.path.parent):
            try:
                holder = _read(self.path)
                if holder is None:
                    return
                if not _left_behind(self.path, holder):
                    raise RefusedError(_in_use(self.path, holder))
                self.path.unlink()
            except FileNotFoundError:
                return


def this_process() -> Holder:
    """What a lock of this process says."""
    return Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        started=processes.started(os.getpid()),
        boot=processes.boot(),
        namespace=processes.namespace(),
        since=f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S}",
        token=uuid.uuid4().hex,
    )


def _read(path: pathlib.Path) -> Holder | None:
    """Whose lock it is; None if it was removed meanwhile.

    Raises RefusedError if the file is no lock of ours.
    """
    until = time.monotonic() + PATIENCE
    while True:
        try:
            content = _content(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RefusedError(_no_lock(path)) from error
        holder = _parsed(content)
        if holder is not None:
            return holder
        if time.monotonic() > until:
            raise RefusedError(_no_lock(path))
        time.sleep(0.02)


def _content(path: pathlib.Path) -> bytes:
    """The beginning of the file, which is no link and never waited for. Raises OSError."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    try:
        return os.read(descriptor, MOST_BYTES)
    finally:
        os.close(descriptor)


def _parsed(content: bytes) -> Holder | None:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return None if fault(value, HOLDER) else Holder(**{**NO_LEASE, **value})


def _left_behind(path: pathlib.Path, holder: Holder) -> bool:
    """Whether the holder is known to be gone."""
    if holder.boot != processes.boot():
        started_anew = bool(processes.boot()) and holder.host == socket.gethostname()
        return started_anew or silence(path) > holder.lease
    if holder.namespace == processes.namespace():
        return processes.started(holder.pid) != holder.started
    return _nobody_holds(path)


def _nobody_holds(path: pathlib.Path) -> bool:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return _flock(descriptor)
    finally:
        os.close(descriptor)


def _in_use(path: pathlib.Path, holder: Holder) -> str:
    here = holder.boot == processes.boot() and holder.namespace == processes.namespace()
    who = (
        f"run_dir={path.parent} is in use by process {holder.pid} on {holder.host} since "
        f"{holder.since}"
    )
    if here:
        return f"{who}: stop that process, which saves first, or choose another run_dir."
    return (
        f"{who}, which cannot be asked from here: a lock is free {LEASE:.0f} seconds after its "
        f"last sign of life. If that process is gone, wait, or delete {path}, or choose another "
        "run_dir."
    )


def _no_lock(path: pathlib.Path) -> str:
    return (
        f"run_dir={path.parent} has a {path.name} that does not say whose it is: if no process "
        f"trains there, delete {path}, or choose another run_dir."
    )


# ----------------------------------------------------------------------------------------- files


def _flock(descriptor: int) -> bool:
    """Whether the file could be locked, now and without waiting."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody has it, or the file system has no such locks
        return False
    return True


@contextmanager
def alone_in(folder: pathlib.Path) -> Iterator[None]:
    """One taker of a lock at a time, where the file system can do that."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

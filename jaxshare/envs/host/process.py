"""One worker process and the socket to it."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from multiprocessing import connection
from typing import Any

from jaxshare.envs.hosted import errors, messages

HOSTED = pathlib.Path(errors.__file__).parent
WORKER = HOSTED / "worker.py"
# the files beside worker.py as a package, which no other interpreter has
BOOT = """
import importlib, os, sys, types
package = types.ModuleType("hosted")
package.__path__ = [os.path.dirname(sys.argv.pop(1))]
sys.modules["hosted"] = package
importlib.import_module("hosted.worker").main(*map(int, sys.argv[1:4]))
"""
OUTPUT_BYTES = 1500  # of a dead worker's last words
QUIT_SECONDS = 5.0  # ours: what closing environments may take before a worker is killed
MOST_REPLY = 2**28  # bytes of one answer; a picture of 8000 x 8000 points has fewer
MOST_OUTPUT = 10_000_000  # bytes of what a worker has printed are kept


class WorkerError(Exception):
    """A worker failed: its own account of it (`facts`), or what is known of its end."""

    def __init__(self, message: str, facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.facts = facts


class Worker:
    """One worker process and the socket to it.

    python: its interpreter; empty: this one.
    memory: descriptor of the memory that it shares, None of a worker that only describes.
    slots: numbers of the environments that it holds.
    """

    def __init__(self, python: str, memory: int | None, slots: Iterable[int]) -> None:
        self.slots = [int(slot) for slot in slots]
        ours, theirs = socket.socketpair()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        lifeline, self._lifeline = os.pipe()

        # a session of its own: a game which the worker has started can be killed with it
        inherited = [theirs.fileno(), lifeline, *([] if memory is None else [memory])]
        descriptors = [theirs.fileno(), -1 if memory is None else memory, lifeline]
        interpreter = python or sys.executable
        command = [interpreter, "-c", BOOT, str(WORKER), *map(str, descriptors)]
        self.process = subprocess.Popen(
            command,
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        theirs.close()
        os.close(lifeline)
        self._connection = connection.Connection(ours.detach())

    def ask(self, name: str, *args: object) -> None:
        """Send a command. A dead worker is noticed when it is asked for its answer."""
        if os.fstat(self._output.fileno()).st_size > MOST_OUTPUT:
            self._output.truncate(0)
        with suppress(OSError):
            self._connection.send_bytes(messages.encode(name, list(args) or None))

    def answer(self, doing: str, timeout: float, limit: float | None = None) -> object:
        """The answer to the last command.

        timeout: seconds that are left for it, of a `limit`.
        Raises WorkerError.
        """
        limit = timeout if limit is None else limit
        pid = self.process.pid
        try:
            if not self._connection.poll(timeout):
                self.kill()
                raise WorkerError(
                    f"worker process {pid} gave no answer to {doing} within env.timeout={limit:g} "
                    f"seconds and was killed; it held environments {self._range()}. If it is only "
                    f"slow, raise env.timeout.{self._words()}"
                )
            kind, value = messages.decode(self._connection.recv_bytes(MOST_REPLY))
            if kind not in ("ok", "error") or (kind == "error" and not _are_facts(value)):
                raise messages.MessageError(f"a message of kind {kind!r}")
        except (EOFError, OSError) as error:
            raise WorkerError(self._obituary(doing)) from error
        except messages.MessageError as error:
            self.kill()
            raise WorkerError(
                f"worker process {pid} answered {doing} with what is no answer ({error}) and was "
                "killed"
            ) from error

        # what went wrong in an environment
        if kind == "error":
            raise WorkerError(str(value["error"]), value)
        return value

    def call(self, name: str, timeout: float, *args: object) -> object:
        """`ask` and `answer`."""
        self.ask(name, *args)
        return self.answer(name, timeout)

    def kill(self) -> None:
        """End it now, with the games that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def end(self, deadline: float) -> None:
        """Wait for it to close its environments, but not past the deadline; then kill its rest."""
        self._wait(deadline - time.monotonic())
        self._connection.close()
        self._output.close()
        os.close(self._lifeline)

    def _wait(self, seconds: float) -> int:
        """Its exit status, by force if need be. Games that it has not ended are killed."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0.0, seconds))
        self.kill()
        return self.process.wait()

    def _range(self) -> str:
        return f"{self.slots[0]} to {self.slots[-1]}" if self.slots else "none yet"

    def _obituary(self, doing: str) -> str:
        code = self._wait(QUIT_SECONDS)
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        return (
            f"worker process {self.process.pid} died ({how}) during {doing}; it held environments "
            f"{self._range()}.{self._words()}"
        )

    def _words(self) -> str:
        self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, self._output.tell() - OUTPUT_BYTES))
        text = self._output.read().decode(errors="replace").strip()
        return f" Its last output:\n{text}" if text else ""


def _are_facts(value: object) -> bool:
    """Whether this is a worker's account of an error."""
    return (
        isinstance(value, dict)
        and value.keys() == set(errors.FACTS)
        and isinstance(value["traceback"], str)
    )

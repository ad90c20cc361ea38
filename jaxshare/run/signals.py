"""Signals that announce an end.

What is learned is saved first, and when nothing is, the process ends at once.

A Python handler runs only when the main thread is back in Python, and compiling a large network
keeps it away for a minute. So the number of every signal also goes through a pipe to a thread,
which says at once what will happen, and ends the process itself where nothing would be lost.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, overload

NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGQUIT", "SIGXCPU")
ENDS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
# the others stay ignored where they are, as SIGHUP is under nohup
ALWAYS = (signal.SIGTERM, signal.SIGINT)
# ours: what closing environments may take when the process ends in the middle of something
CLOSING_SECONDS = 3.0


class StoppedError(Exception):
    """The run was stopped by a signal, with everything saved that there was to save."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum


class Watch(Sequence[int]):
    """The signals that came, in order, and whether the process may end in the middle of its work.

    at_once: end the process, without returning to the caller, when nothing would be lost; for
    commands, not notebooks.
    """

    def __init__(self, at_once: bool = False) -> None:
        self.unsaved = False  # whether something was learned since the last checkpoint
        self.then = ""  # what to tell about how to go on
        self._caught: list[int] = []
        self._at_once = at_once
        self._closers: list[Callable[[], None]] = []
        self._doing = ""  # what may be left in its middle, or ""
        self._region = threading.Lock()

    def __len__(self) -> int:
        return len(self._caught)

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...

    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        return self._caught[index]

    @contextmanager
    def computing(self, what: str) -> Iterator[None]:
        """While the main thread computes and writes nothing. what: "compiling".

        Raises StoppedError before it begins, if a signal has come and nothing is unsaved.
        """
        if self._caught and not self.unsaved:
            self.stop()
        with self._region:
            self._doing = what
        try:
            yield
        finally:
            with self._region:
                self._doing = ""

    def stop(self) -> None:
        """Raise StoppedError for the first signal that came."""
        raise StoppedError(self._caught[0], self._farewell(self._caught[0]))

    def learned(self) -> None:
        """Note that there is something to save from now on."""
        self.unsaved = True

    def saved(self) -> None:
        """Note that everything is saved."""
        self.unsaved = False

    def on_leaving(self, close: Callable[[], None]) -> None:
        """Call this when the process ends in the middle of its work; in the order of naming."""
        self._closers.append(close)

    def note(self, signum: int, frame: FrameType | None = None) -> None:
        """The handler, in the main thread. A second Ctrl-C interrupts."""
        again = signum == signal.SIGINT and bool(self._caught)
        self._caught.append(signum)
        if again:
            raise KeyboardInterrupt

    def heard(self, signum: int, again: bool) -> None:
        """The same in the watching thread, at once. again: whether it is a second Ctrl-C."""
        name = signal.Signals(signum).name

        # end where nothing would be lost
        with self._region:
            doing = self._doing
            lost = self.unsaved and not again
            if doing and not lost and self._at_once:
                print(self._farewell(signum), file=sys.stderr, flush=True)
                self._leave(signum)
                return

        # say what will happen
        if again:
            print("Ctrl-C again: stopping without saving.", file=sys.stderr, flush=True)
        elif doing == "compiling":
            print(f"{name}: the run ends when compiling is done.", file=sys.stderr, flush=True)
        else:
            what = f"the {doing}" if doing else "what it does now"
            print(
                f"{name}: the run saves and ends when {what} is done (Ctrl-C again: at once, "
                "without saving).",
                file=sys.stderr,
                flush=True,
            )

    def _farewell(self, signum: int) -> str:
        return (
            f"Stopped by {signal.Signals(signum).name}; {self.then or 'nothing was learned yet'}."
        )

    def _leave(self, signum: int) -> None:
        """End the process now, from whatever thread."""
        closing = threading.Thread(target=self._close, daemon=True)
        closing.start()
        closing.join(CLOSING_SECONDS)
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(128 + signum)

    def _close(self) -> None:
        for close in self._closers:
            with suppress(Exception):
                close()


@contextmanager
def watching(at_once: bool = False) -> Iterator[Watch]:
    """Note signals that announce an end instead of dying of them, as long as the context lasts.

    Outside the main thread the caller's signals are left alone.
    """
    watch = Watch(at_once)
    if threading.current_thread() is not threading.main_thread():
        yield watch
        return
    previous: dict[int, Any] = {}
    for signum in ENDS:
        if signum in ALWAYS or signal.getsignal(signum) is not signal.SIG_IGN:
            previous[signum] = signal.signal(signum, watch.note)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    earlier = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    thread = threading.Thread(
        target=_listen, args=(reading, watch, earlier), name="signals", daemon=True
    )
    thread.start()
    try:
        yield watch
    finally:
        signal.set_wakeup_fd(earlier)
        for signum, handler in previous.items():
            signal.signal(signum, handler)
        os.close(writing)  # ends the thread
        thread.join()
        os.close(reading)


def _listen(reading: int, watch: Watch, earlier: int) -> None:
    """Hand on every signal's number that comes through the pipe."""
    interrupted = False
    while True:
        number = os.read(reading, 1)
        if not number:
            return
        if earlier != -1:
            with suppress(OSError):
                os.write(earlier, number)
        signum = number[0]
        if signum in ENDS:
            watch.heard(signum, again=interrupted and signum == signal.SIGINT)
            interrupted = True

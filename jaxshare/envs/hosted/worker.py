"""A worker process: it carries out the commands of one pool, until that is gone.

See `slots` for what a hosted environment is.
"""

import mmap
import os
import signal
import threading
from multiprocessing.connection import Connection

from .errors import FAILURES, NOWHERE, SlotError
from .layout import arrays_in, size_of
from .loading import load
from .messages import decode, encode
from .slots import Slots, close_env


def main(descriptor, memory, lifeline):
    """Serve one pool over an inherited socket until told to quit or until the trainer is gone.

    memory: descriptor of the shared block, or -1 for a worker that only describes.
    lifeline: of a pipe that ends with the trainer.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        # the trainer saves first, then tells us; a handler, since games would inherit that a signal
        # is ignored
        signal.signal(number, lambda *_: None)
    threading.Thread(target=_leave_with, args=(lifeline,), daemon=True).start()

    connection = Connection(descriptor)
    server = Server(memory)
    try:
        while True:
            try:
                name, args = decode(connection.recv_bytes())
            except EOFError:
                return
            if name == "quit":
                return
            connection.send_bytes(_reply(server, name, args or ()))
    finally:
        server.close()


def _reply(server, name, args):
    """The answer to a command, as a message."""
    try:
        return encode("ok", getattr(server, name)(*args))
    except SlotError as error:
        return encode("error", error.facts)
    except FAILURES as error:
        return encode("error", SlotError({**NOWHERE, "doing": name}, error).facts)


def _leave_with(lifeline):
    """A worker never outlives its trainer, not even one that was killed while it was busy."""
    os.read(lifeline, 1)  # returns when the other end is closed
    os.killpg(0, signal.SIGKILL)  # with the games that it has started


class Server:
    """The commands of a worker."""

    def __init__(self, memory):
        self.memory = memory
        self.slots = None

    def describe(self, target, kwargs):
        """What one environment says of itself; it is closed again."""
        env = load(target)(**kwargs)
        try:
            return env.describe()
        finally:
            close_env(env)

    def open(self, target, kwargs, about, numbers, layout):
        """Take over some slots of the shared block."""
        arrays = arrays_in(mmap.mmap(self.memory, size_of(layout)), layout)
        self.slots = Slots(target, kwargs, about, numbers, arrays)

    def reset(self):
        """See `Slots.reset`."""
        self.slots.reset()

    def step(self):
        """See `Slots.step`."""
        self.slots.step()

    def render(self, slot):
        """See `Slots.render`."""
        return self.slots.render(slot)

    def close(self):
        """Close all environments."""
        if self.slots is not None:
            self.slots.close()

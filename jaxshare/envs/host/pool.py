"""The environments of one `Env` on the host, and one call that serves all of them."""

from __future__ import annotations

import atexit
import mmap
import os
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NoReturn, cast

import numpy as np

from jaxshare.envs.host import reports
from jaxshare.envs.host.memory import shared_file
from jaxshare.envs.host.process import QUIT_SECONDS, Worker, WorkerError
from jaxshare.envs.host.settings import Recipe
from jaxshare.envs.hosted import errors
from jaxshare.envs.hosted.layout import Columns, arrays_in, layout_of, size_of
from jaxshare.envs.hosted.slots import Slots
from jaxshare.envs.hosted.worker import Server
from jaxshare.types import Array, HostError

_OPEN: weakref.WeakSet[Pool] = weakref.WeakSet()
_NOTHING: np.ndarray = np.zeros(0, np.int32)

About = Mapping[str, Any]  # what an environment says of itself, see `hosted.slots`


@atexit.register
def _close_all() -> None:
    for pool in list(_OPEN):
        pool.close()


class Pool:
    """The environments of one `Env`. The first reset tells how many there are.

    about: what one of them says of itself, if that is known.
    Raises RefusedError if none can be made.
    """

    def __init__(self, recipe: Recipe, about: About | None = None) -> None:
        self.recipe = recipe
        self.failure: HostError | None = None
        self.interrupted = False  # by a second Ctrl-C, inside a callback
        self.frames: dict[int, np.ndarray] | None = None
        self._lock = threading.Lock()

        # in other processes, or in this one
        self._workers: list[Worker] = []
        self._local: Slots | None = None

        # the block of numbers that they share, and views of it
        self._arrays: dict[str, np.ndarray] = {}
        self._calls = 0
        self._token = _NOTHING
        self._whole = _NOTHING
        self._ends = _NOTHING
        _OPEN.add(self)
        self.about = about or self._describe()

    def twin(self) -> Pool:
        """Another pool of the same environments."""
        return Pool(self.recipe, self.about)

    # ------------------------------------------------------------------------------------- playing

    def reset(self, seed: Array | np.ndarray) -> np.ndarray:
        """Start an episode in every slot.

        seed: [...] uint32.
        Returns rows of the block [..., width] as int32.
        """
        with self._lock, self._noting_interrupts():
            seed = np.asarray(seed)
            self._guard()
            if self._token.size != seed.size:
                self._open(seed.size)
            self._arrays["seed"][:] = seed.reshape(-1)
            self._all("reset")
            return self._answer(np.ones(seed.size, bool), seed.shape)

    def step(self, request: Array | np.ndarray) -> np.ndarray:
        """One step of every slot whose episode goes on.

        request: token and actions, [..., 1 + numbers] int32.
        Returns rows of the block [..., width] as int32.
        """
        with self._lock, self._noting_interrupts():
            request = np.asarray(request)
            rows = request.reshape(-1, request.shape[-1])

            # every slot names the call that changed it last
            self._guard()
            if not np.array_equal(rows[:, 0], self._token):
                order = "calls of the host bridge came out of order; please report this."
                self._fail(HostError(f"{self.recipe.name}: {order}"))

            # whoever has ended keeps what it shows
            running = self._ends.sum(1) == 0
            action = self._arrays["action"]
            action.view(np.int32).reshape(len(rows), -1)[:] = rows[:, 1:]
            self._all("step")
            return self._answer(running, request.shape[:-1])

    @contextmanager
    def _noting_interrupts(self) -> Iterator[None]:
        """JAX makes a text of what a callback raises, and callbacks run in the main thread."""
        try:
            yield
        except KeyboardInterrupt:
            self.interrupted = True
            raise

    def _answer(self, changed: np.ndarray, leading: tuple[int, ...]) -> np.ndarray:
        self._calls += 1
        self._token[changed] = self._calls
        if self.frames is not None and changed[0]:
            self._keep_frame(self.frames)
        # a copy: JAX may go on reading what a callback returned
        return self._whole.reshape(*leading, self._whole.shape[1]).copy()

    def _all(self, name: str) -> None:
        """Carry out one command in every slot. Raises HostError."""
        if self._local is None:
            self._ask_all(name)
            return
        try:
            getattr(self._local, name)()
        except errors.SlotError as error:
            self._fail(reports.failed(self.recipe, error.facts))

    def _ask_all(self, name: str, *args: object, layout: object = None) -> None:
        """One command to all workers, and their answers within one time limit.

        layout: of the shared arrays, which workers are told together with their own slots.
        """
        timeout = self.recipe.config.timeout
        try:
            for worker in self._workers:
                own_slots = [] if layout is None else [worker.slots, layout]
                worker.ask(name, *args, *own_slots)
            deadline = time.monotonic() + timeout
            for worker in self._workers:
                worker.answer(name, max(0.0, deadline - time.monotonic()), timeout)
        except WorkerError as error:
            if error.facts:
                self._fail(reports.failed(self.recipe, error.facts))
            self._fail(HostError(f"{self.recipe.name}: {error}"))

    def _guard(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _fail(self, error: HostError) -> NoReturn:
        self.failure = error
        for worker in self._workers:
            worker.kill()
        self.close()
        raise error

    # ------------------------------------------------------------------------------------ pictures

    def record(self) -> None:
        """Keep pictures of the first slot from now on.

        Environments that draw only if asked are made anew.
        """
        self.frames = {}
        if self.about.get("draws_if_asked"):
            kwargs = {**self.recipe.kwargs, "draw": True}
            self.recipe = replace(self.recipe, kwargs=kwargs)
            self.close()

    def frame(self, token: int) -> np.ndarray:
        """The recorded picture [height, width, 3] uint8 of the first slot at a token."""
        assert self.frames is not None, "call HostControl.record before playing"
        return self.frames[token]

    def _keep_frame(self, frames: dict[int, np.ndarray]) -> None:
        name = self.recipe.name
        try:
            frame = self._draw()
        except Exception as error:
            self._fail(HostError(f"{name}: the environment cannot draw itself: {error}"))
        if frame is None:
            self._fail(HostError(f"{name}: this environment draws no picture of itself."))
        frames[int(self._token[0])] = frame

    def _draw(self) -> np.ndarray | None:
        if self._local:
            return self._local.render(0)
        frame = self._workers[0].call("render", self.recipe.config.timeout, 0)
        return cast("np.ndarray | None", frame)

    # ------------------------------------------------------------------------- beginning and ending

    def _describe(self) -> dict[str, Any]:
        """What one environment says of itself. Raises RefusedError if it cannot be made."""
        recipe = self.recipe
        try:
            if recipe.config.workers == 0:
                return Server(-1).describe(recipe.target, recipe.kwargs)
            probe = Worker(recipe.config.python, None, range(0))
            try:
                arguments = (recipe.target, recipe.kwargs)
                about = probe.call("describe", recipe.config.timeout, *arguments)
                return cast(dict[str, Any], about)
            finally:
                probe.ask("quit")
                probe.end(time.monotonic() + QUIT_SECONDS)
        except WorkerError as error:
            facts = error.facts or {"error": str(error), "missing": None}
            # what the worker says of it, or how it ended
            raise reports.refused(recipe, facts["error"], facts["missing"]) from error
        except Exception as error:
            missing = errors.missing_module(error)
            raise reports.refused(recipe, errors.words_of(error), missing) from error

    def _open(self, slots: int) -> None:
        """Make room for so many slots, in this process or in workers."""
        self.close()
        layout = layout_of(self.about, slots)
        common = (self.recipe.target, self.recipe.kwargs, self.about)
        if self.recipe.config.workers == 0:
            self._arrays = arrays_in(bytearray(size_of(layout)), layout)
            self._local = Slots(*common, range(slots), self._arrays)
        else:
            try:
                self._start_workers(slots, layout)
            except OSError as error:  # no more processes, files or memory
                self._fail(HostError(f"{self.recipe.name}: workers cannot be started: {error}"))
            self._ask_all("open", *common, layout=layout)

        # views of what all share
        self._whole = self._arrays["block"].view(np.int32)
        self._token = self._whole[:, 0]
        self._ends = self._arrays["block"][:, Columns(self.about).ends]

    def _start_workers(self, slots: int, layout: dict[str, Any]) -> None:
        """Start workers with memory that they share. Raises OSError."""
        config = self.recipe.config
        count = config.workers if config.workers > 0 else os.cpu_count() or 1
        size = size_of(layout)
        with shared_file(size) as file:
            for share in np.array_split(np.arange(slots), min(count, slots)):
                self._workers.append(Worker(config.python, file.fileno(), share))
            self._arrays = arrays_in(mmap.mmap(file.fileno(), size), layout)

    def close(self) -> None:
        """End the workers and close the environments. Idempotent."""
        workers = self._workers
        self._workers = []
        for worker in workers:
            worker.ask("quit")
        deadline = time.monotonic() + QUIT_SECONDS
        for worker in workers:
            worker.end(deadline)

        local = self._local
        self._local = None
        if local is not None:
            local.close()

        # the last views of the shared block, which is gone with them
        self._arrays = {}
        self._token = _NOTHING
        self._whole = _NOTHING
        self._ends = _NOTHING

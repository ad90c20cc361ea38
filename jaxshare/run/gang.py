"""Several processes that train the same runs together, each with a part of every run.

A program over the devices of all must be called by all, in the same order. So one process leads:
it has the run directory, the console and every decision, and tells the others the name of each
operation of its fleet before it begins it (`shared_fleet.py`). The others do as it says, and tell
it of signals that came to them. Words go through the key-value store of JAX's own coordinator,
which the leader runs.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax._src import distributed  # JAX shows its store nowhere else

from jaxshare import __version__
from jaxshare.run.signals import StoppedError
from jaxshare.settings.plain import flatten
from jaxshare.settings.run_parts import ParallelConfig
from jaxshare.types import HostError, RefusedError

LEADER = 0
JOIN_SECONDS = 600  # ours: until all processes are there; others may compile or wait in a queue
SILENT_SECONDS = 30  # ours: without a sign of life JAX ends all; a launcher sees an end at once
LISTEN_MS = 500  # how long a wait for an order lasts before Python may look at signals
END = "end"
SIGNAL = "jaxshare/signal"
# what processes of one command may have of their own
THEIR_OWN = ("run.run_dir", "run.logger", "run.progress", "run.parallel.process")


def join(config: ParallelConfig) -> None:
    """Find the other processes, before JAX starts. Raises RefusedError if they are not there.

    JAX knows by itself which process this is where Slurm or Open MPI has started it.
    """
    if jax.distributed.is_initialized():
        return

    # what is not set JAX looks for in the surroundings
    try:
        jax.distributed.initialize(
            config.coordinator or None,
            config.processes,
            config.process if config.process >= 0 else None,
            initialization_timeout=JOIN_SECONDS,
            heartbeat_timeout_seconds=SILENT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        raise RefusedError(
            f"parallel.processes={config.processes} did not come together ({error}): start all of "
            "them, with the same parallel.coordinator=HOST:PORT and parallel.process=0, 1, … "
            "each, or use python -m jaxshare.launch."
        ) from error


class Gang:
    """The processes of a command."""

    def __init__(self, client: Any) -> None:
        self.process = jax.process_index()
        self.processes = jax.process_count()
        self._client = client
        self._orders = 0  # told or heard so far

    @property
    def leads(self) -> bool:
        """Whether this process decides."""
        return self.process == LEADER

    def meet(self, where: str) -> None:
        """Wait until all processes are here; at each place once."""
        self._client.wait_at_barrier(f"jaxshare/{where}", 1000 * JOIN_SECONDS)

    # ------------------------------------------------------------------------------ orders

    def tell(self, name: str, **details: Any) -> None:
        """Let the others begin an operation."""
        order = json.dumps({"name": name, **details})
        self._client.key_value_set(f"jaxshare/order/{self._orders}", order)
        self._orders += 1

    def hear(self) -> dict[str, Any]:
        """The next operation. Raises HostError when the leader is gone."""
        key = f"jaxshare/order/{self._orders}"
        self._orders += 1
        try:
            return json.loads(self._awaited(key))
        except jax.errors.JaxRuntimeError as error:
            raise HostError(
                f"process {self.process} has lost process {LEADER}; the run goes on from its last "
                "checkpoint with resume=auto."
            ) from error

    def _awaited(self, key: str, seconds: float = float("inf")) -> str:
        until = time.monotonic() + seconds
        while True:
            try:
                return self._client.blocking_key_value_get(key, LISTEN_MS)
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error) or time.monotonic() > until:
                    raise

    # ----------------------------------------------------------------------------- signals

    def forward(self, signum: int) -> None:
        """Tell the leader of a signal that came to this process."""
        self._client.key_value_set(SIGNAL, str(int(signum)), allow_overwrite=True)

    def forwarded(self) -> int:
        """The last signal that came to another process, or 0."""
        try:
            return int(self._client.key_value_try_get(SIGNAL))
        except jax.errors.JaxRuntimeError:
            return 0

    # --------------------------------------------------------------------------- agreement

    def agree(self, settings: dict[str, Any]) -> None:
        """Whether all processes have the same settings and versions.

        settings: as nested dicts. Raises RefusedError in all of them that names a difference.
        """
        # what must be the same in all
        ours = {**flatten(settings), "jax": jax.__version__, "jaxshare": __version__}
        ours = {key: value for key, value in ours.items() if not key.startswith(THEIR_OWN)}
        if self.leads:
            # everybody answers
            self.tell("settings", settings=ours)
            answers = [self._answer(process) for process in range(1, self.processes)]
            refusals = [answer for answer in answers if answer]
            if refusals:
                raise RefusedError(refusals[0])
            return

        # the leader is told before this process ends
        theirs = self.hear()["settings"]
        ours = json.loads(json.dumps(ours))
        names = [key for key in ours | theirs if ours.get(key) != theirs.get(key)]
        problem = ""
        if names:
            name = names[0]
            problem = (
                f"process {self.process} has {name.removeprefix('run.')}={ours.get(name)}, and "
                f"process {LEADER} {theirs.get(name)}: all processes of a run need the same "
                "settings and versions."
            )
        self._client.key_value_set(f"jaxshare/answer/{self.process}", problem)
        if problem:
            raise RefusedError(problem)

    def _answer(self, process: int) -> str:
        try:
            return self._awaited(f"jaxshare/answer/{process}", JOIN_SECONDS)
        except jax.errors.JaxRuntimeError as error:
            raise RefusedError(
                f"process {process} of parallel.processes={self.processes} did not answer: look "
                "at what it has printed."
            ) from error


@functools.cache
def current() -> Gang | None:
    """The processes of this command, or None if it is the only one."""
    if jax.process_count() == 1:
        return None
    return Gang(distributed.global_state.client)


@contextmanager
def told_of_the_end(gang: Gang | None) -> Iterator[None]:
    """Let the others end when the leader does, whatever ends it."""
    if gang is None:
        yield
        return
    try:
        yield
    except StoppedError as stopped:
        gang.tell(END, signum=int(stopped.signum), why=str(stopped))
        raise
    except BaseException as error:
        gang.tell(END, refusal=str(error) or type(error).__name__)
        raise
    gang.tell(END)

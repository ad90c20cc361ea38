"""The fleet of a run that several processes hold: what the leader does, all others do with it."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all

from jaxshare.run.fleet import Fleet
from jaxshare.run.gang import END, Gang, current
from jaxshare.run.signals import ALWAYS, ENDS, StoppedError
from jaxshare.training.counting import start_clock
from jaxshare.trees import Params
from jaxshare.types import Clock, RefusedError, TrainState


class SharedFleet(Fleet):
    """A fleet whose operations are told to the other processes before they begin."""

    _inside = False  # of an operation that was told already

    @contextmanager
    def _together(self, name: str, **details: Any) -> Iterator[None]:
        gang = current()
        assert gang is not None
        if not gang.leads or self._inside:
            yield
            return
        gang.tell(name, **details)
        self._inside = True
        try:
            yield
        finally:
            self._inside = False

    def compile(self) -> None:
        """See `Fleet`. Nobody begins to compute before all have compiled: the others would wait."""
        with self._together("compile"):
            super().compile()
            gang = current()
            assert gang is not None
            gang.meet("compiled")

    def init(self) -> None:
        """See `Fleet`."""
        with self._together("init"):
            super().init()

    def prefill(self, interrupted: Sequence[int] = ()) -> None:
        """See `Fleet`."""
        with self._together("prefill"):
            super().prefill(interrupted)

    def outside(self) -> str:
        """See `Fleet`."""
        with self._together("outside"):
            return super().outside()

    def chunk(self, interrupted: Sequence[int] = ()) -> dict[str, Any] | None:
        """See `Fleet`. A signal that came to another process comes to the leader afterwards."""
        with self._together("chunk"):
            metrics = super().chunk(interrupted)
        gang = current()
        if gang and gang.leads and not interrupted and gang.forwarded():
            signal.raise_signal(gang.forwarded())
        return metrics

    def evaluate(self) -> dict[str, np.ndarray]:
        """See `Fleet`."""
        with self._together("evaluate"):
            return super().evaluate()

    def unstacked(self, filled: int | None) -> list[TrainState]:
        """See `Fleet`."""
        with self._together("unstacked", filled=filled):
            return super().unstacked(filled)

    # --------------------------------------------------------------------- what the leader has

    def place(self, clock: Clock, states: list[TrainState]) -> None:
        """See `Fleet`. Whatever other processes give, they get what the leader has."""
        gang = current()
        if gang and gang.leads:
            self.compile()  # all, so that they begin to compute at the same time
        with self._together("place"):
            clock, states = broadcast_one_to_all((clock, states))
            super().place(clock, states)

    def replace_params(self, params: list[Params], target_params: list[Params]) -> None:
        """See `Fleet`. Whatever other processes give, they get what the leader has."""
        with self._together("replace_params"):
            params, target_params = broadcast_one_to_all((params, target_params))
            super().replace_params(params, target_params)


def follow(fleet: SharedFleet, gang: Gang) -> None:
    """Do as the leader says until it ends.

    Raises StoppedError if a signal ended it, RefusedError if anything else did.
    """
    with _forwarding(gang):
        order = gang.hear()
        while order["name"] != END:
            _do(fleet, order)
            order = gang.hear()
    if "signum" in order:
        raise StoppedError(order["signum"], f"process {gang.process}: {order['why']}")
    if "refusal" in order:
        raise RefusedError(f"process {gang.process} ends with the first: {order['refusal']}")


def _do(fleet: SharedFleet, order: dict[str, Any]) -> None:
    """One operation of the leader's fleet."""
    name = order.pop("name")
    if name not in ("place", "replace_params"):
        getattr(fleet, name)(**order)
        return

    # shapes to be filled with what the leader has
    shapes = jax.eval_shape(fleet.program.init, jnp.int32(0))
    blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    states = [blank] * len(fleet.labels)
    if name == "place":
        fleet.place(start_clock(), states)
    else:
        params = [state.learner.params for state in states]
        fleet.replace_params(params, [state.learner.target_params for state in states])


@contextmanager
def _forwarding(gang: Gang) -> Iterator[None]:
    """Tell the leader of signals that announce an end; it ends all processes."""

    def forward(signum: int, frame: FrameType | None) -> None:
        gang.forward(signum)

    previous: dict[int, Any] = {}
    for signum in ENDS:
        if signum in ALWAYS or signal.getsignal(signum) is not signal.SIG_IGN:
            previous[signum] = signal.signal(signum, forward)
    try:
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)

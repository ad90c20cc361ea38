"""The fleet of a run that several processes hold: what the leader does, all others do with it."""

from __future__ import annotations

import pathlib
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all

from jaxshare.run.checkpoint import contents, shared_rings
from jaxshare.run.fleet import Fleet
from jaxshare.run.gang import END, Gang, current
from jaxshare.run.layout import Laid
from jaxshare.run.signals import ALWAYS, ENDS, StoppedError
from jaxshare.training.counting import start_clock
from jaxshare.trees import Params
from jaxshare.types import Array, Clock, Episode, RefusedError, TrainState


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
        """See `Fleet`. Of the replays there are shapes only: they stay on their devices."""
        with self._together("unstacked", filled=filled):
            states = self.states
            self.states = [state.replace(replay=None) for state in states]
            runs = super().unstacked(None)
            self.states = states
        shapes = self.shapes()
        if filled is None or shapes.replay is None:
            return runs
        slots = filled // shapes.replay.mask.shape[0]
        return [run.replace(replay=contents.filled_shapes(shapes, slots)) for run in runs]

    def shapes(self) -> TrainState:
        """Of one run."""
        return jax.eval_shape(self.program.init, jnp.int32(0))

    # ---------------------------------------------------------------------------- the replays

    def write_rings(self, folder: str, slots: int) -> None:
        """Write the replays, `slots` of each ring, into a folder; each process writes its part."""
        with self._together("write_rings", folder=folder, slots=slots):
            rings = []
            for state in self.states:
                rings.extend(filled_rings(state.replay, slots, self.layout.of_rings))
            shared_rings.write(pathlib.Path(folder), rings[: len(self.labels)])

    def read_rings(self, folder: str, slots: int) -> None:
        """Fill the replays with what `write_rings` has written; each process reads its part."""
        with self._together("read_rings", folder=folder, slots=slots):
            # what is there makes room first
            self.states = [state.replace(replay=None) for state in self.states]
            shapes = self.shapes()
            wanted = [contents.filled_shapes(shapes, slots)] * len(self.labels)
            rings = shared_rings.read(pathlib.Path(folder), wanted, self.layout.of_rings)
            capacity = contents.num_slots(shapes)
            for wave, runs in enumerate(self.layout.waves()):
                ours = [rings[i] for i in runs]
                whole = whole_rings(ours, capacity, self.layout.of_state.replay)
                self.states[wave] = self.states[wave].replace(replay=whole)

    def _empty_rings(self) -> None:
        shapes = self.shapes().replay
        if shapes is None:
            return
        runs = self.layout.wave_size
        laid = self.layout.of_state.replay

        def empty() -> Episode:
            return jax.tree.map(lambda x: jnp.zeros((runs, *x.shape), x.dtype), shapes)

        for wave, state in enumerate(self.states):
            self.states[wave] = state.replace(replay=jax.jit(empty, out_shardings=laid)())

    # --------------------------------------------------------------------- what the leader has

    def place(self, clock: Clock, states: list[TrainState]) -> None:
        """See `Fleet`. Whatever other processes give, they get what the leader has.

        The replays are left empty; see `read_rings`.
        """
        gang = current()
        if gang and gang.leads:
            self.compile()  # all, so that they begin to compute at the same time
        with self._together("place"):
            without = [state.replace(replay=None) for state in states]
            clock, without = broadcast_one_to_all((clock, without))
            super().place(clock, without)
            self._empty_rings()

    def replace_params(self, params: list[Params], target_params: list[Params]) -> None:
        """See `Fleet`. Whatever other processes give, they get what the leader has."""
        with self._together("replace_params"):
            params, target_params = broadcast_one_to_all((params, target_params))
            super().replace_params(params, target_params)


@partial(jax.jit, static_argnames=("slots", "laid"))
def filled_rings(replay: Episode, slots: int, laid: Laid) -> list[Episode]:
    """The first `slots` of each ring, a tree [K, slots, T(+1), ...] for each run.

    replay: fields [R, K, C / K, T(+1), ...].
    """
    runs = replay.mask.shape[0]
    rings = [jax.tree.map(lambda x, i=i: x[i, :, :slots], replay) for i in range(runs)]
    return jax.lax.with_sharding_constraint(rings, laid)


@partial(jax.jit, static_argnames=("capacity", "laid"))
def whole_rings(rings: list[Episode], capacity: int, laid: Laid) -> Episode:
    """What `filled_rings` has taken out, with empty slots up to `capacity` [R, K, C / K, ...]."""

    def whole(*filled: Array) -> Array:
        stacked = jnp.stack(filled)
        missing = capacity - stacked.shape[2]
        rest = [(0, 0)] * (stacked.ndim - 3)
        return jnp.pad(stacked, [(0, 0), (0, 0), (0, missing), *rest])

    return jax.lax.with_sharding_constraint(jax.tree.map(whole, *rings), laid)


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
    shapes = fleet.shapes().replace(replay=None)
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

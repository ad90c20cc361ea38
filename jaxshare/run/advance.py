"""How all runs advance by a chunk.

In a JAX environment, with environments on the host, or from a data set.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxshare.run.watch import host_errors
from jaxshare.training.program import Program
from jaxshare.trees import Data, Tree
from jaxshare.types import Clock, HostError, HParams, TrainState

if TYPE_CHECKING:
    from jaxshare.run.fleet import Fleet

CHUNK = "chunk"  # programs, as they are kept
PREFILL = "prefill"
MOST_UPDATES = 200  # ours: about ten seconds of QMIX on two CPU cores
MOST_ITERATIONS = 2000  # ours: on policy; one of A2C with small networks takes a few milliseconds


def chunk_iterations(program: Program) -> int:
    """Iterations between two looks at the runs, which is how long a signal waits.

    Never more progress of one run than eval.every or checkpoint.every, nor MOST_UPDATES updates
    from a replay or a data set, nor MOST_ITERATIONS.
    """
    run = program.run
    steps = min(run.eval.every, run.checkpoint.every or run.eval.every)
    stored = program.algorithm.experience in ("replay", "dataset")
    most = MOST_UPDATES if stored else MOST_ITERATIONS
    updates = max(1, int(most / program.updates_per_iteration))
    return max(1, min(steps // program.steps_per_iteration, updates))


def advance_of(fleet: Fleet) -> Advance:
    """The way that suits where the runs' experience comes from."""
    if fleet.program.offline:
        return Offline(fleet)
    if fleet.program.env.spec.pure:
        return Pure(fleet)
    return Hosted(fleet)


class Advance(ABC):
    """Moves the states of a fleet on."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._data: Data = None  # what every device has of a data set

    @abstractmethod
    def prefill(self, interrupted: Sequence[int]) -> None:
        """See `Fleet.prefill`."""

    @abstractmethod
    def chunk(self, interrupted: Sequence[int]) -> list[Tree]:
        """The metrics of each wave, [] if not one iteration was completed. See `Fleet.chunk`."""

    def release(self) -> None:
        """Let go of what takes memory."""
        self._data = None


class Pure(Advance):
    """In a JAX environment: a chunk is one program, which may overwrite the states."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet)
        program = fleet.program
        lift = fleet.layout.lift
        state = fleet.layout.of_state
        self._prefill = lift(program.prefill, donate=True, out=state)
        self._chunk = lift(
            partial(program.chunk, chunk_iterations(program)),
            donate=True,
            out=(state, fleet.layout.sharding),
        )

    def compile(self, shapes: Callable[[], tuple[Tree, ...]]) -> None:
        """See `Fleet.compile`. shapes: of a wave's state, its hyper-parameters, the clock."""
        compiled = self._fleet.layout.compiled
        self._chunk = compiled(CHUNK, self._chunk, shapes)
        if self._fleet.program.prefill_iterations:
            self._prefill = compiled(PREFILL, self._prefill, shapes)

    def take_kept(self) -> None:
        """See `Fleet.take_kept`."""
        self._chunk = self._fleet.layout.kept_program(CHUNK) or self._chunk

    def prefill(self, interrupted: Sequence[int]) -> None:
        """All at once: after a signal it is short enough to wait for."""
        self._fleet.states = self._waves(self._prefill)

    def chunk(self, interrupted: Sequence[int]) -> list[Any]:
        """All at once: after a signal one chunk is short enough to wait for."""
        results = self._waves(self._chunk)
        self._fleet.states = [state for state, _ in results]
        return [metrics for _, metrics in results]

    def _waves(self, advance: Callable[..., Any]) -> list[Any]:
        fleet = self._fleet
        results = []
        clock = fleet.clock
        for wave, hparams in enumerate(fleet.hparams):
            state = fleet.take_state(wave)
            result, clock = advance(state, hparams, fleet.clock)
            results.append(result)
        fleet.clock = clock
        return results


class Offline(Advance):
    """With a data set, of which every device has one copy."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet)
        program = fleet.program
        chunk = partial(program.chunk_offline, chunk_iterations(program))
        self._data = fleet.layout.replicate(fleet.data)
        self._chunk = fleet.layout.lift(chunk, donate=True)

    def prefill(self, interrupted: Sequence[int]) -> None:
        """The data set is whole."""

    def chunk(self, interrupted: Sequence[int]) -> list[Any]:
        """All at once: after a signal one chunk is short enough to wait for."""
        fleet = self._fleet
        metrics = []
        clock = fleet.clock
        shared = (fleet.clock, self._data)  # by all waves
        for wave, hparams in enumerate(fleet.hparams):
            state = fleet.take_state(wave)
            (fleet.states[wave], chunk), clock = self._chunk(state, hparams, shared)
            metrics.append(chunk)
        fleet.clock = clock
        return metrics


class Hosted(Advance):
    """With environments on the host: one program plays episodes, another learns from them.

    Playing changes nothing, so that an environment that fails leaves the states as they were.
    There is one wave.
    """

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet)
        program = fleet.program
        lift = fleet.layout.lift

        # of one run; the clock stands last, as `Layout.lift` wants it
        def explore(state: TrainState, hparams: HParams, clock: Clock) -> tuple[Tree, Clock]:
            return program.explore(state, hparams, clock), clock

        def fill(
            state: TrainState, hparams: HParams, played: Tree, clock: Clock
        ) -> tuple[TrainState, Clock]:
            return program.fill(state, played, hparams, clock)

        def learn(
            state: TrainState, hparams: HParams, played: Tree, clock: Clock
        ) -> tuple[tuple[TrainState, Tree], Clock]:
            (state, clock), metrics = program.iteration(hparams, (state, clock), played)
            return (state, metrics), clock

        self._length = chunk_iterations(program)
        self._explore = lift(explore, donate=False)
        self._fill = lift(fill, donate=True, batched=3)
        self._learn = lift(learn, donate=True, batched=3)

    def prefill(self, interrupted: Sequence[int]) -> None:
        """Episode by episode, until a signal."""
        fleet = self._fleet
        for _ in range(fleet.program.prefill_iterations):
            if interrupted:
                return
            played = self._play()
            state = fleet.states[0]
            fleet.states[0], fleet.clock = self._fill(state, fleet.hparams[0], played, fleet.clock)

    def chunk(self, interrupted: Sequence[int]) -> list[Any]:
        """Iteration by iteration, until a signal or a failure, which is then in `Fleet.failure`."""
        fleet = self._fleet
        metrics: list[Tree] = []

        # after a chunk that was cut short the next one ends where that one would have
        iterations = int(fleet.clock.iteration - fleet.program.prefill_iterations)
        left = self._length - iterations % self._length

        # play, then learn from it
        while len(metrics) < left and not interrupted:
            try:
                played = self._play()
            except HostError as error:
                fleet.failure = error
                break
            state = fleet.states[0]
            hparams = fleet.hparams[0]
            (fleet.states[0], iteration), fleet.clock = self._learn(
                state, hparams, played, fleet.clock
            )
            fleet.learned()
            metrics.append(iteration)
        return [_stacked(metrics)] if metrics else []

    def _play(self) -> Tree:
        fleet = self._fleet
        with host_errors(fleet.program.env):
            played, _ = self._explore(fleet.states[0], fleet.hparams[0], fleet.clock)
            return jax.block_until_ready(played)


def _stacked(iterations: list[Tree]) -> Tree:
    """Metrics of iterations, each [R, ...], as [R, iterations, ...]."""
    return jax.tree.map(lambda *each: np.stack(each, axis=1), *iterations)

"""All runs of a command, seeds by sweep points, on their devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.run import parallel
from jaxshare.run.advance import Pure, advance_of
from jaxshare.run.layout import Layout, as_numpy, local_rows
from jaxshare.run.watch import host_errors
from jaxshare.settings.records import Settings
from jaxshare.settings.run_parts import POLICIES
from jaxshare.training import replay, shards
from jaxshare.training.counting import start_clock
from jaxshare.training.program import Program
from jaxshare.trees import Data, Params, Tree
from jaxshare.types import Clock, HostError, RefusedError, TrainState


def _nothing() -> None:
    """Where nobody wants to be told."""


@dataclass(frozen=True)
class Counters:
    """How far every run is. All [R] integers."""

    env_steps: np.ndarray
    updates: np.ndarray
    progress: np.ndarray  # what `Program.total` is counted in: environment steps, or updates


@dataclass
class Fleet:
    """All runs of a command on their devices."""

    program: Program
    layout: Layout
    settings: Settings
    states: list[Tree] = field(default_factory=list)  # of each wave
    clock: Clock = field(default_factory=start_clock)
    failure: HostError | None = None  # of an environment on the host; the states are sound
    data: Data = None  # of a learner from a data set
    learned: Callable[[], None] = _nothing  # called when the states are ahead of the checkpoint

    def __post_init__(self) -> None:
        self.labels = self.settings.labels()  # of each run: seed, and its sweep point
        self.hparams = [self.layout.place(values) for values in self._hparams()]  # of each wave

        # the clock as a chunk returns it, or the second chunk would be compiled anew
        self.clock = self.layout.replicate(self.clock)

        self.advance = advance_of(self)
        of_state = self.layout.of_state
        self._init = self.layout.lift(self._new_learner, donate=False, batched=1, out=of_state)
        self._evaluate = {}
        for prefix, explore in POLICIES[self.settings.run.eval.policy].items():
            evaluate = partial(self.program.evaluate, explore=explore)
            self._evaluate[prefix] = self.layout.lift(evaluate, donate=False)

    def _new_learner(self, seed: jax.Array, clock: Clock) -> tuple[TrainState, Clock]:
        return self.program.init(seed), clock

    def compile(self) -> None:
        """Compile what new runs will call before their replays take memory; free what that took.

        ours: otherwise the peak is that of the compiler and the replays together
        (benchmarks/memory.py). Programs that call an environment on the host, or learn from a data
        set, are compiled when they are called.
        """
        if not isinstance(self.advance, Pure):
            return
        seeds = self._seeds()[0]
        init = self._init

        # asked for if something must be compiled: they cost a trace
        @cache
        def shapes() -> tuple[Tree, ...]:
            # as `init` returns it and a chunk leaves it
            state = self.layout.place_state(jax.eval_shape(init, seeds, self.clock)[0])
            return state, self.hparams[0], self.clock

        self.advance.compile(shapes)
        self._init = self.layout.compiled("init", init, lambda: (seeds, self.clock))
        for prefix, evaluate in self._evaluate.items():
            name = _evaluation(prefix)
            self._evaluate[prefix] = self.layout.compiled(name, evaluate, shapes)
        parallel.return_free_memory()

    def take_kept(self) -> None:
        """What an earlier start has kept of these programs, for runs that go on."""
        if not isinstance(self.advance, Pure) or self.layout.kept is None:
            return
        self.advance.take_kept()
        for prefix, evaluate in self._evaluate.items():
            self._evaluate[prefix] = self.layout.kept_program(_evaluation(prefix)) or evaluate

    # ---------------------------------------------------------------------------------- beginning

    def init(self) -> None:
        """New learners."""
        self.states = [self._init(seed, self.clock)[0] for seed in self._seeds()]

    def start(self, interrupted: Sequence[int] = ()) -> None:
        """New learners, and replays that are full enough. See `prefill`."""
        self.init()
        self.prefill(interrupted)

    def _seeds(self) -> list[jax.Array]:
        """Of each wave, [wave_size]."""
        seeds = []
        for wave in self.layout.waves():
            numbers = jnp.array([self.labels[i]["seed"] for i in wave], jnp.int32)
            seeds.append(self.layout.place(numbers))
        return seeds

    def place(self, clock: Clock, states: list[TrainState]) -> None:
        """Go on from restored states, one of each run."""
        # the clock as a chunk returns it, or the second chunk would be compiled anew
        self.clock = self.layout.replicate(clock)
        self.states = []
        for wave in self.layout.waves():
            state = _stacked([states[i] for i in wave])
            self.states.append(self.layout.place_state(state))

    def replace_params(self, params: list[Params], target_params: list[Params]) -> None:
        """Give new learners other parameters, one tree of each run."""
        for wave, runs in enumerate(self.layout.waves()):
            online = self.layout.place(_stacked([params[i] for i in runs]))
            target = self.layout.place(_stacked([target_params[i] for i in runs]))
            learner = self.states[wave].learner.replace(params=online, target_params=target)
            self.states[wave] = self.states[wave].replace(learner=learner)

    def prefill(self, interrupted: Sequence[int] = ()) -> None:
        """Fill the replays as far as the first update needs; on the host only until a signal.

        Raises HostError; RefusedError for observations or states that replay.dtype cannot keep.
        """
        if self.program.prefill_iterations:
            self.advance.prefill(interrupted)
            outside = self.outside()
            if outside:
                raise RefusedError(outside)

    def outside(self) -> str:
        """What to tell if a replay holds numbers beyond the range of replay.dtype, else ""."""
        dtype = self.program.run.replay.dtype
        if self.program.algorithm.experience != "replay" or dtype not in replay.RANGES:
            return ""
        any_outside = jax.jit(jax.vmap(replay.any_outside))
        if not any(any_outside(state.replay).any() for state in self.states):
            return ""
        return (
            f"replay.dtype={dtype} keeps numbers within {replay.RANGES[dtype]} only; observations "
            f"or states of env={self.program.env.spec.name} are not. Use replay.dtype=bfloat16, "
            "which takes as much memory as float16 and has the range of float32, or float32."
        )

    # ---------------------------------------------------------------------------------- going on

    def take_state(self, wave: int) -> Tree:
        """The state of a wave, for a program that overwrites it."""
        state = self.states[wave]
        self.states[wave] = None
        return state

    def chunk(self, interrupted: Sequence[int] = ()) -> dict[str, Any] | None:
        """Advance all runs by one chunk; its metrics with leading [R, iterations].

        On the host a chunk ends early once `interrupted` is not empty, or at an error, which is
        then in `failure`; None if not one iteration was completed.
        """
        metrics = self.advance.chunk(interrupted)
        if not metrics:
            return None
        return jax.tree.map(lambda *waves: self._by_run(list(waves)), *metrics)

    def evaluate(self) -> dict[str, np.ndarray]:
        """Evaluation of all runs, {name: [R]}; one policy after the other. Raises HostError."""
        scores: dict[str, np.ndarray] = {}
        for prefix, evaluate in self._evaluate.items():
            with host_errors(self.program.evaluator):
                waves = []
                for state, hparams in zip(self.states, self.hparams, strict=True):
                    waves.append(evaluate(state, hparams, self.clock)[0])
                for name in waves[0]:
                    scores[prefix + name] = self._by_run([wave[name] for wave in waves])
        return scores

    def release(self) -> None:
        """Let go of what takes memory: states and data. Nothing can be asked for afterwards."""
        self.states = []
        self.data = None
        self.advance.release()

    # ---------------------------------------------------------------------------------- questions

    @property
    def counters(self) -> Counters:
        """How far every run is."""
        env_steps = self.env_steps
        updates = self.updates
        return Counters(env_steps, updates, updates if self.program.offline else env_steps)

    @property
    def env_steps(self) -> np.ndarray:
        """Environment steps of each run, [R]."""
        return self._by_run([state.env_steps for state in self.states])

    @property
    def updates(self) -> np.ndarray:
        """Updates made by each run, [R]."""
        return self._by_run([state.updates for state in self.states])

    def params(self, run: int) -> Params:
        """The parameters of one run, copied to numpy arrays."""
        wave, row = divmod(run, self.layout.wave_size)
        learner = self.states[wave].learner
        return jax.tree.map(lambda x: np.array(local_rows(x)[row]), learner.params)

    def unstacked(self, filled: int | None) -> list[TrainState]:
        """Every run's state as numpy arrays, with `filled` episodes of its replay.

        None: without it. On a CPU these are views of the devices' memory, not copies: use them
        before the next chunk.
        """
        runs = []
        for state in self.states:
            wanted = state if filled is not None else state.replace(replay=None)
            rows = jax.tree.map(local_rows, wanted)
            for i in range(self.layout.wave_size):
                run = jax.tree.map(lambda each, i=i: each[i], rows, is_leaf=_is_list)
                runs.append(run.replace(replay=shards.first_slots(run.replay, filled)))
        return runs[: len(self.labels)]

    def _by_run(self, waves: list[Tree]) -> np.ndarray:
        return np.concatenate([as_numpy(wave) for wave in waves])[: len(self.labels)]

    def _hparams(self) -> Iterator[dict[str, jax.Array]]:
        points = [{**self.program.algorithm.hparams, **point} for _, point in self.settings.runs()]
        for wave in self.layout.waves():
            values = {}
            for name in points[0]:
                values[name] = jnp.array([points[i][name] for i in wave], jnp.float32)
            yield values


def _evaluation(prefix: str) -> str:
    """The name under which a program that evaluates is kept."""
    return f"evaluate-{prefix.replace('/', '-')}"


def _stacked(trees: list[Tree]) -> Tree:
    return jax.tree.map(lambda *each: np.stack(each), *trees)


def _is_list(value: object) -> bool:
    return isinstance(value, list)

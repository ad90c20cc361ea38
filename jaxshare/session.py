"""A run from settings to results: what Python does around the compiled program (start chunks, log, evaluate, save)."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare import __version__, parallel, registry, replay, surroundings
from jaxshare.checkpoint import Best, Checkpoints, Restored, Wanted
from jaxshare.config import POLICIES, DatasetConfig, Settings, check_all
from jaxshare.console import Console
from jaxshare.loggers import METRICS, JsonLines, Logger, require
from jaxshare.memory import check_memory
from jaxshare.run import folder, reader, signals
from jaxshare.run import metrics as log
from jaxshare.run.signals import Watch
from jaxshare.runner import Program, start_clock
from jaxshare.types import Algorithm, Clock, Env, EnvSpec, Episode, HostError, RefusedError, TrainState

MOST_UPDATES = 200  # ours: about ten seconds of QMIX on two CPU cores
MOST_ITERATIONS = 2000  # ours: on policy; one of A2C with small networks takes a few milliseconds or less


def make_env(settings: Settings) -> Env:
    """The environment of the settings."""
    return registry.get("env", settings.env_name).make(settings.env)


def make_parts(settings: Settings, spec: EnvSpec) -> Any:
    """A learner's record of parts, changed by its modifiers. Raises RefusedError for what does not go together."""
    parts = registry.get("algo", settings.algo_name).make(settings.algo, spec)
    for name, config in settings.modifiers.items():
        parts = registry.get("modifiers", name).make(config, parts)
    return parts


def make_algorithm(settings: Settings, spec: EnvSpec) -> Algorithm:
    """The algorithm with its modifiers. Raises RefusedError for what does not go together."""
    return make_parts(settings, spec).assemble()


def _nothing() -> None:
    """Where nobody wants to be told."""


@dataclass
class Runs:
    """All runs of a session on their devices."""

    program: Program
    layout: parallel.Layout
    settings: Settings
    states: list[Any] = field(default_factory=list)  # of each wave
    clock: Clock = field(default_factory=start_clock)
    failure: HostError | None = None  # what stopped an environment of training on the host; the states are sound
    data: Any = None  # of a learner from a data set: an Episode in the layout of a replay
    learned: Callable[[], None] = _nothing  # called when the states are ahead of the last checkpoint

    def __post_init__(self) -> None:
        self.labels = self.settings.labels()  # of each run: seed, and its sweep point
        self.hparams = [self.layout.place(values) for values in self._hparams()]  # of each wave, leading [wave_size]
        self.clock = self.layout.replicate(self.clock)  # as a chunk returns it, or the second chunk would compile anew
        kinds: tuple[Any, ...] = (_Pure, _Hosted, _Offline)
        self._advance = kinds[2 if self.program.offline else 0 if self.program.env.spec.pure else 1](self)
        self._init = self.layout.lift(lambda seed, clock: (self.program.init(seed), clock), donate=False, batched=1)
        self._evaluate = {
            prefix: self.layout.lift(partial(self.program.evaluate, explore=explore), donate=False)
            for prefix, explore in POLICIES[self.settings.run.eval.policy].items()
        }

    def compile(self) -> None:
        """Compile what new runs will call before their replays take memory, and return what compiling took.

        ours: otherwise the peak is that of the compiler and the replays together (benchmarks/memory.py). Programs that
        call an environment on the host, or learn from a data set, are compiled when they are called.
        """
        if not isinstance(self._advance, _Pure):
            return
        seeds = self._seeds()[0]
        state = jax.eval_shape(self._init, seeds, self.clock)[0]
        # as `init` returns it and a chunk leaves it
        state = jax.tree.map(lambda x: x.update(sharding=self.layout.sharding), state)
        args = (state, self.hparams[0], self.clock)
        self._advance.compile(*args)
        self._init = self._init.lower(seeds, self.clock).compile()
        self._evaluate = {prefix: evaluate.lower(*args).compile() for prefix, evaluate in self._evaluate.items()}
        parallel.return_free_memory()

    def start(self, interrupted: Sequence[int] = ()) -> None:
        """New learners, and replays that are full enough. See `prefill`."""
        self.states = [self._init(seed, self.clock)[0] for seed in self._seeds()]
        self.prefill(interrupted)

    def _seeds(self) -> list[jax.Array]:
        """Of each wave, [wave_size]."""
        seeds = [jnp.array([self.labels[i]["seed"] for i in wave], jnp.int32) for wave in self.layout.waves()]
        return [self.layout.place(seed) for seed in seeds]

    def place(self, clock: Clock, states: list[TrainState]) -> None:
        """Go on from restored states, one of each run."""
        # the clock as a chunk returns it, or the second chunk would be compiled anew
        self.clock, place, waves = self.layout.replicate(clock), self.layout.place, self.layout.waves()
        self.states = [place(jax.tree.map(lambda *x: np.stack(x), *[states[i] for i in wave])) for wave in waves]

    def prefill(self, interrupted: Sequence[int] = ()) -> None:
        """Fill the replays as far as the first update needs; on the host only until `interrupted` is not empty.

        Raises HostError; RefusedError for observations or states that replay.dtype cannot keep.
        """
        if self.program.prefill_iterations:
            self._advance.prefill(interrupted)
            outside = self.outside()
            if outside:
                raise RefusedError(outside)

    def outside(self) -> str:
        """What to tell if a replay holds observations or states beyond the range of replay.dtype, else ""."""
        dtype = self.program.run.replay.dtype
        if self.program.algorithm.experience != "replay" or dtype not in replay.RANGES:
            return ""
        if not any(jax.jit(jax.vmap(replay.any_outside))(state.replay).any() for state in self.states):
            return ""
        return (
            f"replay.dtype={dtype} keeps numbers within {replay.RANGES[dtype]} only; observations or states of "
            f"env={self.program.env.spec.name} are not. Use replay.dtype=bfloat16, which takes as much memory as "
            "float16 and has the range of float32, or float32."
        )

    @property
    def env_steps(self) -> np.ndarray:
        """Environment steps of each run."""
        return self._by_run([state.env_steps for state in self.states])

    @property
    def progress(self) -> np.ndarray:
        """How far each run is, in what `Program.total` is counted in: environment steps, or updates."""
        return self.updates if self.program.offline else self.env_steps

    @property
    def updates(self) -> np.ndarray:
        """Updates made by each run."""
        return self._by_run([state.updates for state in self.states])

    def chunk(self, interrupted: Sequence[int] = ()) -> dict[str, Any] | None:
        """Advance all runs by one chunk; its metrics with leading [R, iterations].

        On the host a chunk ends early once `interrupted` is not empty, or at an error, which is then in `failure`;
        None if not one iteration was completed.
        """
        metrics = self._advance.chunk(interrupted)
        return jax.tree.map(lambda *waves: self._by_run(list(waves)), *metrics) if metrics else None

    def evaluate(self) -> dict[str, np.ndarray]:
        """Evaluation of all runs, {name: [R]}; one policy after the other. Raises HostError."""
        found: dict[str, np.ndarray] = {}
        for prefix, evaluate in self._evaluate.items():
            with host_errors(self.program.evaluator):
                waves = [evaluate(*wave, self.clock)[0] for wave in zip(self.states, self.hparams, strict=True)]
                for name in waves[0]:
                    found[prefix + name] = self._by_run([wave[name] for wave in waves])
        return found

    def params(self, run: int) -> dict[str, Any]:
        """The parameters of one run, copied to numpy arrays."""
        wave, row = divmod(run, self.layout.wave_size)
        return jax.tree.map(lambda x: np.array(parallel.local_rows(x)[row]), self.states[wave].learner.params)

    def unstacked(self, filled: int | None) -> list[TrainState]:
        """Every run's state as numpy arrays, with the first `filled` slots of its replay (None: without it).

        On a CPU these are views of the devices' memory, not copies: use them before the next chunk.
        """
        runs = []
        for state in self.states:
            shards = jax.tree.map(parallel.local_rows, state if filled is not None else state.replace(replay=None))
            for i in range(self.layout.wave_size):
                run = jax.tree.map(lambda rows, i=i: rows[i], shards, is_leaf=lambda x: isinstance(x, list))
                runs.append(run.replace(replay=jax.tree.map(lambda x: x[:filled], run.replay)))
        return runs[: len(self.labels)]

    def _by_run(self, waves: list[Any]) -> np.ndarray:
        return np.concatenate([np.asarray(wave) for wave in waves])[: len(self.labels)]

    def _hparams(self) -> Iterator[dict[str, jax.Array]]:
        points = [{**self.program.algorithm.hparams, **point} for _, point in self.settings.runs()]
        for wave in self.layout.waves():
            yield {k: jnp.array([points[i][k] for i in wave], jnp.float32) for k in points[0]}


class _Pure:
    """How runs advance in a JAX environment: a chunk is one program, which may overwrite the states."""

    def __init__(self, runs: Runs) -> None:
        program, lift = runs.program, runs.layout.lift
        self._runs = runs
        self._prefill = lift(program.prefill, donate=True)
        self._chunk = lift(partial(program.chunk, chunk_iterations(program)), donate=True)

    def compile(self, *args: Any) -> None:
        """See `Runs.compile`. args: shapes of a wave's state, its hyper-parameters, the clock."""
        self._chunk = self._chunk.lower(*args).compile()
        if self._runs.program.prefill_iterations:
            self._prefill = self._prefill.lower(*args).compile()

    def prefill(self, interrupted: Sequence[int]) -> None:
        """See `Runs.prefill`."""
        self._runs.states = self._waves(self._prefill)

    def chunk(self, interrupted: Sequence[int]) -> list[Any]:
        """The metrics of each wave. After a signal one chunk is short enough to wait for."""
        out = self._waves(self._chunk)
        self._runs.states = [state for state, _ in out]
        return [metrics for _, metrics in out]

    def _waves(self, advance: Callable[..., Any]) -> list[Any]:
        runs, out = self._runs, []
        clock = runs.clock
        for wave, hparams in enumerate(runs.hparams):
            state, runs.states[wave] = runs.states[wave], None  # donated
            found, clock = advance(state, hparams, runs.clock)
            out.append(found)
        runs.clock = clock
        return out


class _Offline:
    """How runs advance with a data set, of which every device has one copy."""

    def __init__(self, runs: Runs) -> None:
        program = runs.program
        self._runs, self._data = runs, runs.layout.replicate(runs.data)
        self._chunk = runs.layout.lift(partial(program.chunk_offline, chunk_iterations(program)), donate=True)

    def prefill(self, interrupted: Sequence[int]) -> None:
        """See `Runs.prefill`."""

    def chunk(self, interrupted: Sequence[int]) -> list[Any]:
        """The metrics of each wave."""
        runs, metrics = self._runs, []
        clock = runs.clock
        for wave, hparams in enumerate(runs.hparams):
            state, runs.states[wave] = runs.states[wave], None  # donated
            (runs.states[wave], found), clock = self._chunk(state, hparams, (runs.clock, self._data))
            metrics.append(found)
        runs.clock = clock
        return metrics


class _Hosted:
    """How runs advance when environments are on the host: one program plays episodes, another learns from them.

    Playing changes nothing, so that an environment that fails leaves the states as they were. There is one wave.
    """

    def __init__(self, runs: Runs) -> None:
        program, lift = runs.program, runs.layout.lift

        def explore(state: Any, hparams: Any, clock: Clock) -> Any:
            return program.explore(state, hparams, clock), clock

        def fill(state: Any, hparams: Any, played: Any, clock: Clock) -> Any:
            return program.fill(state, played, clock)

        def learn(state: Any, hparams: Any, played: Any, clock: Clock) -> Any:
            state, clock, metrics = program.learn(state, played, hparams, clock)
            return (state, metrics), clock

        self._runs, self._length = runs, chunk_iterations(program)
        self._explore = lift(explore, donate=False)
        self._fill, self._learn = (lift(fn, donate=True, batched=3) for fn in (fill, learn))

    def prefill(self, interrupted: Sequence[int]) -> None:
        """See `Runs.prefill`."""
        runs, (hparams,) = self._runs, self._runs.hparams
        for _ in range(runs.program.prefill_iterations):
            if interrupted:
                return
            played = self._play()
            runs.states[0], runs.clock = self._fill(runs.states[0], hparams, played, runs.clock)

    def chunk(self, interrupted: Sequence[int]) -> list[Any]:
        """The metrics of the one wave."""
        runs, (hparams,) = self._runs, self._runs.hparams
        metrics: list[Any] = []
        # after a chunk that was cut short the next one ends where that one would have
        left = self._length - int(runs.clock.iteration - runs.program.prefill_iterations) % self._length
        while len(metrics) < left and not interrupted:
            try:
                played = self._play()
            except HostError as error:
                runs.failure = error
                break
            (runs.states[0], found), runs.clock = self._learn(runs.states[0], hparams, played, runs.clock)
            runs.learned()
            metrics.append(found)
        return [jax.tree.map(lambda *x: np.stack(x, axis=1), *metrics)] if metrics else []

    def _play(self) -> Any:
        runs = self._runs
        with host_errors(runs.program.env):
            return jax.block_until_ready(self._explore(runs.states[0], runs.hparams[0], runs.clock)[0])


@contextmanager
def host_errors(env: Env) -> Iterator[None]:
    """What JAX makes of an exception in a callback is a text; raise the HostError behind it instead.

    Wait for results inside: they are computed in the background.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        found = env.host.error() if env.host else None
        if found is None:
            raise
        env.host.settle()
        raise found from error


def chunk_iterations(program: Program) -> int:
    """Iterations between two looks at the run, which is how long a signal waits.

    Never more progress of one run than eval.every or checkpoint.every, nor MOST_UPDATES updates from a replay or a data
    set, nor MOST_ITERATIONS.
    """
    run = program.run
    steps = min(run.eval.every, run.checkpoint.every or run.eval.every)
    most = MOST_UPDATES if program.algorithm.experience in ("replay", "dataset") else MOST_ITERATIONS
    updates = max(1, int(most / program.updates_per_iteration))
    return max(1, min(steps // program.steps_per_iteration, updates))


def prepare(settings: Settings) -> Program:
    """Check everything that can be checked before compiling."""
    check_all(settings)
    surroundings.check_machine()
    env = make_env(settings)
    algorithm = make_algorithm(settings, env.spec)
    for name, values in settings.sweep.items():
        if name not in algorithm.hparams:
            raise RefusedError(
                f"sweep.{name}={values} is not a scalar hyper-parameter here."
                f"{registry.suggest(name, algorithm.hparams)} Known: {', '.join(sorted(algorithm.hparams))}."
            )
    algorithm = _with_data(settings, algorithm)
    batch_size, capacity = settings.run.batch_size, settings.run.replay.capacity
    if settings.run.num_envs % algorithm.minibatches:
        raise RefusedError(
            f"algo.minibatches={algorithm.minibatches} does not divide num_envs={settings.run.num_envs}: whole streams "
            f"are dealt out. Use a multiple of it, such as num_envs={8 * algorithm.minibatches}."
        )
    if algorithm.experience == "replay" and not algorithm.window and batch_size > capacity:
        raise RefusedError(
            f"batch_size={batch_size} is larger than replay.capacity={capacity}: a batch is drawn without "
            f"replacement. Use batch_size={capacity} or replay.capacity={batch_size} at least."
        )
    if env.host and algorithm.experience == "segment":
        raise RefusedError(
            f"algo={settings.algo_name} learns from pieces of streams of episodes, and env={settings.env_name} is on "
            "the host, where only whole episodes are played. Use algo.rollout=episodes."
        )
    return Program(env, algorithm, settings.run, eval_env=env.host.twin() if env.host else None)


def _with_data(settings: Settings, algorithm: Algorithm) -> Algorithm:
    """The algorithm as it learns from `data`, if that is set. Raises RefusedError if it cannot, or needs it."""
    used, data = f"algo={settings.algo_name}", settings.run.data
    if not data:
        if algorithm.experience == "dataset":
            raise RefusedError(f"{used} learns from a data set: name one, as in data=sets/2s3z_low.jds.")
        _refuse_options(settings)
        return algorithm
    if algorithm.experience not in ("replay", "dataset") or algorithm.before_update or algorithm.observe:
        raise RefusedError(
            f"data={data}: {used} with these modifiers must play to learn. Use an algorithm that learns from stored "
            "episodes, such as qmix, without modifiers that play or watch."
        )
    return dataclasses.replace(algorithm, experience="dataset")


def _refuse_options(settings: Settings) -> None:
    """Raise RefusedError for settings of how a data set is read, where none is."""
    for name, value in dataclasses.asdict(settings.run.dataset).items():
        if value != getattr(DatasetConfig(), name):
            raise RefusedError(f"dataset.{name}={value} has no effect without data=SET: name one, or leave it out.")


def open_data(settings: Settings) -> Any:
    """The data set of a run on disk, read as the settings say. Raises RefusedError if it is none."""
    from jaxshare.data import open_any

    return open_any(settings.run.data, **dataclasses.asdict(settings.run.dataset))


def load_data(settings: Settings, program: Program) -> Any:
    """The data set of a run, in the layout of a replay, or None. Raises RefusedError if it does not fit."""
    if not program.offline:
        return None
    from jaxshare.data.checks import check_spec

    source, batch_size = open_data(settings), settings.run.batch_size
    if len(source) < batch_size and not program.algorithm.window:
        raise RefusedError(
            f"batch_size={batch_size}: data={settings.run.data} holds {len(source)} episodes, and a batch is drawn "
            f"without replacement. Use batch_size={len(source)} at most."
        )
    dataset = source.read()
    check_spec(dataset, program.env.spec, f"data={settings.run.data}")
    for note in dataset.card.get("source", {}).get("notes", []):
        print(f"note: data={settings.run.data}: {note}", file=sys.stderr)
    return cropped(dataset.episodes)


def cropped(episodes: Episode) -> Episode:
    """Episodes in the layout of a replay, [E, T(+1), ...], with T cut to the steps of the longest one."""
    from jaxshare.data.records import SLOTS

    limit, longest = episodes.mask.shape[1], int(np.asarray(episodes.mask).sum(1).max())
    if longest == limit:
        return episodes
    # copies, so that what is cut off can be freed
    shorter = jax.tree.map(lambda x: np.ascontiguousarray(x[:, :longest]), episodes)
    slots = {name: np.ascontiguousarray(getattr(episodes, name)[:, : longest + 1]) for name in SLOTS}
    return shorter.replace(**slots)


def fitted(settings: Settings) -> Settings:
    """The settings with what the algorithm takes from the data set, if it has something to take (its `fitted`).

    They are what a run directory keeps, so that a run is evaluated without its data set. Raises RefusedError.
    """
    fit = getattr(registry.get("algo", settings.algo_name), "fitted", None)
    if fit is None or not settings.run.data:
        return settings
    episodes = len(open_data(settings))
    return dataclasses.replace(settings, algo=fit(settings.algo, episodes, settings.run.total_updates))


def data_bytes(settings: Settings, program: Program) -> int:
    """Bytes of one copy of the data set before it is cut, or 0 without one; only an episode of it is read."""
    if not program.offline:
        return 0
    source = open_data(settings)
    return len(source) * replay.num_bytes(source.read(slice(0, 1)).episodes)


def lay_out(settings: Settings) -> tuple[Program, parallel.Layout]:
    """`prepare`, and the layout of the runs over devices. Must come before JAX starts to count."""
    check_all(settings)
    pure = not getattr(registry.get("env", settings.env_name), "HOST", False)
    parallel.prepare(settings.run.parallel, len(settings.runs()), pure)
    program = prepare(settings)
    layout = parallel.layout(settings.run.parallel, len(settings.runs()), program.env.spec.pure)
    return dataclasses.replace(program, crop=layout.per_device == 1), layout


def train(settings: Settings, max_chunks: int | None = None, at_once: bool = False) -> pathlib.Path:
    """Run to the end, or for `max_chunks` chunks, or until a signal; returns the run directory.

    at_once: a signal that finds nothing to save ends this process, in the middle of a compilation if need be; for
    commands. Raises RefusedError for what cannot be done, StoppedError after a signal.
    """
    settings = fitted(settings)
    program, layout = lay_out(settings)
    with closing(program), signals.watching(at_once) as watch:
        require(settings.run.logger)
        size = check_memory(program, layout, data_bytes(settings, program))
        with watch.computing("reading of the data"):
            data = load_data(settings, program)  # before anything is written
        new_name = not settings.run.run_dir
        with folder.in_use(settings) as opened:
            settings = opened.settings
            watch.on_leaving(opened.lock.release)
            with Session(settings, program, layout, opened.run_dir, opened.resuming, data, watch) as session:
                watch.on_leaving(program.close)
                # what may change when a run goes on, now that its checkpoint was read
                folder.write_settings(settings, opened.run_dir)
                session.console.start(settings, program, layout, size, opened.run_dir, opened.resuming)
                if new_name and settings.run.resume == "auto":
                    session.console.warn("resume=auto goes on with a run whose run_dir is named; this is a new one.")
                session.loop(max_chunks)
    return opened.run_dir


class Session:
    """The state of the Python side of a run."""

    def __init__(
        self, settings: Settings, program: Program, layout: parallel.Layout, run_dir: pathlib.Path, resuming: bool,
        data: Any = None, watch: Watch | None = None,
    ) -> None:  # fmt: skip
        self._data = data
        self._watch = Watch() if watch is None else watch
        self.settings, self.run, self.run_dir = settings, settings.run, run_dir
        self.program, self.layout = program, layout
        self.console = Console(settings.run, program)
        self.checkpoints = Checkpoints(run_dir, settings.run.checkpoint.keep, spec=program.env.spec)
        self.labels = settings.labels()
        # before anything is opened for writing, so that a damaged checkpoint leaves the run untouched
        with self._watch.computing("reading of the checkpoint"):
            newest = self.checkpoints.newest(self._restore) if resuming else None
        if resuming and newest is None:
            raise RefusedError(
                f"run_dir={run_dir} holds metrics but no complete checkpoint to go on from: choose another run_dir, or "
                "delete this one."
            )
        self._restored = newest[1] if newest else None
        meta = self._meta(self._restored) if self._restored else {}
        self.wall_s = float(meta.get("wall_s", 0.0))
        self._planned = int(meta.get("total_env_steps", self.run.total_env_steps))
        # progress of each run at its last evaluation, -1: none; a failed one is made up for when the run goes on
        self._evaluated = np.array(meta.get("evaluated", [-1] * len(self.labels)), int)
        has_replay = program.algorithm.experience == "replay"
        self.fresh = self._restored is None
        self._exact = bool(meta.get("replay", True)) or not has_replay
        best = self._restored.best if self._restored else None
        self._best: list[Best | None] = [*best] if best else [None] * len(self.labels)  # of each run, so far
        self._remarks = self._cut_back_log(meta)
        self.file = JsonLines(run_dir)
        self.loggers: list[Logger] = [self.file, *self._extra_loggers()]
        self._started = self._saved_at = time.monotonic()
        self._watch.on_leaving(self.console.stop)
        self._watch.on_leaving(self._close_loggers)
        self._watch.then = "" if self.fresh else self._how_to_go_on()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.console.stop()
        self.checkpoints.close()
        self._close_loggers()

    def _close_loggers(self) -> None:
        for logger in self.loggers:
            logger.close()

    def _meta(self, restored: Restored) -> dict[str, Any]:
        """What a checkpoint says of itself, checked."""
        kind = reader.checkpoint_meta(len(self.labels))
        where = self.checkpoints.folder / str(restored.step)
        return reader.checked(restored.meta, kind, where, "Restore it from a copy, or start anew.")

    def _cut_back_log(self, meta: dict[str, Any]) -> list[str]:
        """Leave in metrics.jsonl what was there at the checkpoint; remarks for the person."""
        log.refuse_link(self.run_dir / METRICS)
        if self._restored is None:
            return []
        states = self._restored.runs
        offline = self.program.offline
        progress = [int(state.updates if offline else state.env_steps) for state in states]
        reached = log.Reached(
            labels=self.labels,
            env_steps=[int(state.env_steps) for state in states],
            updates=[int(state.updates) for state in states],
            evaluated=meta.get("evaluated", progress),
            offline=offline,
            num_bytes=int(meta.get("metrics_bytes", 0)),
        )
        return log.cut_back(self.run_dir, reached)

    def _how_to_go_on(self) -> str:
        return f"the same command with {folder.how_to_go_on(self.run_dir)} goes on"

    def loop(self, max_chunks: int | None) -> None:
        """Chunk after chunk until every run has its environment steps."""
        watch = self._watch
        for remark in self._remarks:
            self.console.warn(remark)
        runs = self._start()
        total, chunks = self.program.total, 0
        while runs.progress.min() < total and chunks != max_chunks:
            before, updates = runs.progress, runs.updates
            with watch.computing("chunk"):
                metrics = runs.chunk(watch)
            failure = runs.failure
            if metrics is not None:
                watch.learned()
                self._stop_on_nonfinite(runs, metrics, updates)
                self._log_chunk(runs, metrics, before)
                failure = failure or self._evaluate_due(runs)
            chunks += 1
            if failure or watch or self._checkpoint_due(before, runs.progress):
                self._save(runs)
            self._stop_if(runs, failure)
        self._save(runs)
        if not runs.updates.all() and self.program.prefill_iterations:
            what = "windows" if self.program.algorithm.window else "episodes"
            self.console.warn(
                f"total_env_steps={total} was used up before the first update, which needs "
                f"batch_size={self.run.batch_size} {what}: nothing was learned."
            )
        if runs.progress.min() >= total:
            records, problems = log.read(self.run_dir, ("seed", "env_steps"))
            for problem in problems:
                self.console.warn(problem)
            self.console.finish(records, self.run_dir)

    def _start(self) -> Runs:
        """New runs with a full enough replay and their first evaluation, or the restored ones."""
        failure = None
        watch = self._watch
        with self.console.phase("compiling"):
            runs = Runs(self.program, self.layout, self.settings, data=self._data, learned=watch.learned)
            with watch.computing("compiling"):
                if self.fresh:
                    runs.compile()
                try:
                    self._fill(runs, watch)
                except HostError as error:
                    raise HostError(f"{error}\nThe run is stopped before anything was learned.") from error
            # else a signal cut the prefill short
            if self.fresh and int(runs.clock.iteration) >= self.program.prefill_iterations:
                self._save(runs)
            if not watch:
                failure = self._evaluate_due(runs)
        self._stop_if(runs, failure)
        self.console.progress(runs.progress)
        if self._planned != self.run.total_env_steps:
            self.console.warn(
                f"total_env_steps was {self._planned}: the run goes on, but not to the same bits as a run that was "
                "planned to be longer."
            )
        return runs

    def _stop_if(self, runs: Runs, failure: HostError | None) -> None:
        """Raise what stops the run, if something does; what there was to save is saved."""
        if failure:
            saved = self.checkpoints.folder / str(self.checkpoints.latest())
            raise HostError(
                f"{failure}\nThe run is stopped at {int(runs.env_steps.min()):,} environment steps; the checkpoint is "
                f"{saved}. The same command with {folder.how_to_go_on(self.run_dir)} goes on."
            ) from failure
        if self._watch:
            self._watch.stop()

    def _restore(self, step: int) -> Restored:
        wanted = Wanted(
            jax.eval_shape(self.program.init, jnp.int32(0)),
            len(self.labels),
            replay=True,
            best=self.run.checkpoint.best,
        )
        return self.checkpoints.load(step, wanted)

    def _fill(self, runs: Runs, caught: Sequence[int]) -> None:
        """States for the runs: new ones, or those of the checkpoint. Raises HostError."""
        if self.fresh:
            runs.start(caught)
            return
        assert self._restored is not None
        clock = self._restored.clock
        states = self._restored.runs
        self._restored = None  # frees its replays
        if self._exact:
            runs.place(clock, states)
            return
        self.console.warn("the checkpoint holds no replay: it is filled anew, and the run goes on inexactly.")
        runs.place(clock._replace(stored=jnp.int32(0)), states)
        runs.prefill(caught)

    def _log_chunk(self, runs: Runs, metrics: dict[str, Any], before: np.ndarray) -> None:
        steps, updates, now = runs.env_steps, runs.updates, runs.progress
        for i in range(len(self.labels)):
            active = metrics["active"][i]  # [iterations]
            if not active.any():
                continue
            done = metrics["done"][i] & active[:, None]
            update = {k: float(v[i][done].mean()) for k, v in metrics["update"].items() if done.any()}
            ended = metrics["ended"][i] * active  # episodes, [iterations]
            means = {k: v[i] @ ended / ended.sum() for k, v in metrics["collect"].items() if ended.any()}
            train = {f"train/{name}": float(mean) for name, mean in means.items()}
            self._write(i, int(steps[i]), int(updates[i]), {**update, **train})
        self.console.progress(now, metrics, int((now - before).sum()))

    def _evaluate_due(self, runs: Runs) -> HostError | None:
        """Evaluate the runs that crossed a multiple of eval.every, or came to their end, since their last evaluation.

        Returns what went wrong on the host; the evaluation is still due then.
        """
        now, every, total = runs.progress, self.run.eval.every, self.program.total
        crossed = (now // every > self._evaluated // every) | (now >= total)
        due = (crossed & (self._evaluated < total)) | (self._evaluated < 0)
        if not due.any():
            return None
        try:
            with self._watch.computing("evaluation"):
                found = runs.evaluate()
        except HostError as error:
            return error
        steps, updates = runs.env_steps, runs.updates
        for i in np.flatnonzero(due):
            record = {f"eval/{name}": float(value[i]) for name, value in found.items()}
            self._write(int(i), int(steps[i]), int(updates[i]), record)
            if self.run.checkpoint.best:
                self._keep_if_best(runs, int(i), int(steps[i]), record["eval/return"])
        self.console.evaluated(now, found, due)
        self._evaluated = np.where(due, now, self._evaluated)
        return None

    def _keep_if_best(self, runs: Runs, i: int, env_steps: int, score: float) -> None:
        best = self._best[i]
        if np.isfinite(score) and (best is None or score >= best.score):
            self._best[i] = Best(params=runs.params(i), env_steps=env_steps, score=score)

    def _write(self, i: int, env_steps: int, updates: int, metrics: dict[str, float]) -> None:
        record = {**self.labels[i], "env_steps": env_steps, "updates": updates, "wall_s": round(self.elapsed, 3)}
        for logger in self.loggers:
            logger.write(i, {**record, **metrics})

    def _stop_on_nonfinite(self, runs: Runs, metrics: dict[str, Any], updates: np.ndarray) -> None:
        found = first_nonfinite(metrics)
        if found is None:
            return
        run, offset, name, value = found
        what = f"{name} became {value} at update {int(updates[run]) + offset + 1}"
        raise self._not_finite(runs, what, self.labels[run])

    def _not_finite(self, runs: Runs, what: str, label: dict[str, Any]) -> RefusedError:
        remedy = runs.outside() or (
            "A smaller algo.hparams.lr, algo.hparams.grad_clip or env.reward_scale, in a new run_dir, usually helps."
        )
        return RefusedError(
            f"{what} of {_describe(label)}. The run is stopped; the last good checkpoint is "
            f"{self.checkpoints.folder / str(self.checkpoints.latest())}. {remedy}"
        )

    def _checkpoint_due(self, before: np.ndarray, after: np.ndarray) -> bool:
        every, minutes = self.run.checkpoint.every, self.run.checkpoint.minutes
        if minutes > 0 and time.monotonic() - self._saved_at >= 60 * minutes:
            return True
        return every > 0 and int(after.min()) // every > int(before.min()) // every

    def _save(self, runs: Runs) -> None:
        """Write a checkpoint, unless the newest one is of this very iteration."""
        self._save_if_newer(runs)
        self._saved_at = time.monotonic()
        self._watch.then = self._how_to_go_on()
        self._watch.saved()

    def _save_if_newer(self, runs: Runs) -> None:
        if self.checkpoints.latest() == int(runs.clock.iteration):
            return
        meta = {
            "wall_s": self.elapsed,
            "metrics_bytes": self.file.sync(),
            "version": __version__,
            "labels": self.labels,
            "env_steps": runs.env_steps.tolist(),
            "evaluated": self._evaluated.tolist(),
            "total_env_steps": self.run.total_env_steps,
        }
        filled = min(int(runs.clock.stored), self.run.replay.capacity) if self.run.checkpoint.replay else None
        states = runs.unstacked(filled)
        for label, state in zip(self.labels, states, strict=True):
            # a loss and a gradient can be finite while the step they lead to is not
            if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.learner.params)):
                raise self._not_finite(runs, f"a parameter became not finite at update {int(state.updates)}", label)
        best = [best for best in self._best if best is not None]
        self.checkpoints.save(runs.clock, states, meta, best if len(best) == len(self.labels) else None)

    @property
    def elapsed(self) -> float:
        """Seconds spent on this run, over all its resumptions."""
        return self.wall_s + time.monotonic() - self._started

    def _extra_loggers(self) -> list[Logger]:
        names = [_describe(label).replace(" ", "_").replace("=", "_") for label in self.labels]
        settings = folder.plain(self.settings)
        factories = [registry.get("logger", name) for name in self.run.logger]
        return [factory.make(self.run_dir, names, settings) for factory in factories]


def first_nonfinite(metrics: dict[str, Any]) -> tuple[int, int, str, float] | None:
    """(run, index of the update in the chunk, metric, value) of the earliest nan or inf, or None.

    metrics: "update" {name: [R, iterations, U]}, "done" [R, iterations, U], "active" [R, iterations].
    """
    used = metrics["done"] & metrics["active"][..., None]
    order = np.cumsum(metrics["done"].reshape(len(used), -1), axis=1) - 1
    worst: tuple[int, int, str, float] | None = None
    for name in sorted(metrics["update"], key=lambda n: (not n.startswith("loss/"), n)):
        value = metrics["update"][name].reshape(len(used), -1)
        bad = ~np.isfinite(value) & used.reshape(len(used), -1)
        for run in np.flatnonzero(bad.any(1)):
            at = int(bad[run].argmax())
            if worst is None or order[run, at] < worst[1]:
                worst = (int(run), int(order[run, at]), name, float(value[run, at]))
    return worst


def _describe(label: dict[str, Any]) -> str:
    return " ".join(f"{name.removeprefix('sweep.')}={value}" for name, value in label.items())

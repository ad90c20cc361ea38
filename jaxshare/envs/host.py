"""The host bridge: environments outside JAX, stepped from inside the jitted program. The only door to `io_callback`.

A pool holds the environments of all runs, in worker processes or in this one. One call per step serves every slot
(run x parallel environment): `step` is a `custom_vmap` function that takes any leading axes, so that vmap over
environments, over seeds, or over both still makes one call. What JAX carries of an environment is a token; the token
that one call returns is an argument of the next, so data dependence keeps the order, and the pool checks it.

An episode's seed is derived from its reset key, which the runner derives from (seed, iteration, slot). Episodes
therefore repeat, do not depend on the number of workers, and a resumed run goes on exactly.
"""

from __future__ import annotations

import atexit
import logging
import mmap
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.experimental import io_callback

from jaxshare.envs.hosted import messages
from jaxshare.envs.hosted import worker as hosted
from jaxshare.settings.fields import UNITS, file_path, static
from jaxshare.settings.validate import check_record
from jaxshare.types import Array, Box, Discrete, Env, EnvSpec, HostError, RefusedError, TimeStep

HOSTED = pathlib.Path(hosted.__file__).parent
BOOT = "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
QUIT_SECONDS = 5.0  # ours: what closing environments may take before a worker is killed
OUTPUT_BYTES = 1500  # of a dead worker's last words
MOST_REPLY = 2**28  # bytes of one answer; a picture of 8000 x 8000 points has fewer
MEMORY = "/dev/shm"  # where files are in memory; else the temporary directory
MOST_OUTPUT = 10_000_000  # bytes of what a worker has printed are kept


@dataclass(frozen=True)
class HostConfig:
    """What every environment on the host has besides its own settings."""

    workers: int = static(
        0,
        least=-1,
        most=UNITS,
        note="-1 is one per core, 0 no process.",
        help="processes; 0: none, in the trainer itself, without timeout; -1: one per CPU core",
        source="ours: what is fastest for small games",
    )
    timeout: float = static(
        300.0,
        above=0,
        most=1e7,
        help="seconds for one step or reset of all environments of a worker",
        source="ours: many times what any of them takes",
    )
    python: str = file_path("", help="interpreter of the workers; empty: this one")


@dataclass(frozen=True)
class Install:
    """How to get what an environment needs."""

    how: str  # a command, and what else is to be done
    modules: tuple[str, ...] = ()  # which it brings; empty: whatever is missing

    def brings(self, module: str) -> bool:
        """Whether a module, or the package above it, comes with it."""
        return not self.modules or any(f"{name}.".startswith(f"{module}.") for name in self.modules)


class HostState(NamedTuple):
    """What JAX carries of an environment on the host."""

    token: Array  # [] i32: of the last call that changed it


def host_env(
    name: str,
    target: str,
    kwargs: dict[str, Any],
    config: HostConfig,
    install: Install | str,
    asked: str = "",
) -> Env:
    """An `Env` whose slots are objects made by `target` ('file.py:Class' in hosted/, or 'module:Class') with `kwargs`.

    install: how to get what the environment needs; asked: the settings that chose it. Both are for error messages.
    Raises RefusedError if the environment cannot be made.
    """
    _check(config)
    install = Install(install) if isinstance(install, str) else install
    return _env(name, Pool(name, _located(target), kwargs, config, install, asked))


def _located(target: str) -> str:
    file, _, attribute = target.rpartition(":")
    return f"{HOSTED / file}:{attribute}" if file.endswith(".py") and "/" not in file else target


def _check(config: HostConfig) -> None:
    check_record(config, "env.")
    if config.python and config.workers == 0:
        raise RefusedError(
            f"env.python={config.python} needs worker processes: add env.workers=1 or more."
        )
    if config.python and not os.access(config.python, os.X_OK):
        raise RefusedError(
            f"env.python={config.python} is not a program: name a Python interpreter by its path."
        )


def _env(name: str, pool: Pool) -> Env:
    about = pool.about
    n, actions = about["num_agents"], about.get("num_actions")
    dim = 0 if actions else hosted.box_dim(about)
    spec = EnvSpec(
        name=name,
        num_agents=n,
        obs_dim=about["obs_dim"],
        state_dim=about["state_dim"],
        action=Discrete(actions) if actions else Box(dim, (-1.0,) * dim, (1.0,) * dim),
        episode_limit=about["episode_limit"],
        groups=tuple(about.get("groups", (0,) * n)),
        group_names=tuple(about.get("group_names", ("agent",))),
        common_reward=bool(about.get("common_reward", False)),
        pure=False,
    )
    reset, step = _functions(pool)
    return Env(spec, reset, step, pool.frame, HostControl(pool, lambda: _env(name, pool.twin())))


@dataclass(frozen=True)
class HostControl:
    """What a run does with the host side of an environment besides stepping it."""

    pool: Pool
    twin: Callable[[], Env]  # the same environment with a pool of its own, for evaluation

    def error(self) -> BaseException | None:
        """What stopped the pool, if anything has."""
        return KeyboardInterrupt() if self.pool.interrupted else self.pool.failure

    def settle(self) -> None:
        """After an error: JAX keeps the last computation with an effect, and would raise its error again at exit."""
        jax.block_until_ready(
            jax.jit(lambda: io_callback(lambda: np.int32(0), jax.ShapeDtypeStruct((), jnp.int32)))()
        )

    def record(self) -> None:
        """Keep the pictures of the first slot from the next reset on, for `Env.render`."""
        self.pool.record()

    def close(self) -> None:
        """End the workers. Idempotent."""
        self.pool.close()


def _functions(pool: Pool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    columns = hosted.Columns(pool.about)

    # one array each way, of int32 that may stand for float32: every further one costs about 20 µs a call

    def answer(leading: tuple[int, ...]) -> Any:
        return jax.ShapeDtypeStruct((*leading, columns.width), jnp.int32)

    @custom_vmap
    def call_reset(seed: Array) -> Array:
        return io_callback(pool.reset, answer(seed.shape), seed)

    @custom_vmap
    def call_step(request: Array) -> Array:
        return io_callback(pool.step, answer(request.shape[:-1]), request)

    for call in (call_reset, call_step):
        call.def_vmap(_one_call(call))

    def show(row: Array) -> tuple[HostState, TimeStep]:
        block = jax.lax.bitcast_convert_type(row, jnp.float32)
        fields = {k: block[columns.slices[k]].reshape(columns.shapes[k]) for k in columns.FIELDS}
        shown = TimeStep(
            obs=fields["obs"],
            state=fields["state"],
            avail=fields["avail"] > 0.5,
            alive=fields["alive"] > 0.5,
            reward=fields["reward"],
            terminated=fields["terminated"] > 0.5,
            truncated=fields["truncated"] > 0.5,
            info={name: fields["info"][i] for i, name in enumerate(pool.about.get("info", ()))},
        )
        return HostState(row[0]), shown

    def reset(key: Array) -> tuple[HostState, TimeStep]:
        return show(call_reset(jax.random.bits(key, (), jnp.uint32)))

    def step(state: HostState, action: Array, key: Array) -> tuple[HostState, TimeStep]:
        numbers = jax.lax.bitcast_convert_type(action, jnp.int32).reshape(-1)
        return show(call_step(jnp.concatenate([state.token[None], numbers])))

    return reset, step


def _one_call(call: Callable[..., Any]) -> Callable[..., Any]:
    """A batching rule: the same call with one more leading axis."""

    def rule(axis_size: int, in_batched: Any, *args: Array) -> Any:
        pairs = zip(args, in_batched, strict=True)
        whole = [
            x if batched else jnp.broadcast_to(x, (axis_size, *x.shape)) for x, batched in pairs
        ]
        return call(*whole), True

    return rule


# JAX logs every exception of a callback with a traceback; ours reach the person as one message
logging.getLogger("jax._src.callback").addFilter(
    lambda record: not (record.exc_info and isinstance(record.exc_info[1], HostError))
)

# ------------------------------------------------------------------------------------------------------------ the pool

_OPEN: weakref.WeakSet[Pool] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for pool in list(_OPEN):
        pool.close()


class Pool:
    """The environments of one `Env`. The first reset tells how many there are."""

    def __init__(
        self,
        name: str,
        target: str,
        kwargs: dict[str, Any],
        config: HostConfig,
        install: Install,
        asked: str = "",
        about: dict[str, Any] | None = None,
    ) -> None:
        self.name, self.target, self.kwargs, self.config, self.install = (
            name,
            target,
            kwargs,
            config,
            install,
        )
        self.asked = asked
        self.failure: HostError | None = None
        self.interrupted = False  # by a second Ctrl-C, inside a callback
        self.frames: dict[int, np.ndarray] | None = None
        self._lock, self._workers = threading.Lock(), list[Worker]()
        self._local: hosted.Slots | None = None
        self._arrays: dict[str, np.ndarray] = {}
        self._calls = 0
        self._token: np.ndarray = np.zeros(0, np.int32)
        self._whole: np.ndarray = self._token
        self._ends: np.ndarray = self._token
        _OPEN.add(self)
        self.about = about or self._describe()

    def twin(self) -> Pool:
        """Another pool of the same environments."""
        return Pool(
            self.name, self.target, self.kwargs, self.config, self.install, self.asked, self.about
        )

    def reset(self, seed: Any) -> np.ndarray:
        """Start an episode in every slot. seed: [...] uint32 -> rows of the block [..., width] as int32."""
        with self._lock, self._noting_interrupts():
            seed = np.asarray(seed)
            self._guard()
            if self._token.size != seed.size:
                self._open(seed.size)
            self._arrays["seed"][:] = seed.reshape(-1)
            self._all("reset")
            return self._answer(np.ones(seed.size, bool), seed.shape)

    def step(self, request: Any) -> np.ndarray:
        """One step of every slot whose episode goes on. request: token and actions, [..., 1 + numbers] int32."""
        with self._lock, self._noting_interrupts():
            request = np.asarray(request)
            rows = request.reshape(-1, request.shape[-1])
            self._guard()
            if not np.array_equal(rows[:, 0], self._token):
                self._fail(
                    HostError(
                        f"{self.name}: calls of the host bridge came out of order; please report this."
                    )
                )
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

    def record(self) -> None:
        """Keep pictures of the first slot from now on. Environments that draw only if asked are made anew."""
        self.frames = {}
        if self.about.get("draws_if_asked"):
            self.kwargs = {**self.kwargs, "draw": True}
            self.close()

    def frame(self, state: HostState) -> np.ndarray:
        """The recorded picture of the first slot at a token."""
        assert self.frames is not None, "call HostControl.record before playing"
        return self.frames[int(state.token)]

    def close(self) -> None:
        """End the workers and close the environments. Idempotent."""
        workers, self._workers = self._workers, []
        for w in workers:
            w.ask("quit")
        deadline = time.monotonic() + QUIT_SECONDS
        for w in workers:
            w.end(deadline)
        local, self._local = self._local, None
        if local is not None:
            local.close()
        # the last views of the shared block, which is gone with them
        self._arrays = {}
        self._token = self._whole = self._ends = np.zeros(0, np.int32)

    def _answer(self, changed: np.ndarray, leading: tuple[int, ...]) -> np.ndarray:
        self._calls += 1
        self._token[changed] = self._calls
        if self.frames is not None and changed[0]:
            self._keep_frame()
        # a copy: JAX may go on reading what a callback returned
        return self._whole.reshape(*leading, self._whole.shape[1]).copy()

    def _keep_frame(self) -> None:
        assert self.frames is not None
        try:
            frame = (
                self._local.render(0)
                if self._local
                else self._workers[0].call("render", self.config.timeout, 0)
            )
        except Exception as error:
            self._fail(HostError(f"{self.name}: the environment cannot draw itself: {error}"))
        if frame is None:
            self._fail(HostError(f"{self.name}: this environment draws no picture of itself."))
        self.frames[int(self._token[0])] = frame

    def _guard(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _fail(self, error: HostError) -> None:
        self.failure = error
        for w in self._workers:
            w.kill()
        self.close()
        raise error

    def _all(self, name: str) -> None:
        """Carry out one command in every slot. Raises HostError."""
        if self._local is not None:
            try:
                getattr(self._local, name)()
            except hosted.SlotError as error:
                self._fail(self._explained(error.facts))
            return
        self._ask_all(name)

    def _ask_all(self, name: str, *args: Any, layout: Any = None) -> None:
        """One command to all workers (`open` with the slots of each), and their answers within one time limit."""
        try:
            for w in self._workers:
                w.ask(name, *args, *([] if layout is None else [w.slots, layout]))
            deadline = time.monotonic() + self.config.timeout
            for w in self._workers:
                w.answer(name, max(0.0, deadline - time.monotonic()), self.config.timeout)
        except WorkerError as error:
            self._fail(
                self._explained(error.facts) if error.facts else HostError(f"{self.name}: {error}")
            )

    def _explained(self, facts: dict[str, Any]) -> HostError:
        where = "" if facts["slot"] is None else (
            f" in environment {facts['slot']} (episode {facts['episode']} of it, seed {facts['seed']}, "
            f"step {facts['step']})"
        )  # fmt: skip
        lines = f"\n{facts['traceback'].rstrip()}" if facts["traceback"] else ""
        return HostError(
            f"{self.name}: {facts['error']}, raised by {facts['doing']}{where}, process {facts['pid']}.{lines}"
        )

    def _describe(self) -> dict[str, Any]:
        try:
            if self.config.workers == 0:
                return hosted.Server(-1).describe(self.target, self.kwargs)
            probe = Worker(self.config.python, None, range(0))
            try:
                return probe.call("describe", self.config.timeout, self.target, self.kwargs)
            finally:
                probe.ask("quit")
                probe.end(time.monotonic() + QUIT_SECONDS)
        except WorkerError as error:
            facts = error.facts or {"error": str(error), "missing": None}
            raise self._refused(facts["error"], facts["missing"]) from error
        except Exception as error:
            raise self._refused(hosted.words_of(error), hosted.missing_module(error)) from error

    def _refused(self, words: str, missing: str | None) -> RefusedError:
        """What the user reads. A remedy is named only for a module that is not there."""
        asked = f"{self.asked}: " if self.asked else ""
        text = f"{asked}{self.name} cannot be made: {words.rstrip('.')}."
        if missing is None:
            return RefusedError(text)
        where = f" for {self.config.python}" if self.config.python else ""
        if self.install.brings(missing):
            return RefusedError(f"{text} Remedy{where}: {self.install.how}")
        if "." in missing:  # the package is there, and has no such part
            return RefusedError(text)
        return RefusedError(
            f"{text} Remedy{where}: pip install the package that has the module {missing}, or add its folder to "
            "PYTHONPATH"
        )

    def _open(self, slots: int) -> None:
        """Make room for so many slots, in this process or in workers."""
        self.close()
        layout, common = hosted.layout_of(self.about, slots), (self.target, self.kwargs, self.about)
        if self.config.workers == 0:
            self._arrays = hosted.arrays_in(bytearray(hosted.size_of(layout)), layout)
            self._local = hosted.Slots(*common, range(slots), self._arrays)
        else:
            count = os.cpu_count() or 1 if self.config.workers == -1 else self.config.workers
            try:
                with _memory(hosted.size_of(layout)) as file:
                    for share in np.array_split(np.arange(slots), min(count, slots)):
                        self._workers.append(Worker(self.config.python, file.fileno(), share))
                    self._arrays = hosted.arrays_in(
                        mmap.mmap(file.fileno(), hosted.size_of(layout)), layout
                    )
            except OSError as error:  # no more processes, files or memory
                self._fail(HostError(f"{self.name}: workers cannot be started: {error}"))
            self._ask_all("open", *common, layout=layout)
        self._whole = self._arrays["block"].view(np.int32)
        self._token = self._whole[:, 0]
        where = hosted.Columns(self.about).slices
        self._ends = self._arrays["block"][:, where["terminated"].start : where["truncated"].stop]


def _memory(size: int) -> Any:
    """A file without a name, in memory where there is room: nothing is left of it when all have closed it.

    Its bytes are reserved at once: a full file system would otherwise end a process by SIGBUS when it writes there.
    Raises OSError, with one sentence, if there is room in neither place.
    """
    reasons = []
    for folder in (MEMORY, tempfile.gettempdir()):
        try:
            file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        except OSError as error:
            reasons.append(f"{folder} ({error.strerror or error})")
            continue
        try:
            _reserve(file, size)
            return file
        except OSError as error:
            file.close()
            reasons.append(f"{folder} ({error.strerror or error})")
    raise OSError(
        f"there is no room for {size:,} bytes that they share, neither in {' nor in '.join(reasons)}; free some space "
        "there, set TMPDIR to a folder that has some, or use env.workers=0"
    )


def _reserve(file: Any, size: int) -> None:
    """Give a file so many bytes. Raises OSError if there is no room for them."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.write(bytes(size))
        file.flush()


class WorkerError(Exception):
    """A worker failed: its own account of it (`facts`), or what is known of its end."""

    def __init__(self, message: str, facts: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.facts = facts


def _are_facts(value: Any) -> bool:
    """Whether this is a worker's account of an error."""
    return (
        isinstance(value, dict)
        and value.keys() == set(hosted.FACTS)
        and isinstance(value["traceback"], str)
    )


class Worker:
    """One worker process and the socket to it."""

    def __init__(self, python: str, memory: int | None, slots: Any) -> None:
        self.slots = [int(s) for s in slots]
        ours, theirs = socket.socketpair()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        lifeline, self._lifeline = os.pipe()
        inherited = [theirs.fileno(), lifeline, *([] if memory is None else [memory])]
        arguments = [theirs.fileno(), -1 if memory is None else memory, lifeline]
        self.process = subprocess.Popen(
            [python or sys.executable, "-c", BOOT, str(HOSTED / "worker.py"), *map(str, arguments)],
            pass_fds=inherited, stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT,
            start_new_session=True,  # so that a game which the worker has started can be killed with it
        )  # fmt: skip
        theirs.close()
        os.close(lifeline)
        self._connection = connection.Connection(ours.detach())

    def ask(self, name: str, *args: Any) -> None:
        """Send a command. A dead worker is noticed when it is asked for its answer."""
        if os.fstat(self._output.fileno()).st_size > MOST_OUTPUT:
            self._output.truncate(0)
        with suppress(OSError):
            self._connection.send_bytes(messages.encode(name, list(args) or None))

    def answer(self, doing: str, timeout: float, limit: float | None = None) -> Any:
        """The answer to the last command, within `timeout` seconds of a `limit`. Raises WorkerError."""
        limit = timeout if limit is None else limit
        try:
            if not self._connection.poll(timeout):
                self.kill()
                raise WorkerError(
                    f"worker process {self.process.pid} gave no answer to {doing} within env.timeout={limit:g} seconds "
                    f"and was killed; it held environments {self._range()}. If it is only slow, raise "
                    f"env.timeout.{self._words()}"
                )
            kind, value = messages.decode(self._connection.recv_bytes(MOST_REPLY))
            if kind not in ("ok", "error") or (kind == "error" and not _are_facts(value)):
                raise messages.MessageError(f"a message of kind {kind!r}")
        except (EOFError, OSError) as error:
            raise WorkerError(self._obituary(doing)) from error
        except messages.MessageError as error:
            self.kill()
            raise WorkerError(
                f"worker process {self.process.pid} answered {doing} with what is no answer ({error}) and was killed"
            ) from error
        if kind == "error":
            raise WorkerError(str(value["error"]), value)
        return value

    def call(self, name: str, timeout: float, *args: Any) -> Any:
        """`ask` and `answer`."""
        self.ask(name, *args)
        return self.answer(name, timeout)

    def kill(self) -> None:
        """End it now, with the games that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def end(self, deadline: float) -> None:
        """Wait for it to close its environments, but not past the deadline; then kill what is left of it."""
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
            f"worker process {self.process.pid} died ({how}) during {doing}; it held environments {self._range()}."
            f"{self._words()}"
        )

    def _words(self) -> str:
        self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, self._output.tell() - OUTPUT_BYTES))
        text = self._output.read().decode(errors="replace").strip()
        return f" Its last output:\n{text}" if text else ""

"""How long a start takes, in fresh processes: to the main job's first update, `import jaxshare`, `jaxshare.list`.

    python benchmarks/startup.py            four lines beside their aims, and where the time of the main job goes
    python benchmarks/startup.py --save     also benchmarks/results/startup.json

Cold is preset=main_job with an empty compilation cache in a temporary folder, warm the same job again in a new run
directory with what the first has left there; both run to the end of their first chunk. They start as a command does,
which keeps whole compiled programs. Where the time goes is of two more starts, as of a script: it has JAX's own cache
alone, traces and lowers anew, and can be timed part by part. Every time is counted from just before the process is
started, and the short commands are medians. The load of the machine is printed, because these numbers mean little
beside other work.

The first update is inside the first chunk, which is one program of several iterations; Python hears of it when the
chunk is done. What is reported as `first update` is when the first iteration of that chunk ended: the chunk's start
plus an equal share of its running time for each iteration, an estimate. By then the other updates of the iteration are
made too. When the whole chunk was handed back, which is measured and not shared out, stands beside it.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

OUT = pathlib.Path(__file__).parent / "results" / "startup.json"
AIMS = {"cold": 25.0, "warm": 4.0, "import": 1.0, "list": 3.0}  # seconds
LABELS = {
    "cold": "main job to its first update, nothing kept",
    "warm": "main job to its first update, again",
    "import": "import jaxshare",
    "list": "python -m jaxshare.list",
}
COMMANDS = {"import": ["-c", "import jaxshare"], "list": ["-m", "jaxshare.list"]}
NAMES = {"_new_learner": "init"}  # of the functions that a fleet lifts
JOB = "preset=main_job"
COMMAND, SCRIPT = "as a command", "as a script"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="runs of the short commands (default %(default)s)")
    parser.add_argument("--save", action="store_true", help=f"write {OUT.name} into benchmarks/results")
    parser.add_argument("--child", nargs=3, metavar=("STARTED", "RUN_DIR", "KIND"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        started, run_dir, kind = options.child
        (child_command if kind == COMMAND else child_script)(float(started), run_dir)
        return
    import _common

    found: dict[str, Any] = {"machine": _common.machine(), "load_before": os.getloadavg()[0], "job": JOB}
    print(f"{found['machine']}; load {found['load_before']:.1f}")
    found["seconds"] = seconds = {name: command(COMMANDS[name], options.repeats) for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for kind in (COMMAND, SCRIPT):
            for name in ("cold", "warm"):
                found[f"{name}, {kind}"] = start(pathlib.Path(folder, kind), name, kind)
    for name in ("cold", "warm"):
        seconds[name] = found[f"{name}, {COMMAND}"]["first_update"]
    found["load_after"] = os.getloadavg()[0]
    for name, aim in AIMS.items():
        met = "met" if seconds[name] <= aim else "not met"
        print(f"{LABELS[name]:<44} aim {aim:5.1f} s   measured {seconds[name]:7.2f} s   {met}")
    for name in ("cold", "warm"):
        one = found[f"{name}, {COMMAND}"]
        print(f"\n{name}, {COMMAND}: chunk of {one['iterations']} iterations, to its end {one['first_chunk']:.2f} s, "
              f"{one['cpu_seconds']:.2f} s of all cores")  # fmt: skip
        print(f"{name}, {SCRIPT}\n" + "\n".join(lines(found[f"{name}, {SCRIPT}"])))
    print(f"load {found['load_after']:.1f}")
    if options.save:
        OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def command(arguments: list[str], repeats: int) -> float:
    """Median wall-clock seconds of a Python process."""
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - begun)
    return sorted(times)[len(times) // 2]


def start(folder: pathlib.Path, name: str, kind: str) -> dict[str, Any]:
    """One start of the main job; the cache is the folder's."""
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
    arguments = [__file__, "--child", repr(time.time()), str(folder / name), kind]
    done = subprocess.run([sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def lines(one: dict[str, Any]) -> list[str]:
    """Where the time of a start went."""
    shown = [f"  {step['step']:<30} {step['from']:7.2f} to {step['to']:7.2f} s" for step in one["steps"]]
    for name, program in one["programs"].items():
        times = ", ".join(f"{part} {value:.2f}" for part, value in program.items())
        shown.append(f"  program {name:<22} {times} s")
    shown.append(f"  other programs: {one['small_programs']}, {one['small_seconds']:.2f} s")
    shown.append(f"  compiled programs taken from the cache: {one['cache_hits']}")
    shown.append(f"  seconds of all cores to the end of the first chunk: {one['cpu_seconds']:.2f}")
    iterations = f"{one['iterations']} iterations, {one['updates']} updates"
    shown.append(f"  first update {one['first_update']:.2f} s; chunk of {iterations}: {one['first_chunk']:.2f} s")
    return shown


# ------------------------------------------------------------------------------------------------------ in the process


class Watch:
    """What happened when, in seconds from the start of the process."""

    def __init__(self, started: float) -> None:
        self._started = started
        self.steps: list[dict[str, Any]] = []
        self.programs: dict[str, dict[str, float]] = {}
        self.small: list[float] = []  # programs compiled outside the lifted ones, seconds each
        self.inside = False
        self.cache_hits = 0

    @property
    def now(self) -> float:
        """Seconds so far."""
        return time.time() - self._started

    def step(self, name: str, begun: float) -> None:
        """Note a step that ends now."""
        self.steps.append({"step": name, "from": begun, "to": self.now})

    def add(self, phases: Any) -> None:
        """Note the phases of a run as steps."""
        for phase in phases:
            begun = phase.begun - self._started
            self.steps.append({"step": phase.name, "from": begun, "to": phase.ended - self._started})

    def listen(self) -> None:
        """Note what JAX says about compiling."""
        from jax import monitoring

        def timed(event: str, duration_secs: float, **_: Any) -> None:
            if event.endswith("backend_compile_duration") and not self.inside:
                self.small.append(duration_secs)

        def noted(event: str, **_: Any) -> None:
            self.cache_hits += event.endswith("compilation_cache/cache_hits")

        monitoring.register_event_duration_secs_listener(timed)
        monitoring.register_event_listener(noted)

    def programs_of(self, layout: Any) -> None:
        """Make `layout.lift` give functions whose first call is noted part by part."""
        original = layout.lift

        @functools.wraps(original)
        def lift(own: Any, fn: Any, *args: Any, **kwargs: Any) -> Noted:
            name = getattr(getattr(fn, "func", fn), "__name__", "")
            return Noted(self, NAMES.get(name, name), original(own, fn, *args, **kwargs))

        layout.lift = lift

    def compiled(self, name: str, function: Any, args: tuple[Any, ...]) -> Any:
        """What a first call does before it runs, one part after the other."""
        self.programs[name] = times = {}
        begun, self.inside = self.now, True
        traced = function.trace(*args)
        times["trace"], begun = self.now - begun, self.now
        lowered = traced.lower()
        times["lower"], begun = self.now - begun, self.now
        program = lowered.compile()
        times["compile"], self.inside = self.now - begun, False
        return program


class Noted:
    """A lifted function that is compiled once, ahead or in its first call, and whose first run is timed."""

    def __init__(self, watch: Watch, name: str, function: Any) -> None:
        self._watch, self._name, self._function = watch, name, function
        self._program: Any = None
        self._has_run = False

    def lower(self, *args: Any) -> Noted:
        """As of a jitted function, but all is done here: what it returns needs no more compiling."""
        self._program = self._watch.compiled(self._name, self._function, args)
        return self

    def compile(self) -> Noted:
        """See `lower`."""
        return self

    def trace(self, *args: Any) -> Any:
        """As of a jitted function."""
        return self._function.trace(*args)

    def eval_shape(self, *args: Any) -> Any:
        """As of a jitted function."""
        return self._function.eval_shape(*args)

    def __call__(self, *args: Any) -> Any:
        import jax

        if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(args)):
            return self._function(*args)
        if not self._program:
            self.lower(*args)
        if self._has_run:
            return self._program(*args)
        begun, self._has_run = self._watch.now, True
        out = jax.block_until_ready(self._program(*args))
        self._watch.programs[self._name].update({"begun": begun, "run": self._watch.now - begun})
        return out


def first_chunk(started: float) -> Any:
    """A callback: `found` is what the first chunk did and when, `phases` what the run did around it."""
    from jaxshare.run.callbacks import Callback

    class FirstChunk(Callback):
        def __init__(self) -> None:
            self.found: dict[str, Any] = {}
            self.phases: list[Any] = []

        def on_chunk(self, training: Any, chunk: Any) -> None:
            iterations = int(chunk.metrics["active"].shape[1])
            updates = int(chunk.after.updates.min())
            if not updates:
                raise SystemExit("the first chunk made no update")
            (phase,) = [phase for phase in training.timeline.phases if phase.name == "chunk"]
            self.found = {
                "updates": updates,
                "iterations": iterations,
                "first_update": phase.begun - started + (phase.ended - phase.begun) / iterations,
                "first_chunk": phase.ended - started,
                "cpu_seconds": time.process_time(),
            }

        def on_checkpoint(self, training: Any, path: Any) -> None:
            self.phases = list(training.timeline.phases)

    return FirstChunk()


def child_command(started: float, run_dir: str) -> None:
    """Start the main job as its command does, and print when the first chunk was done."""
    from jaxshare import cli
    from jaxshare.run.train import train

    callback = first_chunk(started)
    train(cli.settings([JOB, f"run_dir={run_dir}"]), max_chunks=1, at_once=True, watchers=[callback])
    print(json.dumps(callback.found))


def child_script(started: float, run_dir: str) -> None:
    """Start the main job in parts, and print what was seen as the last line."""
    watch, begun = Watch(started), 0.0
    import jax  # noqa: F401

    watch.step("python, import jax", begun)
    begun = watch.now
    from jaxshare import cli
    from jaxshare.run import parallel
    from jaxshare.run.train import train

    watch.step("import jaxshare's parts", begun)
    watch.listen()
    watch.programs_of(parallel.Layout)
    begun = watch.now
    settings = cli.settings([JOB, f"run_dir={run_dir}"])
    watch.step("settings", begun)
    callback = first_chunk(started)
    train(settings, max_chunks=1, watchers=[callback])
    watch.add(callback.phases)
    print(json.dumps({**callback.found, **report(watch)}))


def report(watch: Watch) -> dict[str, Any]:
    """What the parent shows of the parts."""
    return {
        "steps": watch.steps,
        "programs": watch.programs,
        "small_programs": len(watch.small),
        "small_seconds": sum(watch.small),
        "cache_hits": watch.cache_hits,
    }


if __name__ == "__main__":
    main()

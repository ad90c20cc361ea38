"""One run over two devices of a CPU against one: `parallel.data=2`, each device held to a core.

    python benchmarks/data_axis.py                     both cases, a line each
    python benchmarks/data_axis.py --repeats 3         quicker

Cases: one update of QMIX with 10 agents (SMAX 10m_vs_11m, 32 whole episodes), and one iteration of MAPPO (SMAX 3m, 256
environments x 32 steps, 4 epochs of 4 minibatches). Each kind of call has a process of its own, which is held to its
cores before JAX starts: `one core` has one device on one core, `one device` one that may use both cores, `two devices`
one on each core. The processes take turns, so that never two compute at a time; medians count. These have the same
shards, so they compute the same. `two halves` is the limit: half of the work in each of two processes at once, a core
each, which exchange nothing.

The bytes are those of every array that the program's collectives sum up or gather, each counted once: of QMIX that is
an update, of MAPPO one optimiser step and what an iteration adds to it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import _common
import jax
import jax.numpy as jnp

from jaxshare.training.updating import Learning
from jaxshare.trees import Tree
from jaxshare.types import Clock, HParams, TrainState

SHARDS = 2
UPDATES = 2  # of one call, in a scan as in training
KINDS = {"one core": (1, slice(1)), "one device": (1, slice(2)), "two devices": (2, slice(2))}  # devices, cores
HALVES = {"half": (1, slice(1)), "other half": (1, slice(1, 2))}
LIMIT = "two halves"
COMMON = ["progress=false", "env=smax", f"parallel.shards={SHARDS}", "total_env_steps=1000000"]
HALVED = ("num_envs", "batch_size")
CASES = {
    "QMIX update, 10 agents": [
        "algo=qmix", "env.scenario=10m_vs_11m", "num_envs=16", "batch_size=32", "replay.capacity=64",
    ],
    "MAPPO iteration, 256 environments": [
        "algo=mappo", "env.scenario=3m", "num_envs=256", "algo.segment_length=32", "algo.epochs=4",
        "algo.minibatches=4",
    ],
}  # fmt: skip
COLLECTIVE = re.compile(r"= (.*?) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(")
ARRAY = re.compile(r"([a-z]+)(\d+)?\[([\d,]*)\]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20, help="timed calls of each (default %(default)s)")
    parser.add_argument("--case", choices=tuple(CASES), help=argparse.SUPPRESS)
    parser.add_argument("--kind", choices=(*KINDS, *HALVES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kind:
        serve(options.case, options.kind)
        return

    print(f"{_common.machine()}; load {os.getloadavg()[0]:.1f}")
    for case in CASES:
        print(row(case, measure(case, options.repeats)), flush=True)
    print(f"load {os.getloadavg()[0]:.1f}")


def row(case: str, measured: dict[str, float]) -> str:
    """A line of the table."""
    times = "   ".join(f"{kind} {measured[kind]:.3f} s" for kind in (*KINDS, LIMIT))
    two = measured["two devices"]
    ratios = f"{measured['one core'] / two:.2f} x one core, {measured['one device'] / two:.2f} x one device"
    limit = f"{LIMIT} {measured['one core'] / measured[LIMIT]:.2f} x one core"
    return f"{case:<34} {times}   two devices: {ratios}, {limit}; {measured['bytes'] / 1e3:.0f} kB between them"


# -------------------------------------------------------------------------- processes in turn


def measure(case: str, repeats: int) -> dict[str, float]:
    """Median seconds of each kind of call, and the bytes that pass between two devices."""
    command = [sys.executable, __file__, "--case", case, "--kind"]
    workers = {}
    moved = {}
    for kind in (*KINDS, *HALVES):
        # one after the other, so that none compiles while another does
        pipe = subprocess.PIPE
        workers[kind] = subprocess.Popen([*command, kind], stdin=pipe, stdout=pipe, text=True)
        moved[kind] = answer(workers[kind])["bytes"]

    # never two at a time, but for the halves
    times: dict[str, list[float]] = {kind: [] for kind in (*KINDS, LIMIT)}
    for _ in range(repeats):
        for kind in KINDS:
            times[kind].append(together(workers[kind]))
        times[LIMIT].append(together(*(workers[kind] for kind in HALVES)))
    for worker in workers.values():
        worker.communicate()
    return {"bytes": moved["two devices"], **{kind: statistics.median(each) for kind, each in times.items()}}


def together(*workers: subprocess.Popen[str]) -> float:
    """Seconds of one call in each of these workers, of the slowest."""
    for worker in workers:
        assert worker.stdin is not None
        print("go", file=worker.stdin, flush=True)
    return max(answer(worker)["seconds"] for worker in workers)


def answer(worker: subprocess.Popen[str]) -> dict[str, float]:
    """What a worker prints next, as JSON. Raises RuntimeError if it has ended."""
    assert worker.stdout is not None
    for line in worker.stdout:
        if line.startswith("{"):
            return json.loads(line)
    raise RuntimeError(f"a worker ended with status {worker.wait()}")


def serve(case: str, kind: str) -> None:
    """Compile a call and time it once for each line that comes in."""
    devices, cores = {**KINDS, **HALVES}[kind]
    usable = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, usable[cores])
    jax.config.update("jax_num_cpu_devices", devices)
    call, text = made(half(case) if kind in HALVES else [*COMMON, *CASES[case], f"parallel.data={devices}"])
    jax.block_until_ready(call())
    print(json.dumps({"bytes": bytes_between(text)}), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        jax.block_until_ready(call())
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


# ----------------------------------------------------------------------------------- the calls


def half(case: str) -> list[str]:
    """What each of two devices has of a case, as a run of its own."""
    arguments = []
    for argument in CASES[case]:
        key, _, value = argument.partition("=")
        arguments.append(f"{key}={int(value) // 2}" if key in HALVED else argument)
    return [*COMMON, *arguments, "parallel.shards=1"]


def made(arguments: list[str]) -> tuple[Callable[[], Tree], str]:
    """A call that changes nothing, and the text of its program."""
    _, program, fleet = _common.program_and_runs(arguments)
    # batches of their full length: how long the first episodes are is chance
    program = dataclasses.replace(program, crop=False)

    def update(state: TrainState, hparams: HParams, clock: Clock) -> tuple[Tree, Clock]:
        ctx = program.context(state, hparams, clock)

        def step(now: Learning, _: None) -> tuple[Learning, jax.Array]:
            now, updated = program.update(state, ctx, None, now)
            return now, updated.done

        end, _ = jax.lax.scan(step, Learning(state.learner, clock), length=UPDATES)
        return jax.tree.map(jnp.sum, end.learner.params), clock

    def iterate(state: TrainState, hparams: HParams, clock: Clock) -> tuple[Tree, Clock]:
        (state, _), clock = program.chunk(1, state, hparams, clock)
        return jax.tree.map(jnp.sum, state.learner.params), clock

    stored = program.algorithm.experience == "replay"
    lifted = fleet.layout.lift(update if stored else iterate, donate=False)
    assert isinstance(lifted, jax.stages.Wrapped)
    started = (fleet.states[0], fleet.hparams[0], fleet.clock)
    compiled = lifted.lower(*started).compile()
    return lambda: compiled(*started), compiled.as_text() or ""


def bytes_between(text: str) -> int:
    """Bytes of the arrays that the collectives of a program return."""
    total = 0
    for match in map(COLLECTIVE.search, text.splitlines()):
        for _, bits, sizes in ARRAY.findall(match[1]) if match else []:
            count = 1
            for size in filter(None, sizes.split(",")):
                count *= int(size)
            total += count * int(bits or 8) // 8
    return total


if __name__ == "__main__":
    main()

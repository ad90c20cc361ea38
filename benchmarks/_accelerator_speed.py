"""The part `speed` of accelerator.py: learners, tasks and numbers of seeds, each in a process of its own.

A process compiles, says so, and waits until it is told to measure: some compile at a time, and only when the last of
them is ready are they measured, one after the other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import resource
import subprocess
import sys
import threading
import time
from typing import Any

import _common
import jax
import jax.numpy as jnp
from _accelerator_parts import LEARNERS, PRODUCTS, SMALL, TINY

from jaxshare.run.advance import Pure
from jaxshare.run.fleet import Fleet
from jaxshare.training.program import Program
from jaxshare.trees import Tree
from jaxshare.types import Clock, Context, HParams, TimeStep, TrainState

Row = dict[str, Any]

TASKS = {
    "SMAX 3m": ("env=smax", "env.scenario=3m"),
    "LBF": ("env=lbf", "env.scenario=8x8-2p-3f"),
}
SEEDS = (1, 32, 8, 64)  # what matters most comes first
CAPACITY = 1000  # episodes of each seed's replay: 64 seeds of 5000 would take 40 GB on 3m
LONG = ("total_env_steps=1000000000",)  # nothing is learned beyond
ROLLOUTS = 8  # of a call with random actions
MOST_AT_A_TIME = 8  # processes; each has its programs on the device
MEASURE_S = 3.0  # of training, and a third of that of the environment alone
RESERVE_S = 6.0  # kept for measuring each cell when time runs out
ANSWER_S = 60.0  # the most that measuring may take beyond that


@dataclasses.dataclass(frozen=True)
class Cell:
    """What is measured at once."""

    learner: str
    task: str
    seeds: int
    small: bool
    products: str = "float32"

    @property
    def arguments(self) -> list[str]:
        """The settings of its runs."""
        layout = (f"seeds={self.seeds}", "parallel.strategy=vmap", "parallel.devices=1")
        if self.small:
            return [*SMALL[self.learner], *TINY, *layout]
        replay = (f"replay.capacity={CAPACITY}",) if "QMIX" in self.learner else ()
        return [
            *LEARNERS[self.learner],
            *TASKS[self.task],
            "progress=false",
            *replay,
            *layout,
            *LONG,
            *PRODUCTS[self.products],
        ]


def cells(small: bool) -> list[Cell]:
    """All of them, those that matter most first."""
    if small:
        return [Cell("VDN", "two steps", 2, True)]
    by_seeds = [Cell(learner, task, seeds, False) for seeds in SEEDS for task in TASKS for learner in LEARNERS]
    other_products = [Cell("QMIX", "SMAX 3m", 32, False, products) for products in PRODUCTS if products != "float32"]
    # beside the same with float32
    after = by_seeds.index(Cell("IPPO", "LBF", 32, False)) + 1
    return [*by_seeds[:after], *other_products, *by_seeds[after:]]


def measured(small: bool, limit: float, environment: dict[str, str]) -> tuple[str, list[Row]]:
    """("finished" or what is missing, rows), within `limit` seconds."""
    end = time.monotonic() + limit
    left = cells(small)
    rows: list[Row] = []
    missing: list[str] = []
    size = max(1, min(MOST_AT_A_TIME, (os.cpu_count() or 1) // 2))
    # processes share the device
    environment = {**environment, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    while left:
        batch, left = left[:size], left[size:]
        if time.monotonic() >= end:
            missing.extend(map(name_of, batch))
            continue
        for cell, row in together(batch, end, environment):
            if row:
                print(f"{row['what']}: {row['measured']}", flush=True)
                rows.append(row)
            else:
                missing.append(name_of(cell))
    return f"not measured in {limit:.0f} s: {'; '.join(missing)}" if missing else "finished", rows


def name_of(cell: Cell) -> str:
    """For people."""
    products = "" if cell.products == "float32" else f", products in {cell.products}"
    return f"{cell.learner}, {cell.task}, {cell.seeds} seed{'s' if cell.seeds > 1 else ''}{products}"


def together(batch: list[Cell], end: float, environment: dict[str, str]) -> list[tuple[Cell, Row | None]]:
    """Cells that compile at the same time and are measured one after another; None: not in time, or it failed."""
    workers = [Worker(cell, environment) for cell in batch]
    try:
        # those that are ready by then can still be measured
        left = end - time.monotonic()
        until = end - min(left / 2, len(batch) * RESERVE_S)
        ready = [worker.answer(until - time.monotonic()) for worker in workers]
        results: list[tuple[Cell, Row | None]] = []
        for worker, compiled in zip(workers, ready, strict=True):
            row = None
            limit = min(end - time.monotonic(), MEASURE_S + ANSWER_S)
            if compiled and limit > 0:
                worker.go()
                row = worker.answer(limit)
            # its memory is free before the next is measured
            worker.close()
            results.append((worker.cell, row_of(worker.cell, {**compiled, **row}) if compiled and row else None))
        return results
    finally:
        for worker in workers:
            worker.close()


def row_of(cell: Cell, figures: dict[str, float]) -> Row:
    """A line of the table."""
    measured = (
        f"{figures['env_steps_per_s']:,.0f} steps/s, {figures['updates_per_s']:,.1f} updates/s; "
        f"environment {100 * figures['environment_share']:.0f} % of the time; "
        f"compiled in {figures['compile_seconds']:.0f} s; memory {figures['peak_mb']:,.0f} MB"
    )
    return {
        "what": name_of(cell),
        "measured": measured,
        **dataclasses.asdict(cell),
        **figures,
    }


class Worker:
    """A process that measures one cell."""

    def __init__(self, cell: Cell, environment: dict[str, str]) -> None:
        self.cell = cell
        pipe = subprocess.PIPE
        command = [sys.executable, __file__, json.dumps(dataclasses.asdict(cell))]
        self._process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)
        self._answers: queue.Queue[Row | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                self._answers.put(json.loads(line))
        self._answers.put(None)  # it has ended

    def answer(self, limit: float) -> Row | None:
        """What it says next; None if it has ended, or says nothing in time."""
        try:
            return self._answers.get(timeout=max(limit, 0.0))
        except queue.Empty:
            return None

    def go(self) -> None:
        """Tell it to measure."""
        assert self._process.stdin is not None
        # where it has ended its answer says so
        with contextlib.suppress(BrokenPipeError):
            print("go", file=self._process.stdin, flush=True)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


# ----------------------------------------------------------------------------- in that process


def serve(cell: Cell) -> None:
    """Compile, say so, and measure when told to."""
    _, program, fleet = _common.not_started(cell.arguments)
    fleet.init()
    arguments = (fleet.states[0], fleet.hparams[0], fleet.clock)
    start = time.perf_counter()
    advance = fleet.advance
    assert isinstance(advance, Pure)
    advance.compile(lambda: arguments)
    compiled = time.perf_counter() - start
    lifted = fleet.layout.lift(environment_alone(program), donate=False)
    assert isinstance(lifted, jax.stages.Wrapped)
    alone = lifted.lower(*arguments).compile()
    print(json.dumps({"compile_seconds": compiled}), flush=True)
    if not sys.stdin.readline():
        return

    # training: what its first chunk took is not counted
    seconds = 0.1 if cell.small else MEASURE_S
    fleet.prefill()
    trained = rates(fleet, seconds)
    peak = peak_mb()

    # and its environments with random actions
    steps, start = 0.0, time.perf_counter()
    while time.perf_counter() - start < seconds / 3:
        (taken, _), _ = alone(fleet.states[0], fleet.hparams[0], fleet.clock)
        steps += float(taken.sum())
    only = steps / (time.perf_counter() - start)
    share = trained["env_steps_per_s"] / only
    print(json.dumps({**trained, "environment_steps_per_s": only, "environment_share": share, "peak_mb": peak}))


def rates(fleet: Fleet, seconds: float) -> dict[str, float]:
    """Environment steps and updates of all seeds per second of training."""
    fleet.chunk()
    steps, updates = fleet.env_steps.sum(), fleet.updates.sum()
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        fleet.chunk()
        jax.block_until_ready(fleet.states)
    wall = time.perf_counter() - start
    return {
        "env_steps_per_s": float(fleet.env_steps.sum() - steps) / wall,
        "updates_per_s": float(fleet.updates.sum() - updates) / wall,
    }


def environment_alone(program: Program) -> Any:
    """(state, hparams, clock) -> ((steps taken with random available actions, a sum), clock), of one run."""

    def act(params: Tree, memory: Tree, now: TimeStep, ctx: Context, key: jax.Array, explore: bool) -> Any:
        action = jax.random.categorical(key, jnp.where(now.avail, 0.0, -jnp.inf)).astype(jnp.int32)
        return memory, action, {}

    algorithm = dataclasses.replace(program.algorithm, act=act)
    player = dataclasses.replace(program, algorithm=algorithm)

    def play(state: TrainState, hparams: HParams, clock: Clock) -> tuple[Tree, Clock]:
        def rollout(streams: Tree, iteration: jax.Array) -> tuple[Tree, Tree]:
            now = clock._replace(iteration=clock.iteration + iteration)
            collected = player.explore(state.replace(streams=streams), hparams, now)
            # of everything, or what nobody asks for would not be computed
            sums = [x.sum(dtype=jnp.float32) for x in jax.tree.leaves(collected.batch)]
            return collected.streams, (collected.batch.mask.sum(), sum(sums))

        _, (steps, sums) = jax.lax.scan(rollout, state.streams, jnp.arange(ROLLOUTS))
        return (steps.sum(), sums.sum()), clock

    return play


def peak_mb() -> float:
    """The most memory in use so far: of the device, on a CPU of this process."""
    stats = jax.devices()[0].memory_stats() or {}
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return stats.get("peak_bytes_in_use", resident) / 1e6


if __name__ == "__main__":
    serve(Cell(**json.loads(sys.argv[1])))

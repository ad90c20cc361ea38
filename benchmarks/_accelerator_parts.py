"""The parts of accelerator.py that are one process each: what is here, losses, the sum-tree, seconds to a win rate.

    python benchmarks/_accelerator_parts.py FILE PART [0 or 1, for small]

Each row is appended to FILE as a line of JSON as soon as it is known: {"what", "measured", and the figures}.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import _common
import jax
import jax.numpy as jnp
import numpy as np

from jaxshare import cli
from jaxshare.run import build
from jaxshare.training.counting import start_clock
from jaxshare.training.program import Program
from jaxshare.training.updating import Learning
from jaxshare.trees import Tree

Row = dict[str, Any]
Numbers = dict[str, Any]  # arrays of numpy or JAX

TINY = ("env=matrix", "env.game=two_step", "algo.hidden_dim=8", "num_envs=4", "eval.episodes=4", "eval.every=16",
        "progress=false")  # fmt: skip
SMALL = {"VDN": ("algo=vdn", "batch_size=4", "replay.capacity=16"), "IAC": ("algo=iac",)}
LEARNERS = {
    "QMIX": ("algo=qmix",),
    "QMIX + DIFFER": ("algo=qmix", "modifiers=[differ]"),
    "SEAC": ("algo=seac",),
    "IPPO": ("algo=ippo",),
}
TASK = ("env=smax", "env.scenario=3m", "progress=false")
PRODUCTS = {  # settings of what networks multiply, by name
    "float32": (),
    "tensorfloat32": ("compute.matmul_precision=tensorfloat32",),
    "bfloat16": ("compute.dtype=bfloat16",),
}
UPDATES = 4
TOLERANCE = 1e-3  # of a loss, products in float32
SMALLEST = 1e-2  # what a loss is measured by where it is smaller: sums of either sign that nearly cancel
TARGET = 0.75  # test win rate
SEEDS = 16
TEST_EVERY = 20_000  # environment steps of each seed
SOON = (  # as in training.py
    "algo=qmix", "num_envs=16", "updates_per_episode=0.5", "algo.hparams.epsilon_anneal_steps=20000",
    "eval.episodes=128", "eval.every=1000000",
)  # fmt: skip


def main() -> None:
    """Run one part."""
    path, part, *small = sys.argv[1:]
    with open(path, "a", encoding="utf-8") as file:
        for row in PARTS[part](small == ["1"]):
            file.write(json.dumps(row) + "\n")
            file.flush()
            if "what" in row:
                print(f"{row['what']}: {row['measured']}", flush=True)


# --------------------------------------------------------------------------------- what is here


def about(small: bool) -> Iterator[Row]:
    """The machine, and the versions on it."""
    device = jax.devices()[0]
    yield {
        "platform": device.platform,
        "device": device.device_kind,
        "backend": device.client.platform_version,
        "processor": processor(),
        "machine": _common.machine(),
    }


def processor() -> str:
    """The name of the CPU."""
    path = pathlib.Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# --------------------------------------------------------------------------------------- losses


@dataclasses.dataclass(frozen=True)
class Case:
    """A few updates of a learner, and the state and data that they start from, (state, collected, clock, hparams)."""

    begin: Callable[[], Tree]
    updates: Callable[..., tuple[Tree, Numbers]]


def losses(small: bool) -> Iterator[Row]:
    """The learners' losses on the device against those on the CPU."""
    host = jax.devices("cpu")[0]
    device = jax.devices()[0]
    ways = {"CPU": (host, ()), **{way: (device, settings) for way, settings in PRODUCTS.items()}}
    names = tuple(LEARNERS)
    if small:
        names = ("VDN",)
        ways = {way: ways[way] for way in ("CPU", "float32")}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        compiling = {}
        for name in names:
            with jax.default_device(host):
                start = jax.jit(case_of(name, small).begin)()
            # one compiles while the next is traced
            for way, (where, settings) in ways.items():
                arguments = jax.device_put(start, where)
                lowered = jax.jit(case_of(name, small, settings).updates).lower(*arguments)
                compiling[name, way] = pool.submit(lowered.compile), arguments
        for name in names:
            results = {}
            for way in ways:
                compiled, arguments = compiling[name, way]
                results[way] = jax.device_get(compiled.result()(*arguments))
            yield from compared(name, results)


def case_of(name: str, small: bool, settings: tuple[str, ...] = ()) -> Case:
    """The case of a learner: its first data, and UPDATES updates on it."""
    chosen = (*SMALL[name], *TINY) if small else (*LEARNERS[name], *TASK)
    program = build.prepare(cli.settings([*chosen, *settings]))
    program = dataclasses.replace(program, crop=False)
    stored = program.algorithm.experience == "replay"
    hparams = {key: jnp.float32(value) for key, value in program.algorithm.hparams.items()}

    def begin() -> Tree:
        state = program.init(jnp.int32(0))
        state, clock = program.prefill(state, hparams, start_clock())
        return state, None if stored else program.explore(state, hparams, clock), clock, hparams

    return Case(begin, updates_of(program, stored))


def updates_of(program: Program, stored: bool) -> Callable[..., tuple[Tree, Numbers]]:
    """(state, collected, clock, hparams) -> parameters after UPDATES updates, losses [UPDATES, ...]."""

    def updates(state: Tree, collected: Tree, clock: Tree, hparams: Tree) -> tuple[Tree, Numbers]:
        ctx = program.context(state, hparams, clock)

        def step(now: Learning, _: None) -> tuple[Learning, Numbers]:
            if stored:
                now, updated = program.update(state, ctx, None, now)
            else:
                now, updated = program.update_now(state, collected, now, ctx)
            return now, {key: x for key, x in updated.metrics.items() if key.startswith("loss/")}

        end, numbers = jax.lax.scan(step, Learning(state.learner, clock), length=UPDATES)
        return end.learner.params, numbers

    return updates


def compared(name: str, results: dict[str, tuple[Tree, Numbers]]) -> Iterator[Row]:
    """A row for each precision."""
    params, numbers = results.pop("CPU")
    for way, (other_params, others) in results.items():
        difference = largest_difference(numbers, others)
        moved = jax.tree.map(lambda x, y: float(np.abs(x - y).max()), params, other_params)
        furthest = max(jax.tree.leaves(moved))
        agrees = difference <= TOLERANCE
        aim = f", {'as' if agrees else '**not** as'} the CPU to {TOLERANCE:g}" if way == "float32" else ""
        yield {
            "what": f"{name}, losses of {UPDATES} updates, products in {way}",
            "measured": f"differ by {difference:.1e}{aim}; parameters by {furthest:.1e} at most",
            "difference": difference,
            "parameters": furthest,
            "agrees": agrees if way == "float32" else None,
            "losses": {key: np.ravel(x).tolist() for key, x in others.items()},
        }


def largest_difference(numbers: Numbers, others: Numbers) -> float:
    """Of any loss, over its largest value or SMALLEST; inf where one is no number."""
    differences = []
    for key, x in numbers.items():
        ratio = np.abs(x - others[key]).max() / max(np.abs(x).max(), SMALLEST)
        differences.append(ratio if np.isfinite(ratio) else np.inf)
    return float(max(differences))


# ------------------------------------------------------------------------------------- sum-tree


def tree(small: bool) -> Iterator[Row]:
    """Our setter and sampler against flashbax's, one tree and several under vmap."""
    import sum_tree  # needs flashbax, which is of the extra `bench`

    cells = ((64, 8),) if small else ((10**3, 32), (10**5, 256), (10**6, 256))
    repeats, calls = (1, 1) if small else (5, 10)

    def clock(timed: dict[str, sum_tree.Call]) -> dict[str, float]:
        return sum_tree.in_turns(timed, repeats, calls)

    for leaves, batch in cells:
        for count in (1,) if small else (1, sum_tree.MAPPED):
            for cell in sum_tree.bench_set_and_sample(leaves, batch, clock, count):
                micros = cell["us"]
                rival = f"{cell['best_rival']} {micros[cell['best_rival']]:.0f} µs"
                yield {
                    **cell,
                    "what": f"sum-tree, {cell['what']} {batch} of {leaves:,} leaves",
                    "measured": f"{micros['ours']:.0f} µs, {rival}: {cell['ratio']:.2f} of its time",
                }


# ---------------------------------------------------------------------------------- to win rate


def win(small: bool) -> Iterator[Row]:
    """Seconds until the mean test score of all seeds is the target; a row for each test."""
    seeds, every = (2, 16) if small else (SEEDS, TEST_EVERY)
    # a game of two steps has no battles: its first test reaches a return of 0
    score, target = ("return", 0.0) if small else ("win_rate", TARGET)
    chosen = (*SMALL["VDN"], *TINY) if small else (*SOON, *TASK)
    layout = (f"seeds={seeds}", "parallel.strategy=vmap", "parallel.devices=1")
    start = time.perf_counter()
    _, _, fleet = _common.not_started([*chosen, *layout])
    fleet.compile()
    compiled = time.perf_counter() - start
    fleet.start()

    # learn, and test every so many steps; tests do not count
    trained, due, reached = 0.0, 0, False
    while not reached:
        start = time.perf_counter()
        fleet.chunk()
        jax.block_until_ready(fleet.states)
        trained += time.perf_counter() - start
        steps = int(fleet.env_steps.min())
        if steps < due:
            continue
        due = steps + every
        scores = fleet.evaluate()[score]
        reached = bool(scores.mean() >= target)
        won = f"{'reached' if reached else 'not yet'}: {score} {scores.mean():.3f}"
        yield {
            "what": f"{seeds} seeds to a mean test {score} of {target}",
            "measured": f"{won} after {trained:.1f} s of training, {steps:,} steps; compiling {compiled:.0f} s",
            "reached": reached,
            "seconds": trained,
            "env_steps": steps,
            "compile_seconds": compiled,
            "scores": scores.tolist(),
        }


PARTS = {"about": about, "losses": losses, "tree": tree, "win": win}

if __name__ == "__main__":
    main()

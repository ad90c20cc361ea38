"""An update of each algorithm against the same update as it was at another commit, in one process.

    python benchmarks/updates.py COMMIT                       all algorithms, one table
    python benchmarks/updates.py COMMIT qmix maa2c            those
    python benchmarks/updates.py COMMIT --save                also benchmarks/results/updates.json

Both make the same update from the same state and data: algorithms that play, three iterations of a whole program
(play, store, draw, learn) on MPE's spread; calls alternate and medians count. What is
compiled is timed as well, each in turn, without any cache of compiled programs.

What the compiler made of both is compared, too: the operations of the compiled programs with their shapes, in their
order. Where they are the same, so is the speed, and what the times differ by is the machine's noise.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import pathlib
import re
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import _common
import jax
import jax.numpy as jnp
from _before import Before

ITERATIONS = 3
ALGORITHMS = ("qmix", "differ", "qplex", "maddpg", "iac", "seac", "maa2c", "mappo")
OUT = pathlib.Path(__file__).parent / "results" / "updates.json"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", help="what it was before")
    parser.add_argument("algorithms", nargs="*", default=list(ALGORITHMS), help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=15, help="timed calls of each (default %(default)s)")
    parser.add_argument("--save", action="store_true", help=f"write {OUT.name} into benchmarks/results")
    options = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    before = Before(options.commit)
    print(f"{'algorithm':10} {'now ms':>9} {'before ms':>10} {'ratio':>7} {'compile now':>12} {'before':>8}  program")
    rows = []
    for name in options.algorithms:
        row = measure(name, before, options.repeats)
        rows.append(row)
        print(
            f"{name:10} {row['now_ms']:9.1f} {row['before_ms']:10.1f} {row['now_ms'] / row['before_ms']:7.3f} "
            f"{row['now_compile_s']:12.1f} {row['before_compile_s']:8.1f}  "
            f"{row['program']}, {row['operations']} operations",
            flush=True,
        )
    if options.save:
        OUT.write_text(json.dumps({"machine": _common.machine(), "before": options.commit, "rows": rows}, indent=1))


def measure(name: str, before: Before, repeats: int) -> dict[str, Any]:
    """Milliseconds of a call and seconds of compiling, now and before."""
    now_call, now_compile, now_text = compiled(name)
    with before.active():
        before_call, before_compile, before_text = compiled(name)
    times: dict[str, list[float]] = {"now": [], "before": []}
    for _ in range(repeats):
        for key, call in (("now", now_call), ("before", before_call)):
            start = time.perf_counter()
            jax.block_until_ready(call())
            times[key].append(time.perf_counter() - start)
    return {
        "algorithm": name,
        "now_ms": 1000 * median(times["now"]),
        "before_ms": 1000 * median(times["before"]),
        "now_compile_s": now_compile,
        "before_compile_s": before_compile,
        "program": compared(operations(now_text), operations(before_text)),
        "operations": len(operations(now_text)),
    }


def compared(now: list[str], before: list[str]) -> str:
    """How two programs differ, in words."""
    if now == before:
        return "the same"
    if sorted(now) == sorted(before):
        return "the same operations in another order"
    return f"another, of {len(before)} operations before"


def operations(text: str) -> list[str]:
    """What a compiled program computes, a line each: without names, and without places in the source."""
    lines = [re.sub(r", metadata=\{[^}]*\}", "", line) for line in text.splitlines() if " = " in line]
    return [re.sub(r"%[\w.\-]+", "%", line) for line in lines]


def load(*names: str) -> Any:
    """The first of some modules that there is, of the package that is imported now."""
    for name in names:
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(f"jaxshare.{name}")
    raise ModuleNotFoundError(names)


def compiled(name: str) -> tuple[Callable[[], Any], float, str]:
    """(a call of some iterations, seconds to compile it, the compiled program)."""
    registry = load("registry")
    start_clock = load("training.counting", "runner").start_clock
    task = registry.get("env", "mpe")
    env = task.make(task.Config(scenario="spread"))
    entry = registry.get("algo", "qmix" if name == "differ" else name)
    learner = entry.make(entry.Config(), env.spec)
    if name == "differ":
        modifier = registry.get("modifiers", "differ")
        learner = modifier.make(modifier.Config(), learner)
    run = load("settings.records").RunConfig(num_envs=8, batch_size=32, total_env_steps=100_000)
    program = load("training.program", "runner").Program(env, learner.assemble(), run)
    hparams = {key: jnp.float32(value) for key, value in program.algorithm.hparams.items()}
    state, clock = jax.jit(lambda: program.prefill(program.init(jnp.int32(0)), hparams, start_clock()))()
    chunk = jax.jit(lambda state, hparams, clock: program.chunk(ITERATIONS, state, hparams, clock))
    start = time.perf_counter()
    program_of_chunk = chunk.lower(state, hparams, clock).compile()
    seconds = time.perf_counter() - start
    text = program_of_chunk.as_text() or ""
    return lambda: program_of_chunk(state, hparams, clock), seconds, text


if __name__ == "__main__":
    main()

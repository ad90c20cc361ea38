"""What packed batches save: slots computed per real transition, and the time of an update, against cut batches.

    python benchmarks/packed.py                         slots, and times at 3m's and 2s3z's sizes
    python benchmarks/packed.py --slots                 slots only, in seconds
    python benchmarks/packed.py --save                  also benchmarks/results/packed.json

Slots: steps times rows of what is computed, over the transitions in it, for batches of 32 episodes of made-up lengths:
gamma distributed with means and limits of 3m, 2s3z, MMM2 and others, of three widths (the deviation is a quarter, half
or 0.8 of the mean). Cut batches are one episode a row, as far as the first quarter of the limit that holds the longest.

Times: QMIX's `Program.update`, draws from the ring included, of the same ring with replay.packed=always and never,
in turns in one process; medians of the ratios. A call makes four updates in a scan, each of other episodes, as in
training.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import _common
import jax
import jax.numpy as jnp
import numpy as np
from learner import SHAPES, Shape

from jaxshare import cli
from jaxshare.algos import qmix
from jaxshare.settings.records import RunConfig
from jaxshare.settings.run_parts import ReplayConfig
from jaxshare.training import packing
from jaxshare.training.counting import start_clock
from jaxshare.training.program import Program
from jaxshare.training.updating import Learning
from jaxshare.types import Env, Episode, TrainState

OUT = pathlib.Path(__file__).parent / "results" / "packed.json"
BATCH = 32
UPDATES = 4  # of a call
EPISODES = 256  # in the ring
TASKS = {  # mean length and limit
    "3m": (15, 60),
    "3m, limit 100": (15, 100),
    "2s3z": (55, 120),
    "2s3z, limit 100": (68, 100),
    "MMM2": (40, 100),
    "early 3m": (25, 100),
    "nearly full": (80, 100),
}
WIDTHS = {"narrow": 16.0, "middle": 4.0, "wide": 1.5}  # shape of the gamma distribution
TIMED = {"3m": "3m, limit 100", "2s3z": "2s3z, limit 100"}  # sizes, and the lengths that SMAX's episodes have


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", action="store_true", help="no times")
    parser.add_argument("--batches", type=int, default=200, help="of each kind of lengths (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=20, help="timed calls of each (default %(default)s)")
    parser.add_argument("--save", action="store_true", help=f"write {OUT.name} into benchmarks/results")
    options = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)  # compiling is timed
    cli.run_command(lambda: measure(options))


def measure(options: argparse.Namespace) -> None:
    """Print both tables."""
    load = os.getloadavg()[0]
    found: dict[str, Any] = {"machine": _common.machine(), "menu": packing.menu(100, BATCH), "slots": [], "times": []}
    print(f"{'lengths':<18} {'':<8} {'cut':>6} {'packed':>7}   slots per real transition")
    for task in TASKS:
        for width in WIDTHS:
            found["slots"].append(row := slots(task, width, options.batches))
            print(f"{task:<18} {width:<8} {row['cut']:6.2f} {row['packed']:7.2f}", flush=True)
    for size, task in () if options.slots else TIMED.items():
        found["times"].append(row := times(size, task, options.repeats))
        print(
            f"{size}: cut {row['cut_ms']:.1f} ms, packed {row['packed_ms']:.1f} ms an update, ratio "
            f"{row['ratio']:.2f} (quartiles {row['quartiles'][0]:.2f} to {row['quartiles'][1]:.2f}); "
            f"{row['cut_slots']:.2f} and {row['packed_slots']:.2f} slots per transition; compiling "
            f"{row['cut_compile_s']:.1f} and {row['packed_compile_s']:.1f} s",
            flush=True,
        )
    found["load"] = [load, os.getloadavg()[0]]
    print(f"{found['machine']}; load before and after {load:.1f}, {found['load'][1]:.1f}")
    if options.save:
        OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------- slots


def lengths(task: str, width: str, batches: int, seed: int = 0) -> np.ndarray:
    """[batches, BATCH] i32."""
    mean, limit = TASKS[task]
    shape = WIDTHS[width]
    drawn = np.random.default_rng(seed).gamma(shape, mean / shape, (batches, BATCH))
    return np.clip(np.round(drawn), 1, limit).astype(np.int32)


def slots(task: str, width: str, batches: int) -> dict[str, Any]:
    """Slots computed per real transition, cut at quarters and packed."""
    limit = TASKS[task][1]
    drawn = lengths(task, width, batches)
    shapes = packing.menu(limit, BATCH)
    choice = np.asarray(jax.jit(jax.vmap(lambda x: packing.choose(x, shapes)[0]))(jnp.asarray(drawn)))
    quarters = np.ceil(limit * np.arange(1, 5) / 4)
    cut = quarters[np.searchsorted(quarters, drawn.max(1))] * BATCH
    packed = np.array([steps * rows for steps, rows in shapes])[choice]
    used = np.bincount(choice, minlength=len(shapes)).tolist()
    real = drawn.sum()
    return {"task": task, "width": width, "cut": cut.sum() / real, "packed": packed.sum() / real, "used": used}


# ---------------------------------------------------------------------------------------------------------- times


def times(size: str, task: str, repeats: int) -> dict[str, Any]:
    """Milliseconds of an update of both kinds, in turns."""
    shape = SHAPES[size]
    drawn = lengths(task, "middle", EPISODES // BATCH).reshape(-1)
    ring = ring_of(shape, drawn)
    calls, compiling = {}, {}
    for name, packed in (("cut", "never"), ("packed", "always")):
        calls[name], compiling[name] = updates(shape, ring, packed)
    ms: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(repeats + 2):
        for name, call in calls.items():
            seconds = _common.seconds(partial(call, i), 1)[0] / UPDATES
            if i >= 2:
                ms[name].append(1e3 * seconds)
    ratios = np.array(ms["packed"]) / np.array(ms["cut"])
    counted = slots(task, "middle", 200)
    return {
        "size": size,
        "lengths": task,
        "cut_ms": float(np.median(ms["cut"])),
        "packed_ms": float(np.median(ms["packed"])),
        "ratio": float(np.median(ratios)),
        "quartiles": np.quantile(ratios, [0.25, 0.75]).tolist(),
        "cut_slots": counted["cut"],
        "packed_slots": counted["packed"],
        "cut_compile_s": compiling["cut"],
        "packed_compile_s": compiling["packed"],
    }


def updates(shape: Shape, ring: Episode, packed: str) -> tuple[Callable[[int], Any], float]:
    """A call that makes UPDATES updates, from the one with this number on, and the seconds that it took to compile."""
    spec = shape.spec()
    run = RunConfig(batch_size=BATCH, replay=ReplayConfig(capacity=EPISODES, packed=packed))
    program = Program(Env(spec, reset=_never, step=_never), qmix.make(qmix.Config(), spec).assemble(), run)
    assert program.packs == (packed == "always")
    hparams = {name: jnp.float32(value) for name, value in program.algorithm.hparams.items()}
    zero = jnp.int32(0)

    def many(learner: Any, ring: Episode, first: jax.Array) -> Any:
        clock = start_clock()._replace(stored=jnp.int32(EPISODES), updates=first)
        state = TrainState(seed=zero, learner=learner, replay=ring, env_steps=zero, updates=zero)
        ctx = program.context(state, hparams, clock)

        def step(now: Learning, _: None) -> tuple[Learning, None]:
            return program.update(state, ctx, None, now)[0], None

        return jax.lax.scan(step, Learning(learner, clock), length=UPDATES)[0].learner

    learner = program.algorithm.init(jax.random.key(0))
    start = time.perf_counter()
    compiled = jax.jit(many).lower(learner, ring, zero).compile()
    seconds = time.perf_counter() - start
    return lambda i: compiled(learner, ring, jnp.int32(UPDATES * i)), seconds


def _never(*_: Any) -> Any:
    """Of the environment of a program that only learns."""
    raise AssertionError("nothing is played here")


def ring_of(shape: Shape, length: np.ndarray) -> Episode:
    """A ring of episodes of random numbers."""
    rng = np.random.default_rng(0)
    count, limit = len(length), shape.steps
    real = np.arange(limit)[None] < length[:, None]
    last = np.arange(limit)[None] == length[:, None] - 1
    slots = (count, limit + 1)
    return Episode(
        obs=jnp.asarray(rng.normal(size=(*slots, shape.agents, shape.obs)), jnp.float32),
        state=jnp.asarray(rng.normal(size=(*slots, shape.state)), jnp.float32),
        avail=jnp.ones((*slots, shape.agents, shape.actions), bool),
        alive=jnp.ones((*slots, shape.agents), bool),
        action=jnp.asarray(rng.integers(0, shape.actions, (count, limit, shape.agents)), jnp.uint8),
        reward=jnp.asarray(rng.normal(size=(count, limit, shape.agents)), jnp.float32),
        terminated=jnp.asarray(last),
        truncated=jnp.zeros((count, limit), bool),
        mask=jnp.asarray(real),
    )


if __name__ == "__main__":
    main()

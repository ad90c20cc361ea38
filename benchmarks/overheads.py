"""What DIFFER, QPLEX and PPS cost: time of one of their updates against one of QMIX's, in turns in one process.

    python benchmarks/overheads.py [env.scenario=3m ...]
    python benchmarks/overheads.py --json FILE          also write the figures

All learners see the same batch, unrolled over the full episode limit and over the sampled length. Four updates make a
call, in a scan as in training. PPS's agents have parameters of their own, so that its rival is QMIX with
algo.share_params=none; what happens once in `period` updates (averaging, and for rs and pp the rest) counts with that
share. PP-PPS also plays episodes with parameters of single agents then: they are timed and counted too, as in training.
The aims: DIFFER 1.05, QPLEX 1.3, PPS 1.05.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import _common
import jax
import jax.numpy as jnp
import numpy as np

from jaxshare import cli, replay
from jaxshare.types import Episode

UPDATES = 4  # of a call
SELECTIONS = ("all", "per")
ARMS = {  # rival -> what is measured against it
    ("algo=qmix",): {
        **{f"differ, select={s}": ("algo=qmix", "modifiers=[differ]", f"differ.select={s}") for s in SELECTIONS},
        "qplex": ("algo=qplex",),
    },
    ("algo=qmix", "algo.share_params=none"): {
        f"{kind}_pps": ("algo=qmix", "algo.share_params=none", f"modifiers=[{kind}_pps]") for kind in ("a", "rs", "pp")
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help="as for jaxshare.train; default: env=smax env.scenario=3m")
    parser.add_argument("--repeats", type=int, default=20, help="timed calls of each (default %(default)s)")
    parser.add_argument("--json", help="also write the figures here")
    options = parser.parse_args()
    cli.run_command(lambda: measure(options))


def measure(options: argparse.Namespace) -> None:
    task = options.settings or ["env=smax", "env.scenario=3m"]
    found: dict[str, Any] = {"machine": _common.machine(), "settings": task, "rows": []}
    settings, _, runs = _common.program_and_runs([*task, "algo=qmix", "replay.capacity=256"])
    runs.chunk()
    full = replay.gather(jax.tree.map(lambda x: x[0], runs.states[0]).replay, np.arange(settings.run.batch_size))
    longest = int(full.mask.sum(0).max())
    for steps in sorted({longest, int(full.mask.shape[0])}):
        batch = replay.crop(full, steps)
        print(f"{' '.join(task)}, batch {settings.run.batch_size} episodes of {steps} steps")
        for rival, others in ARMS.items():
            found["rows"] += compare(task, rival, others, batch, options.repeats)
    print(found["machine"])
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)


def compare(task: list[str], rival: tuple, others: dict[str, tuple], batch: Episode, repeats: int) -> list[dict]:
    """A rival and what is measured against it, in turns: ms per update and the ratio of medians."""
    name = " ".join(rival)
    calls: dict[str, Callable[[], Any]] = {}
    shares: dict[str, float] = {}
    for label, arguments in {name: rival, **others}.items():
        usual, rare, shares[label] = updates(task, arguments, batch)
        calls[label] = usual
        if rare:
            calls[f"{label}, due"] = rare
    times: dict[str, list[float]] = {label: [] for label in calls}
    for round_ in range(repeats + 2):
        for label, call in calls.items():
            seconds = _common.seconds(call, 1)[0] / UPDATES
            if round_ >= 2:
                times[label].append(seconds)
    ms = {label: 1e3 * float(np.median(values)) for label, values in times.items()}
    rows = []
    for label in (name, *others):
        # the call of what is rare makes it once among UPDATES updates
        extra = UPDATES * (ms[f"{label}, due"] - ms[label]) * shares[label] if f"{label}, due" in ms else 0.0
        row = {"learner": label, "rival": name, "steps": len(batch.mask), "ms": ms[label] + extra}
        rows.append({**row, "ratio": (ms[label] + extra) / ms[name]})
        print(f"  {label:<34} {row['ms']:8.2f} ms   {rows[-1]['ratio']:.3f}", flush=True)
    return rows


def updates(task: list[str], arguments: tuple[str, ...], batch: Episode) -> tuple[Callable, Callable | None, float]:
    """A call of UPDATES updates, one in which what is periodic is due once, and how rare that is (1 / period)."""
    settings, program, runs = _common.program_and_runs([*task, *arguments, "replay.capacity=64"])
    algorithm = program.algorithm
    hparams = {name: np.float32(value) for name, value in algorithm.hparams.items()}
    state = jax.tree.map(lambda x: x[0], runs.states[0]).replace(replay=None)
    period = next((m.period for m in settings.modifiers.values() if hasattr(m, "period")), None)

    @jax.jit
    def many(learner: Any, key: jax.Array, first: jax.Array) -> Any:
        def step(learner: Any, i: jax.Array) -> Any:
            ctx = program.context(state, hparams, runs.clock._replace(updates=first + i))
            learner = program.prepared(learner, state, ctx)
            return algorithm.update(learner, batch, ctx, jax.random.fold_in(key, i))[0], None

        return jax.lax.scan(step, learner, jnp.arange(UPDATES))[0]

    def call(first: int) -> Callable[[], Any]:
        return lambda: many(state.learner, jax.random.key(1), jnp.int32(first))

    return call(1), call(period - 2) if period else None, 1 / period if period else 0.0


if __name__ == "__main__":
    main()

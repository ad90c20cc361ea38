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

from jaxshare import cli
from jaxshare.training import replay
from jaxshare.types import Episode

UPDATES = 4  # of a call
SELECTIONS = ("all", "per")
ARMS: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = {  # rival -> what is measured against it
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
    full = replay.gather(jax.tree.map(lambda x: x[0], runs.states[0]).replay, jnp.arange(settings.run.batch_size))
    longest = int(full.mask.sum(0).max())
    batches = [replay.crop(full, steps) for steps in sorted({longest, int(full.mask.shape[0])})]
    for rival, others in ARMS.items():
        name = " ".join(rival)
        arms = {name: rival, **others}
        learners = {label: Updates(task, arguments) for label, arguments in arms.items()}
        for batch in batches:
            print(f"{' '.join(task)}, batch {settings.run.batch_size} episodes of {len(batch.mask)} steps")
            found["rows"] += compare(name, learners, batch, options.repeats)
    print(found["machine"])
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)


def compare(rival: str, learners: dict[str, Updates], batch: Episode, repeats: int) -> list[dict[str, Any]]:
    """A rival and what is measured against it, in turns: ms per update and the ratio of medians."""
    usual = {label: learner.call(batch, first=1) for label, learner in learners.items()}
    # the call of what is rare makes it once among UPDATES updates
    rare = {label: one.call(batch, first=one.period - 2) for label, one in learners.items() if one.period}
    calls = {**{(label, "usual"): call for label, call in usual.items()},
             **{(label, "rare"): call for label, call in rare.items()}}  # fmt: skip
    times: dict[Any, list[float]] = {name: [] for name in calls}
    for round_ in range(repeats + 2):
        for name, call in calls.items():
            seconds = _common.seconds(call, 1)[0] / UPDATES
            if round_ >= 2:
                times[name].append(seconds)
    middle = {name: 1e3 * float(np.median(values)) for name, values in times.items()}
    ms = {label: middle[label, "usual"] for label in learners}
    for label in rare:
        ms[label] += UPDATES * (middle[label, "rare"] - ms[label]) / learners[label].period
    rows = []
    for label, value in ms.items():
        rows.append(
            {"learner": label, "rival": rival, "steps": len(batch.mask), "ms": value, "ratio": value / ms[rival]}
        )
        print(f"  {label:<34} {value:8.2f} ms   {rows[-1]['ratio']:.3f}", flush=True)
    return rows


class Updates:
    """UPDATES updates of a learner on one batch. period: that of what it does rarely, in updates; 0: nothing."""

    def __init__(self, task: list[str], arguments: tuple[str, ...]) -> None:
        settings, program, runs = _common.program_and_runs([*task, *arguments, "replay.capacity=64"])
        algorithm = program.algorithm
        hparams = {name: jnp.float32(value) for name, value in algorithm.hparams.items()}
        state = jax.tree.map(lambda x: x[0], runs.states[0]).replace(replay=None)
        self.period = next((m.period for m in settings.modifiers.values() if hasattr(m, "period")), 0)
        self._learner = state.learner

        @jax.jit
        def many(learner: Any, batch: Episode, key: jax.Array, first: jax.Array) -> Any:
            def step(learner: Any, i: jax.Array) -> Any:
                ctx = program.context(state, hparams, runs.clock._replace(updates=first + i))
                learner = program.prepared(learner, state, ctx)
                return algorithm.update(learner, batch, ctx, jax.random.fold_in(key, i))[0], None

            return jax.lax.scan(step, learner, jnp.arange(UPDATES))[0]

        self._many = many

    def call(self, batch: Episode, first: int) -> Callable[[], Any]:
        """The updates that begin with this number."""
        return lambda: self._many(self._learner, batch, jax.random.key(1), jnp.int32(first))


if __name__ == "__main__":
    main()

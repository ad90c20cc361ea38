"""What DIFFER costs: time of one QMIX + DIFFER update against one QMIX update, interleaved in one process.

    python benchmarks/differ_overhead.py [env.scenario=3m ...]

Both learners see the same batch, unrolled over the full episode limit and over the sampled length. Aim: <= 1.05.
"""

from __future__ import annotations

import argparse
import json

import _common
import jax
import numpy as np

from jaxshare import cli, registry, replay
from jaxshare.modifiers import differ
from jaxshare.session import Runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help="as for jaxshare.train; the base learner is algo (default qmix)")
    parser.add_argument("--repeats", type=int, default=40, help="timed updates of each (default %(default)s)")
    parser.add_argument("--json", help="also write the figures here")
    options = parser.parse_args()
    cli.run_command(lambda: measure(options))


def learners(runs: Runs, settings: cli.Settings) -> dict[str, object]:
    spec = runs.program.env.spec
    base = registry.get("algo", settings.algo_name).make(settings.algo, spec)
    names = ("all", "greedy", "per", "per_expected")
    made = {f"differ, select={s}": differ.make(differ.Config(select=s), base).assemble() for s in names}
    return {settings.algo_name: base.assemble(), **made}


def measure(options: argparse.Namespace) -> None:
    settings, program, runs = _common.program_and_runs(options.settings)
    runs.chunk()
    state = jax.tree.map(lambda x: x[0], runs.states[0])
    full = replay.gather(state.replay, np.arange(settings.run.batch_size))
    longest = int(full.mask.sum(0).max())
    results = {}
    for label, batch in {"full length": full, f"cut to {longest} steps": replay.crop(full, longest)}.items():
        steps = {name: _step(program, algorithm, batch, runs) for name, algorithm in learners(runs, settings).items()}
        times = {name: [] for name in steps}
        for step in steps.values():
            step()
        for _ in range(options.repeats):
            for name, step in steps.items():
                times[name] += _common.seconds(step, 1)
        print(f"{program.env.spec.name}, batch {settings.run.batch_size} episodes, {label}")
        for name, values in times.items():
            ratio = float(np.median(np.array(values) / np.array(times[settings.algo_name])))
            print(f"  {name:<28} {np.median(values) * 1e3:8.2f} ms   ratio {ratio:.3f}")
            results[f"{label}: {name}"] = {"ms": float(np.median(values) * 1e3), "ratio": ratio}
    print(_common.machine())
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({**results, "machine": _common.machine()}, file, indent=1)


def _step(program, algorithm, batch, runs):
    hparams = {name: np.float32(value) for name, value in algorithm.hparams.items()}
    state = jax.tree.map(lambda x: x[0], runs.states[0]).replace(replay=None)
    ctx = program.context(state, hparams, runs.clock)
    update = jax.jit(lambda learner, key: algorithm.update(learner, batch, ctx, key)[0])
    learner = algorithm.init(jax.random.key(0))
    return lambda: update(learner, jax.random.key(1))


if __name__ == "__main__":
    main()

"""Training speed: environment steps/s, updates/s and replayed transitions/s, compile excluded.

    python benchmarks/throughput.py algo=qmix env=smax env.scenario=3m seeds=2
    python benchmarks/throughput.py algo=ippo env=mpe

Steps per second mostly measure the replay ratio (transitions learned from per environment step), so both are given. Of
learners without a replay it is the number of epochs.
"""

from __future__ import annotations

import argparse
import json
import time

import _common
import jax
import numpy as np

from jaxshare import cli


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help="as for jaxshare.train, e.g. algo=vdn env=mpe seeds=2")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to measure (default %(default)s)")
    parser.add_argument("--json", help="also write the figures here")
    options = parser.parse_args()
    cli.run_command(lambda: measure(options))


def measure(options: argparse.Namespace) -> None:
    started = time.perf_counter()
    settings, program, runs = _common.program_and_runs(options.settings)
    runs.chunk()
    compiled = time.perf_counter() - started
    steps, updates, replayed, start = runs.env_steps, int(runs.clock.updates), 0.0, time.perf_counter()
    while time.perf_counter() - start < options.seconds:
        metrics = runs.chunk()
        assert metrics is not None
        if program.algorithm.experience == "replay":
            lengths = program.algorithm.window or np.asarray(metrics["collect"]["length"]).mean()
            replayed += float(metrics["done"].sum()) * settings.run.batch_size * lengths
        jax.block_until_ready(runs.states)
    wall = time.perf_counter() - start
    env_steps = int((runs.env_steps - steps).sum())
    if program.algorithm.experience in ("episode", "segment"):
        replayed = float(env_steps * settings.algo.epochs)
    made = (int(runs.clock.updates) - updates) * len(settings.runs())
    figures = {
        "env_steps/s": env_steps / wall,
        "updates/s": made / wall,
        "transitions learned from/s (about)": replayed / wall,
        "replay ratio (about)": replayed / max(env_steps, 1),
        "compile and first chunk, s": compiled,
    }
    name = "+".join([settings.algo_name, *settings.modifiers])
    print(f"{name} on {program.env.spec.name}, {len(settings.runs())} runs, {wall:.0f} s measured")
    for label, value in figures.items():
        print(f"  {label:<36} {value:12,.1f}")
    print(_common.machine())
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({**figures, "settings": options.settings, "machine": _common.machine()}, file, indent=1)


if __name__ == "__main__":
    main()

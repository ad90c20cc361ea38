"""Central critics against independent ones, beside the claims of the MARL-book lecture.

    python benchmarks/central_critics.py --runs runs/central_critics      about an hour on two CPU cores
    python benchmarks/central_critics.py                                  table and picture from the figures kept

1. Climbing: Pareto actor-critic finds (A, A), which pays 11; A2C with a central critic settles for (B, B), 7. Shown: on
   which pay-off each seed ends.
2. Speaker-listener: A2C with central critics (maa2c) gets higher returns than with independent ones (ia2c).

Each task is played by every algorithm with the preset's settings (configs/preset/lecture), evaluated greedily. What
--runs holds already is not played again, and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections import Counter
from typing import Any

import _common
import numpy as np

from jaxshare import cli, results
from jaxshare.run.train import train

OUT = pathlib.Path(__file__).parent / "results" / "central_critics"
CLIMBING = ("preset=lecture/maa2c_climbing",)
RUNS: dict[str, dict[str, tuple[str, ...]]] = {
    "climbing": {
        "pac": ("preset=lecture/pac_climbing",),
        "maa2c": CLIMBING,
        "ia2c": (*CLIMBING, "algo=ia2c"),
        "coma": (*CLIMBING, "algo=coma"),
    },
    "speaker_listener": {
        "maa2c": ("preset=lecture/maa2c_speaker_listener",),
        "ia2c": ("preset=lecture/ia2c_speaker_listener",),
    },
}
SEEDS = {"climbing": 10, "speaker_listener": 8}
CLAIMS = {
    ("climbing", "pac"): "converges to (A, A), 11",
    ("climbing", "maa2c"): "converges to (B, B), 7",
    ("climbing", "ia2c"): "agents often converge to 7 or 5",
    ("climbing", "coma"): "(not in the lecture)",
    ("speaker_listener", "maa2c"): "higher than ia2c (curves, no numbers)",
    ("speaker_listener", "ia2c"): "lower than maa2c",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=pathlib.Path, help="folder of the runs; made where they are missing")
    parser.add_argument("--out", type=pathlib.Path, default=OUT, help="without .json and .png (default %(default)s)")
    parser.add_argument("--only", choices=RUNS, help="one task; the figures of the other are kept")
    parser.add_argument("settings", nargs="*", help="more settings of jaxshare.train, such as total_env_steps=1000000")
    options = parser.parse_args()
    cli.run_command(lambda: collect(options))


def collect(options: argparse.Namespace) -> None:
    """Play what is missing, keep the figures, show them."""
    path = options.out.with_suffix(".json")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"tasks": {}}
    for task, algorithms in RUNS.items():
        if options.runs and options.only in (None, task):
            found["tasks"][task] = {
                name: play([*arguments, f"seeds={SEEDS[task]}", *options.settings], options.runs / f"{task}_{name}")
                for name, arguments in algorithms.items()
            }
            found["machine"] = _common.machine()
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    show(found["tasks"])
    draw(found["tasks"], options.out.with_suffix(".png"))


def play(arguments: list[str], run_dir: pathlib.Path) -> dict[str, Any]:
    """One run directory: its command, and environment steps and greedy returns of every seed."""
    settings = cli.settings([*arguments, f"run_dir={run_dir}", "resume=auto", "progress=false"])
    train(settings)
    evaluations = results.evaluations(results.load(run_dir))
    curves = {
        name: {"env_steps": [r["env_steps"] for r in records], "return": [r["eval/return"] for r in records]}
        for name, records in evaluations.items()
    }
    return {"command": " ".join(arguments), "seeds": curves}


def last(one: dict[str, Any]) -> list[float]:
    """The last greedy return of every seed."""
    return [curve["return"][-1] for curve in one["seeds"].values()]


def area(one: dict[str, Any]) -> list[float]:
    """Mean greedy return over all evaluations but that of the untrained team, of every seed."""
    return [float(np.mean(curve["return"][1:])) for curve in one["seeds"].values()]


def show(tasks: dict[str, Any]) -> None:
    """The table: claims beside figures."""
    print(f"{'task':<17} {'algorithm':<10} {'the lecture says':<38} here")
    for task, algorithms in tasks.items():
        for name, one in algorithms.items():
            steps = next(iter(one["seeds"].values()))["env_steps"][-1]
            if task == "climbing":
                ends = Counter(last(one)).most_common()
                here = ", ".join(f"{value:g} in {count} of {len(last(one))} seeds" for value, count in ends)
            else:
                here = f"last {spread(last(one))}, mean of the curve {spread(area(one))}"
            print(f"{task:<17} {name:<10} {CLAIMS[task, name]:<38} {here} ({steps:,} steps)")
        if task == "speaker_listener":
            central, independent = (last(algorithms[name]) for name in ("maa2c", "ia2c"))
            print(f"{task:<17} maa2c - ia2c: {difference(central, independent)}")


def difference(one: list[float], other: list[float]) -> str:
    """Of the means, with its 95 % interval by 20,000 bootstrap samples of either's seeds."""
    draw = np.random.default_rng(0)
    first, second = (draw.choice(x, (20_000, len(x))).mean(1) for x in (one, other))
    low, high = np.percentile(first - second, (2.5, 97.5))
    return f"{np.mean(one) - np.mean(other):.2f} [{low:.2f}, {high:.2f}]"


def spread(values: list[float]) -> str:
    """Mean and range."""
    return f"{np.mean(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


def draw(tasks: dict[str, Any], path: pathlib.Path) -> None:
    """A panel for each task, from the second evaluation on: thin lines are seeds, thick ones their means."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib import ticker

    figure, axes = plt.subplots(1, len(tasks), figsize=(6 * len(tasks), 4), squeeze=False)
    for axis, (task, algorithms) in zip(axes[0], tasks.items(), strict=True):
        for name, one in algorithms.items():
            curves = list(one["seeds"].values())
            steps = np.array(curves[0]["env_steps"][1:]) / (curves[0]["env_steps"][-1] if task == "climbing" else 1)
            (line,) = axis.plot(steps, np.mean([c["return"][1:] for c in curves], axis=0), lw=2, label=name)
            for curve in curves:
                axis.plot(steps, curve["return"][1:], lw=0.6, alpha=0.6, color=line.get_color())
        axis.set_title(task)
        axis.set_xlabel("share of the run's environment steps" if task == "climbing" else "environment steps")
        axis.set_ylabel("return (greedy)")
        if task != "climbing":
            axis.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()

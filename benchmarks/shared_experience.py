"""SEAC against IAC and SNAC (Christianos et al. 2020, Table 1) on level-based foraging: runs, table, picture.

    python benchmarks/shared_experience.py --runs runs/seac_lbf [scenario=10x10-3p-3f] [seeds=6] [total_env_steps=…]

Trains what is missing in RUNS/<algorithm> (an interrupted run goes on), then plays 100 other episodes with each seed's
best and last parameters, greedily and stochastically, and writes OUT.json and OUT.png.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys

import _common
import numpy as np

ALGORITHMS = ("seac", "snac", "iac")
COLOURS = {"seac": "tab:red", "snac": "tab:blue", "iac": "tab:gray"}
COMMON = (
    "env=lbf",
    "env.rules=v1",
    "eval.episodes=100",
    "eval.policy=both",
    "checkpoint.best=true",
    "resume=auto",
    "progress=false",
)
PAPER = {  # Table 1: mean and standard deviation over five seeds after 50 million steps
    "15x15-3p-4f": {"iac": (0.13, 0.04), "snac": (0.18, 0.08), "seac": (0.43, 0.09)},
    "8x8-2p-2f-coop": {"iac": (0.37, 0.10), "snac": (0.38, 0.10), "seac": (0.64, 0.08)},
}
CURVE = "eval/stochastic_return"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "settings", nargs="*", help="scenario=…, seeds=…, total_env_steps=…, and others of jaxshare.train"
    )
    parser.add_argument("--runs", type=pathlib.Path, required=True, help="where the runs are, or will be")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "results" / "seac_lbf")
    options = parser.parse_args()
    given = {"scenario": "10x10-3p-3f", "seeds": "6", "total_env_steps": "4000000", "eval.every": "400000"}
    given |= dict(setting.split("=", 1) for setting in options.settings)
    scenario = given.pop("scenario")
    settings = [
        *COMMON,
        f"env.scenario={scenario}",
        "checkpoint.every=1000000",
        *(f"{k}={v}" for k, v in given.items()),
    ]
    found = {}
    for algorithm in ALGORITHMS:
        run_dir = options.runs / algorithm
        command("jaxshare.train", f"algo={algorithm}", *settings, f"run_dir={run_dir}")
        command(
            "jaxshare.evaluate", f"run_dir={run_dir}", "episodes=100", "checkpoint=best", "final=true", "policy=both"
        )
        found[algorithm] = read(run_dir)
    result = {"scenario": scenario, "settings": settings, "machine": _common.machine(), "algorithms": found}
    options.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    print_table(result)
    draw(result, options.out.with_suffix(".png"))


def command(module: str, *arguments: str) -> None:
    """Run one of jaxshare's commands; its error ends this script."""
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)


def read(run_dir: pathlib.Path) -> dict:
    """Curves {seed: [[env_steps, return], …]}, and the returns [seeds] of best and last parameters."""
    curves: dict[str, list] = {}
    for line in (run_dir / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if CURVE in record:
            curves.setdefault(str(record["seed"]), []).append([record["env_steps"], round(record[CURVE], 4)])
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    kinds = {"best": evaluation["runs"], "last": evaluation["final"]["runs"]}
    scores = {
        f"{kind} {policy}": [round(run[name], 4) for run in runs]
        for kind, runs in kinds.items()
        for policy, name in (("stochastic", "stochastic_return"), ("greedy", "return"))
    }
    return {"curves": curves, **scores}


def print_table(result: dict) -> None:
    """Mean and standard deviation over seeds, beside the paper's."""
    paper = PAPER.get(result["scenario"], {})
    print(f"\nLBF {result['scenario']}: sum of returns, mean ± standard deviation over seeds, 100 episodes each")
    print(f"{'':<6} {'best, stochastic':>18} {'last, stochastic':>18} {'best, greedy':>18} {'paper (50M steps)':>18}")
    for algorithm, found in result["algorithms"].items():
        cells = [
            f"{np.mean(found[kind]):.3f} ± {np.std(found[kind], ddof=1):.3f}"
            for kind in ("best stochastic", "last stochastic", "best greedy")
        ]
        cells.append("{:.2f} ± {:.2f}".format(*paper[algorithm]) if algorithm in paper else "not in its table")
        print(f"{algorithm:<6} " + " ".join(f"{cell:>18}" for cell in cells))


def draw(result: dict, path: pathlib.Path) -> None:
    """Every seed and the mean of each algorithm against environment steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib import ticker

    figure, axis = plt.subplots(figsize=(6.4, 4.2))
    for algorithm, found in result["algorithms"].items():
        curves = [np.array(curve).T for curve in found["curves"].values()]
        for steps, returns in curves:
            axis.plot(steps, returns, color=COLOURS[algorithm], lw=0.7, alpha=0.4)
        grid = curves[0][0]
        mean = np.mean([np.interp(grid, steps, returns) for steps, returns in curves], axis=0)
        label = f"{algorithm.upper()}, mean of {len(curves)} seeds"
        axis.plot(grid, mean, color=COLOURS[algorithm], lw=2.2, label=label)
    axis.set_xlabel("environment steps")
    axis.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    axis.set_ylabel("share of the food's value (stochastic policy)")
    axis.set_title(f"LBF {result['scenario']}")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()

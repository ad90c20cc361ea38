"""Peak memory of training against the replay's own size, and what storing observations in fewer bits does to learning.

    python benchmarks/memory.py                 2s3z in every replay.dtype, 3m in two: two chunks of training each
    python benchmarks/memory.py --large         instead: 27m_vs_30m with 5000 episodes in int8 (about 12 GB, minutes)
    python benchmarks/memory.py --learning      instead: win rates of QMIX on 3m with each dtype, equal settings
    python benchmarks/memory.py --save          also benchmarks/results/memory.json, whose other rows stay

Every row is a process of its own: a replay of full size, prefilled, and two chunks of updates; its peak resident memory
as the system counts it. The aim is 1.3 x (replay + 650 MB), in which 650 MB stand for Python, JAX and the programs.
`compiler_mb` is the peak when all programs are compiled and no replay is there yet, `before_mb` what is left of it when
the free part has been returned: a peak that is no higher than `compiler_mb` is the compiler's.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
from typing import Any

import _common
import numpy as np

OUT = pathlib.Path(__file__).parent / "results" / "memory.json"
DTYPES = ("float32", "bfloat16", "float16", "int8")
BASE_MB, AIM = 650, 1.3
LARGE = "27m_vs_30m"
LIMIT_S = 900


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="instead 27m_vs_30m")
    parser.add_argument("--learning", action="store_true", help="instead the win rates")
    parser.add_argument("--steps", type=int, default=60_000, help="environment steps of --learning (%(default)s)")
    parser.add_argument("--seeds", type=int, default=2, help="seeds of --learning (%(default)s)")
    parser.add_argument("--save", action="store_true", help=f"write {OUT.name} into benchmarks/results")
    parser.add_argument("--child", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        print(json.dumps(child(options.child)))
        return
    found: dict[str, Any] = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    machine, rows, learned = _common.machine(), found.setdefault("memory", {}), found.setdefault("learning", {})
    print(machine)
    tasks = [("3m", "float32"), ("3m", "int8"), *(("2s3z", dtype) for dtype in DTYPES)]
    for scenario, dtype in [(LARGE, "int8")] if options.large else [] if options.learning else tasks:
        one = {**peak(scenario, dtype), "machine": machine}
        rows[f"{scenario} {dtype}"] = one
        print(
            f"{scenario:<12} {dtype:<9} replay {one['replay_mb']:7.0f} MB   peak {one['peak_mb']:7.0f} MB   "
            f"{one['ratio']:.2f} x (replay + {BASE_MB} MB), aim {AIM}; until all is compiled "
            f"{one['compiler_mb']:.0f} MB, then {one['before_mb']:.0f} MB",
            flush=True,
        )
    for dtype in DTYPES if options.learning else ():
        learned[dtype] = one = {**learning(dtype, options.steps, options.seeds), "machine": machine}
        rates = ", ".join(f"{rate:.2f}" for rate in one["last_win_rates"])
        print(f"QMIX on 3m, {options.steps:,} steps, {dtype:<9} win rates of the last five tests: {rates}", flush=True)
    if options.save:
        OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def peak(scenario: str, dtype: str) -> dict[str, Any]:
    """A row: sizes in MB (10^6 bytes) of a run with 5000 episodes."""
    settings = ["env=smax", f"env.scenario={scenario}", f"replay.dtype={dtype}", "replay.capacity=5000"]
    command = [sys.executable, __file__, "--child", *settings]
    out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIMIT_S).stdout
    one = json.loads(out.splitlines()[-1])
    return {"scenario": scenario, "dtype": dtype, **one, "ratio": one["peak_mb"] / (one["replay_mb"] + BASE_MB)}


def child(settings: list[str]) -> dict[str, float]:
    """Train a little; what it took."""
    from jaxshare.training import replay

    _, _, runs = _common.not_started(settings)
    runs.compile()
    compiler, before = peak_mb(), resident_mb()
    runs.start()
    for _ in range(2):
        runs.chunk()
    ring = replay.num_bytes(runs.states[0].replay)
    return {"replay_mb": ring / 1e6, "peak_mb": peak_mb(), "compiler_mb": compiler, "before_mb": before}


def peak_mb() -> float:
    """The most that this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def resident_mb() -> float:
    """What it has there now."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def learning(dtype: str, steps: int, seeds: int) -> dict[str, Any]:
    """Win rates of the last five tests, mean over them, of each seed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "jaxshare.train", "algo=qmix", "env=smax", "env.scenario=3m"]
        command += [f"replay.dtype={dtype}", f"seeds={seeds}", f"total_env_steps={steps}", f"run_dir={folder}/run"]
        command += ["eval.episodes=128", "checkpoint.every=0", "progress=false"]
        subprocess.run(command, check=True, capture_output=True, timeout=LIMIT_S)
        lines = (pathlib.Path(folder) / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    tests = [row for row in rows if "eval/win_rate" in row]
    runs = sorted({row["seed"] for row in tests})
    rates = [float(np.mean([r["eval/win_rate"] for r in tests if r["seed"] == run][-5:])) for run in runs]
    return {"dtype": dtype, "steps": steps, "last_win_rates": rates}


if __name__ == "__main__":
    main()

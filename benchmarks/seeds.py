"""What further seeds cost: eight seeds on all cores against one seed on one core; and starts without a hang.

    python benchmarks/seeds.py                      QMIX on SMAX 3m, then three starts of four seeds
    python benchmarks/seeds.py --starts 100         the long version of the second part (a quarter of an hour)
    python benchmarks/seeds.py --json FILE          also write the figures

Every measurement is a process of its own. On a CPU one seed is held to one core by the scheduler's affinity, eight
seeds have all of them; the two alternate, medians of updates per second count, compiling does not. Two processes at a
time, one seed and one core each, show what the machine itself allows. On an accelerator it is 32 vmapped seeds against
one, and nothing is held to a core. The strategy is the trainer's own choice
(parallel.strategy=auto), or what is given as a setting. The aims: 1.9 on two cores, 10 on an accelerator.

A start that hangs is killed after a time limit and counted: JaxMARL's vmapped seeds hang on such a machine.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

TASK = ("algo=qmix", "env=smax", "env.scenario=3m")
CHUNKS, ROUNDS, LIMIT_S = 3, 2, 300
PROCESSES = {"alone": 1, "all": 1, "pair": 2}
START = ("algo=vdn", "env=mpe", "seeds=4", "total_env_steps=1000", "eval.episodes=4", "progress=false")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help=f"as for jaxshare.train (default: {' '.join(TASK)})")
    parser.add_argument("--starts", type=int, default=3, help="starts of four seeds on MPE (default %(default)s)")
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures here")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--only-starts", action="store_true", help="not the throughput, whose figures in FILE stay")
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.settings, options.child)))
        return
    kept = json.loads(options.json.read_text(encoding="utf-8")) if options.json and options.json.exists() else {}
    if not options.only_starts:
        kept["throughput"] = throughput(list(options.settings or TASK))
    new = starts(options.starts)
    if not new["hung"] and new["starts"] < kept.get("starts", {}).get("starts", 0):
        new = kept["starts"]  # more of them were made before
    found = {**kept, "starts": new}
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def throughput(settings: list[str]) -> dict[str, Any]:
    """Updates per second of all seeds together, many against one."""
    rates: dict[str, list[float]] = {"alone": [], "all": [], "pair": []}
    with tempfile.TemporaryDirectory() as cache:  # each program is compiled once
        for round_ in range(ROUNDS):
            for kind, values in rates.items():
                first = [round_ * PROCESSES[kind] + i for i in range(PROCESSES[kind])]  # other seeds in every round
                found = [finished(one) for one in [begun(settings, kind, seed, cache) for seed in first]]
                values.append(sum(one["rate"] for one in found))
                if kind == "all":
                    one = found[0]
    middle = {kind: float(np.median(values)) for kind, values in rates.items()}
    ratio, limit = middle["all"] / middle["alone"], middle["pair"] / middle["alone"]
    print(
        f"{one['seeds']} seeds ({one['strategy']}, {one['devices']} devices) {middle['all']:.1f} updates/s, "
        f"one seed alone {middle['alone']:.1f}: {ratio:.2f} x; aim {one['aim']}; "
        f"two processes of one seed on a core each {middle['pair']:.1f}: {limit:.2f} x\n{one['machine']}",
        flush=True,
    )
    return {"settings": settings, **one, "updates_per_s": rates, "ratio": ratio, "pair_ratio": limit}


def begun(settings: list[str], kind: str, seed: int, cache: str) -> subprocess.Popen[str]:
    """A measuring process; a seed that is alone is held to a core."""
    command = [sys.executable, __file__, *settings, f"seed={seed}", "--child", "all" if kind == "all" else f"{seed}"]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What it printed. Raises TimeoutExpired, or RuntimeError if it failed."""
    try:
        out, _ = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    if process.returncode:
        command = process.args if isinstance(process.args, list) else [process.args]
        raise RuntimeError(f"{' '.join(map(str, command))} failed: run it by itself to see why")
    return json.loads(out.splitlines()[-1])


def child(settings: list[str], which: str) -> dict[str, Any]:
    """CHUNKS of training; updates per second of all seeds together. which: "all", or of a seed alone its core's number.

    Not so many seconds: episodes change while a policy learns, and with them what an update costs.
    """
    alone = which != "all"
    on_cpu = os.environ.get("JAX_PLATFORMS", "cpu") == "cpu"
    if alone and on_cpu and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(which) % len(cores)]})
    import _common
    import jax

    seeds, aim = (8, 1.9) if on_cpu else (32, 10.0)
    _, _, runs = _common.program_and_runs([*settings, f"seeds={1 if alone else seeds}"])
    for _ in range(2):
        runs.chunk()
    before, start = int(runs.updates.sum()), time.perf_counter()
    for _ in range(CHUNKS):
        runs.chunk()
    rate = (int(runs.updates.sum()) - before) / (time.perf_counter() - start)
    layout = runs.layout
    return {
        "rate": rate, "seeds": seeds, "aim": aim, "strategy": "vmap" if layout.per_device > 1 else "map",
        "devices": len(jax.devices()), "machine": _common.machine(),
    }  # fmt: skip


def starts(count: int) -> dict[str, Any]:
    """Short multi-seed runs, one after another; how many ended by themselves."""
    seconds, hung = [], 0
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}  # only the first start compiles
        for i in range(count):
            command = [sys.executable, "-m", "jaxshare.train", *START, f"run_dir={folder}/{i}"]
            begin = time.perf_counter()
            try:
                subprocess.run(command, check=True, capture_output=True, timeout=LIMIT_S, env=environment)
            except subprocess.TimeoutExpired:
                hung += 1
            seconds.append(time.perf_counter() - begin)
    print(f"{count} starts of four seeds on MPE: {hung} hung; median {np.median(seconds):.1f} s each", flush=True)
    day = time.strftime("%Y-%m-%d", time.gmtime())
    return {"starts": count, "hung": hung, "median_s": float(np.median(seconds)), "settings": START, "day": day}


if __name__ == "__main__":
    main()

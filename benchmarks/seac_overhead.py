"""What sharing experience costs: SEAC against IAC on the ten tasks of Christianos et al. 2020, Table 3.

    python benchmarks/seac_overhead.py --json benchmarks/results/seac_overhead.json
    python benchmarks/seac_overhead.py --quick                a few small tasks, a few chunks
    python benchmarks/seac_overhead.py --agents               LBF 15x15 with 2, 4, 6 and 8 players instead

Both run with Table 2's settings. Chunks of both alternate (A B A B) in one process; medians count, and the overhead is
the median over pairs. The paper measured the process time of 100,000 steps of environments in Python, which took most
of it; here environments take little, so that the same N x N evaluations are a larger share. The work of an update,
as the compiler counts it, stands beside the times. Table 3's percentages are those printed; its times are rounded.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import _common
import jax
import jax.numpy as jnp
import numpy as np

from jaxshare import cli
from jaxshare.run.fleet import Fleet
from jaxshare.training.counting import start_clock
from jaxshare.training.program import Program

UNIT = 100_000  # steps that Table 3's times are of
CHUNK = 10_000  # most steps between two looks at the clock
TABLE_3 = {  # paper: task -> (settings, seconds of IAC, of SEAC, overhead in percent)
    "LBF 10x10-3p-3f": (("env=lbf", "env.rules=v1", "env.scenario=10x10-3p-3f"), 120, 124, 3.86),
    "LBF 12x12-2p-1f": (("env=lbf", "env.rules=v1", "env.scenario=12x12-2p-1f"), 82, 84, 2.94),
    "LBF 15x15-3p-4f": (("env=lbf", "env.rules=v1", "env.scenario=15x15-3p-4f"), 121, 126, 3.90),
    "LBF 8x8-2p-2f-coop": (("env=lbf", "env.rules=v1", "env.scenario=8x8-2p-2f-coop"), 81, 84, 3.78),
    "RWARE tiny-2ag": (("env=rware", "env.scenario=tiny-2ag"), 101, 103, 1.65),
    "RWARE tiny-2ag-hard": (("env=rware", "env.scenario=tiny-2ag-hard"), 125, 129, 2.97),
    "RWARE tiny-4ag": (("env=rware", "env.scenario=tiny-4ag"), 169, 173, 2.25),
    "RWARE small-4ag": (("env=rware", "env.scenario=small-4ag"), 170, 175, 2.44),
    "PP sparse": (("env=mpe", "env.scenario=sparse_tag"), 164, 169, 3.39),
    "SMAC 3m (here SMAX)": (("env=smax", "env.scenario=3m", "env.reward=sparse"), 383, 385, 0.38),
}
TEAMS = {
    f"LBF 15x15-{n}p-4f": (("env=lbf", "env.rules=v1", f"env.scenario=15x15-{n}p-4f"), None, None, None)
    for n in (2, 4, 6, 8)
}
QUICK = ("LBF 8x8-2p-2f-coop", "RWARE tiny-2ag", "PP sparse")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="timed chunks of each (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}, with three rounds")
    parser.add_argument("--agents", action="store_true", help="what the number of agents does, with five rounds")
    parser.add_argument("--json", help="also write the figures here")
    options = parser.parse_args()
    cli.run_command(lambda: measure(options))


def measure(options: argparse.Namespace) -> None:
    tasks, rounds = (QUICK, 3) if options.quick else (tuple(TABLE_3), options.rounds)
    if options.agents:
        tasks, rounds = tuple(TEAMS), 5
    found: dict[str, Any] = {"machine": _common.machine(), "steps": UNIT, "rounds": rounds, "tasks": {}}
    print(f"{found['machine']}\nseconds per {UNIT:,} steps: wall clock (process time); overhead: SEAC / IAC - 1")
    for name in tasks:
        found["tasks"][name] = row = task(name, rounds)
        print(
            f"  {name:<20} IAC {row['iac']['wall_s']:7.2f} ({row['iac']['process_s']:6.2f})   "
            f"SEAC {row['seac']['wall_s']:7.2f} ({row['seac']['process_s']:6.2f})   overhead "
            f"{row['overhead_percent']['wall']:6.1f} % ({row['overhead_percent']['process']:6.1f} %)   "
            f"FLOPs of an update x {row['update_flops_ratio']:.2f}"
            + (
                ""
                if options.agents
                else f"   paper "
                f"{row['paper']['iac_s']} -> {row['paper']['seac_s']}, {row['paper']['overhead_percent']} %"
            ),
            flush=True,
        )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)


def task(name: str, rounds: int) -> dict[str, Any]:
    """Both learners on one task."""
    settings, iac_s, seac_s, percent = {**TABLE_3, **TEAMS}[name]
    common = (*settings, "num_envs=4", f"eval.every={CHUNK}", f"total_env_steps={10**9}", "parallel.devices=1")
    runs = {algo: _common.program_and_runs([f"algo={algo}", *common])[2] for algo in ("iac", "seac")}
    for one in runs.values():
        chunk(one)  # compiles
    times = {algo: np.empty((rounds, 2)) for algo in runs}
    for i in range(rounds):
        for algo, one in runs.items():
            times[algo][i] = chunk(one)
    wall, process = (np.median(100 * (times["seac"] / times["iac"] - 1), axis=0)).tolist()
    flops = {algo: update_flops(one.program) for algo, one in runs.items()}
    return {
        **{
            algo: {**dict(zip(("wall_s", "process_s"), np.median(t, axis=0).tolist(), strict=True)),
                   "update_flops": flops[algo]}
            for algo, t in times.items()
        },
        "overhead_percent": {"wall": wall, "process": process},
        "update_flops_ratio": flops["seac"] / flops["iac"],
        "paper": {"iac_s": iac_s, "seac_s": seac_s, "overhead_percent": percent},
    }  # fmt: skip


def chunk(runs: Fleet) -> tuple[float, float]:
    """Seconds of wall clock and of process time that UNIT steps would take, from one chunk."""
    before, wall, process = int(runs.env_steps[0]), time.perf_counter(), time.process_time()
    runs.chunk()
    jax.block_until_ready(runs.states)
    spent = time.perf_counter() - wall, time.process_time() - process
    scale = UNIT / (int(runs.env_steps[0]) - before)
    return spent[0] * scale, spent[1] * scale


def update_flops(program: Program) -> float:
    """Floating-point operations of one update, as the compiler counts them."""
    algorithm, batch = program.algorithm, program.batch_shapes()
    hparams = {name: jnp.float32(value) for name, value in algorithm.hparams.items()}
    state = jax.eval_shape(program.init, jnp.int32(0))

    def update(learner: Any, segment: Any, env_steps: jax.Array, clock: Any) -> Any:
        ctx = program.context(state.replace(env_steps=env_steps), hparams, clock)
        return algorithm.update(learner, segment, ctx, jax.random.key(0))[0]

    clock = jax.eval_shape(start_clock)
    cost = jax.jit(update).lower(state.learner, batch, jax.ShapeDtypeStruct((), jnp.int32), clock).compile()
    counted = cost.cost_analysis()
    assert counted is not None
    return float(counted["flops"])


if __name__ == "__main__":
    main()

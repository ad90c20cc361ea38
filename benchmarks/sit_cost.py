"""What the stages of SIT cost: time per update and of the paper's whole runs, as a share of ICQ's.

    python benchmarks/sit_cost.py runs/claims/small/sets/2s3z_low.jds OUT.json   takes minutes

A run of ICQ is 15,000 updates; SIT's first stage is 20,000 and its last one 15,000 (Tian et al.
2023, Tables 10, 11). In the last one the paper has a policy and 32 trajectories for each agent
(share_params=none), and we for each type. The learners are timed in turn in one process. A step of
benchmarks/claims/sit.yaml.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Callable
from typing import Any

import _common
import jax
import jax.numpy as jnp
import numpy as np

from jaxshare import cli
from jaxshare.run.offline import load
from jaxshare.training.counting import start_clock

TASKS = {  # by how the name of the data set begins
    "CN_3ls3l": ("env=mpe", "env.scenario=CN_3ls3l"),
    "2s3z": ("env=smax", "env.scenario=2s3z"),
}
SIT = ("algo=sit", "algo.hparams.reward_lr=1e-3")
STAGE3 = (*SIT, "algo.stage1_updates=1")
LEARNERS: dict[str, tuple[str, ...]] = {
    "icq": ("algo=icq", "algo.critic_dim=32"),  # critics as wide as SIT's, the paper's Table 11
    "stage I": SIT,
    "stage III": STAGE3,
    "stage III, a policy each": (*STAGE3, "algo.share_params=none"),
}
UPDATES = {"icq": 15_000, "stage I": 20_000, "stage III": 15_000, "stage III, a policy each": 15_000}
CHUNK, REPEATS = 20, 5  # updates that are timed at once, and how often


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path, help="a data set whose name begins with its task")
    parser.add_argument("out", type=pathlib.Path, help="the JSON file to write")
    options = parser.parse_args()
    cli.run_command(lambda: measure(options.data, options.out))


def measure(data: pathlib.Path, out: pathlib.Path) -> None:
    """Time all learners on a data set."""
    costs = cost(data)
    for label, value in costs.items():
        print(f"{label:<50} {value:.2f}")
    whole = {"cost": {data.stem: costs}, "machine": _common.machine()}
    out.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def cost(data: pathlib.Path) -> dict[str, float]:
    """Milliseconds per update, and whole runs as a share of ICQ's."""
    task = next(settings for name, settings in TASKS.items() if data.stem.startswith(name))
    updates = {}
    for label, learner in LEARNERS.items():
        updates[label] = prepared([*learner, *task, f"data={data}"])
    for update in updates.values():
        update()  # compiled, and past the second stage
    seconds: dict[str, list[float]] = {label: [] for label in updates}
    for _ in range(REPEATS):
        for label, update in updates.items():
            seconds[label] += _common.seconds(update, 1)

    each = {label: float(np.median(times)) / CHUNK for label, times in seconds.items()}
    runs = {label: UPDATES[label] * time for label, time in each.items()}
    costs = {f"ms per update, {label}": 1000 * time for label, time in each.items()}
    for label, time in runs.items():
        if label != "icq":
            costs[f"{label} / ICQ, whole runs"] = time / runs["icq"]
    return costs


def prepared(arguments: list[str]) -> Callable[[], Any]:
    """A function that makes CHUNK updates; stages that are over then are made here."""
    settings, program, _ = _common.program_and_runs([*arguments, "parallel.devices=1"])
    episodes = jax.device_put(load(settings, program))
    hparams = {name: jnp.float32(value) for name, value in program.algorithm.hparams.items()}
    state = jax.jit(program.init)(jnp.int32(0))
    clock = start_clock()
    advance = jax.jit(program.chunk_offline, static_argnums=0)
    for _ in range(2 if set(STAGE3) <= set(arguments) else 0):
        (state, _), clock = advance(1, state, hparams, (clock, episodes))
    return lambda: advance(CHUNK, state, hparams, (clock, episodes))


if __name__ == "__main__":
    main()

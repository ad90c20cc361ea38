"""SEAC's sparse predator-prey (env=mpe env.scenario=sparse_tag): what scripted predators return, and SEAC's curve.

    python benchmarks/sparse_tag.py                              scripted predators alone
    python benchmarks/sparse_tag.py --runs runs/sparse_tag [seeds=2] [total_env_steps=...] [algo=...]

With --runs it trains (an interrupted run goes on) and writes OUT.json and OUT.png.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
from typing import Any, NamedTuple

import _common
import jax
import jax.numpy as jnp
import numpy as np

from jaxshare import cli
from jaxshare.envs import mpe

POLICIES = ("random", "still", "chase")
EPISODES = 4096
COMMON = (
    "env=mpe",
    "env.scenario=sparse_tag",
    "eval.policy=stochastic",
    "eval.episodes=200",
    "resume=auto",
    "progress=false",
)
USUAL = {
    "algo": "seac",
    "seeds": "2",
    "total_env_steps": "2000000",
    "eval.every": "100000",
    "checkpoint.every": "500000",
}
OUT = pathlib.Path(__file__).parent / "results" / "sparse_tag"


class Outcome(NamedTuple):
    """Means over episodes: the sum of rewards over predators, and steps with a catch."""

    value: float
    caught: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help="seeds=…, total_env_steps=…, and others of jaxshare.train")
    parser.add_argument("--runs", type=pathlib.Path, help="where the run is, or will be")
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    cli.run_command(lambda: measure(parser.parse_args()))


def measure(options: argparse.Namespace) -> None:
    """Scripted predators, then SEAC if it is to be trained."""
    scripted = {policy: outcome(policy, EPISODES, scenario="sparse_tag") for policy in POLICIES}
    for policy, found in scripted.items():
        print(f"{policy:<7} return {found.value:6.3f}   catches {found.caught:.3f}", flush=True)
    if options.runs is None:
        return
    settings = USUAL | dict(setting.split("=", 1) for setting in options.settings)
    arguments = [*COMMON, *(f"{key}={value}" for key, value in settings.items())]
    command = [sys.executable, "-m", "jaxshare.train", *arguments, f"run_dir={options.runs}"]
    subprocess.run(command, check=True)
    result = {
        "settings": arguments,
        "machine": _common.machine(),
        "scripted": {policy: found._asdict() for policy, found in scripted.items()},
        "curves": curves(options.runs),
    }
    options.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    draw(result, settings["algo"], options.out.with_suffix(".png"))
    for seed, points in result["curves"].items():
        print(f"seed {seed}: return {points[0]['return']:.2f} untrained, {points[-1]['return']:.2f} at the end")


# ---------------------------------------------------------------------------------- scripted predators


def chase(state: Any, predators: int) -> jax.Array:
    """Each straight towards the prey, along the farther of the two directions: moves [N]."""
    gap = state.position[predators][None] - state.position[:predators]
    axis = jnp.argmax(jnp.abs(gap), axis=1)
    towards = jnp.take_along_axis(gap, axis[:, None], axis=1)[:, 0] > 0
    return (1 + 2 * axis + towards).astype(jnp.int32)


def moves(policy: str, state: Any, key: jax.Array, predators: int) -> jax.Array:
    """What the predators of a policy do: random, still or chase."""
    if policy == "random":
        return jax.random.randint(key, (predators,), 0, 5)
    return chase(state, predators) if policy == "chase" else jnp.zeros(predators, jnp.int32)


def outcome(policy: str, episodes: int, seed: int = 0, **settings: Any) -> Outcome:
    """Play a policy of POLICIES, each episode to its end."""
    env = mpe.make(mpe.Config(**settings))
    predators = env.spec.num_agents

    def step(carry: Any, key: jax.Array) -> tuple[Any, Any]:
        state, running = carry
        key_move, key_step = jax.random.split(key)
        state, shown = env.step(state, moves(policy, state, key_move, predators), key_step)
        gains = running * jnp.sum(shown.reward), running * shown.info["caught"]
        return (state, running * (1 - shown.terminated)), gains

    def episode(key: jax.Array) -> Any:
        start, _ = env.reset(key)
        keys = jax.random.split(key, env.spec.episode_limit)
        _, gains = jax.lax.scan(step, (start, jnp.float32(1)), keys)
        return jax.tree.map(jnp.sum, gains)

    values, caught = jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(seed), episodes))
    return Outcome(float(np.mean(values)), float(np.mean(caught)))


# ---------------------------------------------------------------------------------- training


def curves(run_dir: pathlib.Path) -> dict[str, list[dict[str, float]]]:
    """{seed: evaluations with env_steps, return and caught}."""
    found: dict[str, list[dict[str, float]]] = {}
    for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        names = {name.removeprefix("eval/stochastic_"): name for name in record if name.startswith("eval/stochastic_")}
        names |= {name.removeprefix("eval/"): name for name in record if name.startswith("eval/")} if not names else {}
        if "return" in names:
            point = {key: round(record[names[key]], 4) for key in ("return", "caught") if key in names}
            found.setdefault(str(record["seed"]), []).append({"env_steps": record["env_steps"], **point})
    return found


def draw(result: dict[str, Any], algo: str, path: pathlib.Path) -> None:
    """Every seed against environment steps, over what scripted predators return."""
    from matplotlib import ticker
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axis = figure.subplots()
    for seed, points in result["curves"].items():
        steps = [point["env_steps"] for point in points]
        axis.plot(steps, [point["return"] for point in points], color="tab:red", lw=1.5, label=f"{algo}, seed {seed}")
    for policy, found in result["scripted"].items():
        axis.axhline(found["value"], color="tab:gray", lw=1, ls={"random": ":", "still": "-.", "chase": "--"}[policy])
        axis.annotate(policy, (0.0, found["value"]), fontsize=8, color="tab:gray", va="bottom")
    axis.set_xlabel("environment steps")
    axis.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    axis.set_ylabel("return, sum over predators (stochastic policy)")
    axis.set_title("sparse predator-prey (sparse_tag)")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()

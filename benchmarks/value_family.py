"""Learning curves of several run directories in one picture, beside uniformly random play.

    python benchmarks/value_family.py "QPLEX=runs/qplex" "COMIX=runs/comix,runs/comix_more_seeds" ...
    python benchmarks/value_family.py                       draw the picture again from the figures kept

Each panel is a run directory of jaxshare.train, or several that differ in their seeds only: every seed a thin line,
their mean a thick one, over all greedy evaluations. The scores are the test win rate where the task can be won (and a
fair share is), else the test return.
The figures (JSON) say with which settings a run differs from the defaults. Panels named in an earlier call are kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import pathlib
from contextlib import closing
from typing import Any

import _common
import jax
import jax.numpy as jnp
import numpy as np

from jaxshare import cli, results, rollout
from jaxshare.run import build, folder, watch
from jaxshare.runner import Program, start_clock
from jaxshare.settings.records import Settings
from jaxshare.trust import Permission, run_settings
from jaxshare.types import Context, RefusedError

OUT = pathlib.Path(__file__).parent / "results" / "value_family"
NOT_SHOWN = ("run.run_dir", "run.progress", "run.resume", "run.checkpoint.", "run.logger")  # change no result
SCORES = ("eval/return", "eval/win_rate", "eval/length")
COLUMNS, HARDLY = 4, 0.3  # panels in a row; a task of which less than this is won is shown by its return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="TITLE=RUN_DIR[,RUN_DIR]",
        help="panels, in their order in the picture; trust=true: run the environments that their files name",
    )
    parser.add_argument("--out", type=pathlib.Path, default=OUT, help="without .json and .png (default %(default)s)")
    parser.add_argument("--random-episodes", type=int, default=512, help="of random play (default %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="forget the panels of earlier calls")
    options = parser.parse_args()
    cli.run_command(lambda: collect(options))


def collect(options: argparse.Namespace) -> None:
    """Add the panels to the figures, and draw all."""
    kept = options.out.with_suffix(".json")
    found = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() and not options.fresh else {"panels": {}}
    known: dict[Any, dict[str, float]] = {}
    permission = Permission(trust="trust=true" in options.runs, takes_env=False)
    for item in options.runs:
        if item == "trust=true":
            continue
        title, _, run_dirs = item.partition("=")
        found["panels"][title] = panel(
            [pathlib.Path(path) for path in run_dirs.split(",")], options.random_episodes, known, permission
        )
        found["machine"] = _common.machine()
        kept.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"{title:<28} {summary(found['panels'][title])}", flush=True)
    draw(found["panels"], options.out.with_suffix(".png"))


def panel(
    run_dirs: list[pathlib.Path],
    random_episodes: int,
    known: dict[Any, dict[str, float]],
    permission: Permission,
) -> dict[str, Any]:
    """What is kept of run directories: task, commands, random play, and {run: {score: [value per evaluation]}}.

    `known` remembers random play, which depends on the environment only.
    """
    settings = [run_settings(path, permission) for path in run_dirs]
    same = [dataclasses.replace(s, run=dataclasses.replace(s.run, run_dir="", seed=0, seeds=1)) for s in settings]
    if any(other != same[0] for other in same):
        raise RefusedError(
            f"{', '.join(map(str, run_dirs))} do not differ in their seeds only: draw them in two panels."
        )
    runs: dict[str, dict[str, list[float]]] = {}
    for run_dir in run_dirs:
        for name, records in results.evaluations(results.load(run_dir)).items():
            scores = [key for key in ("env_steps", *SCORES) if key in records[0]]
            runs[name] = {key.removeprefix("eval/"): [record[key] for record in records] for key in scores}
    task = (settings[0].env_name, settings[0].env)
    if task not in known:
        known[task] = random_play(settings[0], random_episodes)
    return {
        "task": f"{settings[0].env_name} {settings[0].env.scenario}",
        "commands": [command(s) for s in settings],
        "random": known[task],
        "runs": runs,
    }


def command(settings: Settings) -> str:
    """Arguments of jaxshare.train that give these settings: where they differ from the defaults."""
    names = [f"algo={settings.algo_name}", f"env={settings.env_name}"]
    names += [f"modifiers=[{','.join(settings.modifiers)}]"] if settings.modifiers else []
    usual = folder.flatten(folder.plain(cli.settings(names)))
    here = folder.flatten(folder.plain(settings))
    changed = {key: here[key] for key in here if here[key] != usual.get(key) and not key.startswith(NOT_SHOWN)}
    shown = [f"{key.removeprefix('run.').removeprefix('modifiers.')}={value}" for key, value in changed.items()]
    return " ".join([*names, *shown])


def random_play(settings: Settings, episodes: int) -> dict[str, float]:
    """Mean scores of uniformly random available actions in the run's environment, and how many episodes were played."""
    env = build.make_env(settings)
    episodes = episodes if env.spec.pure else min(episodes, 4 * settings.run.num_envs)
    always = {"epsilon_start": 1.0, "epsilon_end": 1.0}
    small = dataclasses.replace(settings, run=dataclasses.replace(settings.run, num_envs=episodes), modifiers={})
    program = Program(env, build.make_algorithm(small, env.spec), small.run)
    with closing(program), watch.host_errors(env):
        algorithm = program.algorithm
        hparams = {key: jnp.float32(value) for key, value in {**algorithm.hparams, **always}.items()}
        ctx = Context(hparams=hparams, clock=start_clock(), env_steps=jnp.int32(0), total_env_steps=1)
        params = algorithm.init(jax.random.key(0)).params
        play = jax.jit(lambda key: rollout.episodes(env, algorithm, params, ctx, key, episodes, explore=True))
        summary = program.summary(play(jax.random.key(settings.run.eval.seed)))
    return {"episodes": episodes, **{key: float(value) for key, value in summary.items()}}


def shown_score(one: dict[str, Any]) -> str:
    """win_rate where a fair share of episodes is won, else return."""
    won = [max(run["win_rate"]) for run in one["runs"].values() if "win_rate" in run]
    return "win_rate" if won and np.mean(won) >= HARDLY else "return"


def summary(one: dict[str, Any]) -> str:
    """First and last scores of every run, and of random play."""
    score = shown_score(one)
    runs = ", ".join(f"{run[score][0]:.2f} -> {run[score][-1]:.2f}" for run in one["runs"].values())
    return f"{score} {runs}; random play {one['random'].get(score, 0.0):.2f}"


def draw(panels: dict[str, Any], path: pathlib.Path) -> None:
    """The grid."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = math.ceil(len(panels) / COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(2.75 * COLUMNS, 2.5 * rows), squeeze=False)
    for axis, (title, one) in zip(axes.flat, panels.items(), strict=False):
        draw_panel(axis, title, one)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    handles, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower right", ncols=3, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_panel(axis: Any, title: str, one: dict[str, Any]) -> None:
    """One panel."""
    from matplotlib import ticker

    score, runs = shown_score(one), list(one["runs"].values())
    for i, run in enumerate(runs):
        axis.plot(run["env_steps"], run[score], lw=0.9, alpha=0.7, color="tab:blue", label=None if i else "one seed")
    grid = np.linspace(max(r["env_steps"][0] for r in runs), min(r["env_steps"][-1] for r in runs), 100)
    mean = np.mean([np.interp(grid, run["env_steps"], run[score]) for run in runs], axis=0)
    axis.plot(grid, mean, color="black", lw=1.8, label="mean of seeds")
    axis.axhline(one["random"].get(score, 0.0), color="tab:red", lw=1, ls="--", label="random play")
    axis.set_title(f"{title}\n{one['task']}", fontsize=9)
    axis.set_xlabel("environment steps", fontsize=8)
    axis.set_ylabel(f"test {score.replace('_', ' ')} (greedy)", fontsize=8)
    axis.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    axis.xaxis.set_major_locator(ticker.MaxNLocator(4))
    axis.set_ylim((-0.02, 1.02) if score == "win_rate" else None)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.3)


if __name__ == "__main__":
    main()

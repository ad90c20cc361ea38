"""python -m jaxshare.evaluate: restore a run's checkpoint and play greedy episodes."""

from __future__ import annotations

import json
import pathlib
import sys
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from jaxshare import cli
from jaxshare.types import RefusedError

if TYPE_CHECKING:
    from jaxshare.config import Settings
    from jaxshare.runner import Program

EVALUATION = "evaluation.json"


@dataclass(frozen=True)
class Config:
    """What to evaluate."""

    run_dir: str = ""  # a run directory of jaxshare.train
    episodes: int = 128  # per run, greedy
    checkpoint: int | None = None  # iteration of the checkpoint; null: the newest
    seed: int | None = None  # of the episodes; null: the run's eval.seed
    gif: str | None = None  # write one episode here, with every agent's individual reward (or utility)
    gif_run: int = 0  # which run (0 is the first seed) to show


HELP = """\
usage: python -m jaxshare.evaluate run_dir=RUN [key=value ...]

Restore a checkpoint and play greedy episodes: per seed and mean return, win rate and length. Writes evaluation.json
into the run directory.
  python -m jaxshare.evaluate run_dir=runs/demo episodes=128 gif=episode.gif

settings and their defaults
{settings}
"""


def main() -> None:
    """Entry point."""
    cli.run_command(lambda: _main(sys.argv[1:]))


def _main(arguments: list[str]) -> None:
    if any(a in ("-h", "--help") for a in arguments):
        print(cli.small_help(HELP, Config))
        return
    config = cli.small_config(Config, arguments)
    if not config.run_dir:
        raise RefusedError("run_dir is missing: name a run directory, as in run_dir=runs/demo.")
    if config.episodes < 1:
        raise RefusedError(f"episodes={config.episodes} must be at least 1.")
    evaluate(config)


def evaluate(config: Config) -> dict[str, Any]:
    """Play, print the table, write evaluation.json (and the gif): the written dict."""
    run_dir = pathlib.Path(config.run_dir)
    settings = _settings(run_dir, config)
    from jaxshare.session import host_errors, prepare

    program = prepare(settings)
    with closing(program), host_errors(program.evaluator):
        return _evaluate(config, run_dir, settings, program)


def _evaluate(config: Config, run_dir: pathlib.Path, settings: Settings, program: Program) -> dict[str, Any]:
    import jax
    from rich.console import Console

    if config.gif and program.env.render is None:
        raise RefusedError(f"gif={config.gif}: env={program.env.spec.name} has no picture of its states.")
    step, clock, states = _restore(run_dir, config, settings, program)
    play = jax.jit(lambda state, hparams, clock: _score(program, state, hparams, clock, config.episodes))
    result: dict[str, Any] = {
        "checkpoint": step,
        "episodes": config.episodes,
        "eval_seed": settings.run.eval.seed,
        "runs": [
            {
                **label,
                "env_steps": int(state.env_steps),
                **{name: float(value) for name, value in play(state, _hparams(program, point), clock).items()},
            }
            for label, (_, point), state in zip(settings.labels(), settings.runs(), states, strict=True)
        ],
    }
    result["mean"] = _mean(result["runs"])
    (run_dir / EVALUATION).write_text(json.dumps(result, indent=1) + "\n")
    Console().print(_table(result))
    print(f"written: {run_dir / EVALUATION}")
    if config.gif:
        _, point = settings.runs()[config.gif_run]
        _gif(program, states[config.gif_run], _hparams(program, point), clock, config.gif)
        print(f"written: {config.gif}")
    return result


def _settings(run_dir: pathlib.Path, config: Config) -> Settings:
    from jaxshare.session import read_config

    settings = cli.from_plain(read_config(run_dir))
    seed = settings.run.eval.seed if config.seed is None else config.seed
    eval_config = replace(settings.run.eval, episodes=config.episodes, seed=seed)
    return replace(settings, run=replace(settings.run, eval=eval_config))


def _restore(run_dir: pathlib.Path, config: Config, settings: Settings, program: Program) -> tuple[int, Any, list[Any]]:
    import jax
    import jax.numpy as jnp

    from jaxshare.checkpoint import Checkpoints

    checkpoints = Checkpoints(run_dir, read_only=True)
    step = checkpoints.latest() if config.checkpoint is None else config.checkpoint
    if step is None or step not in checkpoints.steps():
        has = ", ".join(map(str, checkpoints.steps())) or "none"
        raise RefusedError(f"run_dir={run_dir} has no checkpoint {'' if step is None else step}; it has: {has}.")
    shapes = jax.eval_shape(program.init, jnp.int32(0)).replace(replay=None)
    clock, states = checkpoints.restore(step, shapes, len(settings.runs()), with_replay=False)
    checkpoints.close()
    if not 0 <= config.gif_run < len(states):
        raise RefusedError(f"gif_run={config.gif_run} must be between 0 and {len(states) - 1}.")
    return step, clock, states


def _score(program: Program, state: Any, hparams: dict[str, Any], clock: Any, episodes: int) -> dict[str, Any]:
    played = program.play(state, hparams, clock, episodes)
    return {**program.summary(played), "return_std": program.returns(played.episode).std()}


def _hparams(program: Program, point: dict[str, float]) -> dict[str, Any]:
    import jax.numpy as jnp

    return {name: jnp.float32(value) for name, value in {**program.algorithm.hparams, **point}.items()}


def _mean(runs: list[dict[str, Any]]) -> dict[str, float]:
    names = [name for name in runs[0] if name not in ("seed", "return_std") and not name.startswith("sweep.")]
    return {name: sum(run[name] for run in runs) / len(runs) for name in names}


def _table(result: dict[str, Any]) -> Any:
    from rich.table import Table

    from jaxshare.results import run_name

    table = Table(title=f"{result['episodes']} greedy episodes per run")
    columns = [name for name in ("return", "win_rate", "length") if name in result["mean"]]
    for name in ("run", "env steps", *columns):
        table.add_column(name, justify="right")
    for run in result["runs"]:
        table.add_row(run_name(run), f"{run['env_steps']:,}", *[f"{run[name]:.3f}" for name in columns])
    table.add_section()
    table.add_row("mean", f"{result['mean']['env_steps']:,.0f}", *[f"{result['mean'][name]:.3f}" for name in columns])
    return table


# ----------------------------------------------------------------------------------------------------------- pictures


def _gif(program: Program, state: Any, hparams: dict[str, Any], clock: Any, path: str) -> None:
    import jax
    import numpy as np

    env = program.evaluator
    assert env.render is not None
    if env.host:
        env.host.record()
    played = jax.jit(lambda s, h, c: program.play(s, h, c, 1, keep_state=True))(state, hparams, clock)
    ctx = program.context(state, hparams, clock)
    inspected = jax.jit(program.algorithm.inspect)(state.learner, played.episode, ctx)
    name = "individual_reward" if "individual_reward" in inspected else "q_taken"
    length = int(played.episode.mask.sum())
    frames = [env.render(jax.tree.map(lambda x, t=t: np.asarray(x[t, 0]), played.env_state)) for t in range(length + 1)]
    alive = np.asarray(played.episode.alive[:length, 0])
    values = np.where(alive, np.asarray(inspected[name][:length, 0]), np.nan)  # dead agents have no bar
    reward = np.asarray(program.returns_per_step(played.episode)[:length, 0])
    _write_gif(frames, values, reward, name.replace("_", " "), pathlib.Path(path))


def _write_gif(frames: list[Any], values: Any, reward: Any, title: str, path: pathlib.Path) -> None:
    """Frames [t] beside bars of values [t, N]; the team reward of each step in the title."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    low, high = min(np.nanmin(values), 0.0), max(np.nanmax(values), 0.0)
    figure = Figure(figsize=(7.6, 3.8))
    canvas, (left, right) = FigureCanvasAgg(figure), figure.subplots(1, 2)
    pictures = []
    for t, frame in enumerate(frames):
        left.clear()
        right.clear()
        left.imshow(frame)
        left.axis("off")
        left.set_title(f"step {t}")
        step = min(t, len(values) - 1)
        right.bar(range(values.shape[1]), np.nan_to_num(values[step]), color="tab:blue")
        right.set_ylim(low * 1.1 - 1e-3, high * 1.1 + 1e-3)
        right.set_xticks(range(values.shape[1]))
        right.set_xlabel("agent")
        right.set_title(f"{title}; team reward {reward[step]:.2f}", fontsize=9)
        canvas.draw()
        pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=200, loop=0)


if __name__ == "__main__":
    main()

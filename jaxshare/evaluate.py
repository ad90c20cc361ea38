"""python -m jaxshare.evaluate: restore a run's checkpoint, or each run's best parameters, and play episodes."""

from __future__ import annotations

import json
import pathlib
import re
import sys
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from jaxshare import cli
from jaxshare.config import POLICIES
from jaxshare.run import output
from jaxshare.settings.fields import COUNT, UNITS, static
from jaxshare.settings.validate import check_record
from jaxshare.trust import Permission, run_settings
from jaxshare.types import RefusedError

if TYPE_CHECKING:
    from jaxshare.checkpoint import Best
    from jaxshare.config import Settings
    from jaxshare.runner import Program

EVALUATION = "evaluation.json"
BEST = "best"


@dataclass(frozen=True)
class Config:
    """What to evaluate."""

    run_dir: str = ""  # a run directory of jaxshare.train
    episodes: int = static(128, least=1, most=COUNT)  # per run
    # greedy | stochastic (explores as training did then) | both; null: the run's eval.policy
    policy: str | None = static(None, choices=tuple(POLICIES))
    checkpoint: int | str | None = None  # its iteration, or best (of a run with checkpoint.best=true); null: the newest
    out: str | None = None  # the file to write; null: evaluation.json in the run directory, which report reads
    final: bool = False  # only with checkpoint=best: the newest checkpoint beside it, on the same episodes
    # of the episodes; null: the run's eval.seed; with checkpoint=best eval.seed + 1
    seed: int | None = static(None, least=0, most=COUNT)
    gif: str | None = None  # write one episode here, with every agent's individual reward (or utility, or value)
    gif_run: int = static(0, least=0, most=UNITS)  # which run (0 is the first seed) to show
    trust: bool = False  # run the code that config.yaml names: environments, interpreters and games that are not ours
    env: dict[str, Any] = field(default_factory=dict)  # or name it again, as in env.id=mymodule:Env
    # dotted paths and files of what it has from outside jaxshare, as plugins=[my_pkg.my_algo]
    plugins: list[str] = field(default_factory=list)


HELP = """\
usage: python -m jaxshare.evaluate run_dir=RUN [key=value ...]

Restore a checkpoint and play episodes: per seed and mean return, win rate and length. Writes evaluation.json into the
run directory, or to out=FILE.
  python -m jaxshare.evaluate run_dir=runs/demo episodes=128 gif=episode.gif
  python -m jaxshare.evaluate run_dir=runs/demo checkpoint=best final=true policy=both
checkpoint=best plays other episodes than those that selected it: its score on these is too high by the selection.

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
    evaluate(cli.small_config(Config, arguments))


def _check(config: Config) -> None:
    if not config.run_dir:
        raise RefusedError("run_dir is missing: name a run directory, as in run_dir=runs/demo.")
    check_record(config)
    if isinstance(config.checkpoint, str) and config.checkpoint != BEST:
        raise RefusedError(f"checkpoint={config.checkpoint} is neither the iteration of a checkpoint nor {BEST}.")
    if config.final and config.checkpoint != BEST:
        raise RefusedError("final=true has no effect: the final checkpoint is played anyway. Add checkpoint=best.")


def _check_places(config: Config) -> None:
    """Raise RefusedError for a place that was named and cannot be written, before anything is played."""
    for key in ("out", "gif"):
        if getattr(config, key):
            output.check_writable(pathlib.Path(getattr(config, key)), key)


def evaluate(config: Config) -> dict[str, Any]:
    """Play, print the table, write evaluation.json (and the gif): the written dict. Raises RefusedError."""
    _check(config)
    _check_places(config)
    run_dir = pathlib.Path(config.run_dir)
    settings, selected_on = _settings(run_dir, config)
    from jaxshare.session import host_errors, prepare

    program = prepare(settings)
    with closing(program), host_errors(program.evaluator):
        return _evaluate(config, run_dir, settings, selected_on, program)


def _evaluate(
    config: Config, run_dir: pathlib.Path, settings: Settings, selected_on: dict[str, Any], program: Program
) -> dict[str, Any]:
    from jaxshare.terminal import open_console

    if config.gif and program.env.render is None:
        raise RefusedError(f"gif={config.gif}: env={program.env.spec.name} has no picture of its states.")
    step, clock, states, best = _restore(run_dir, config, settings, program)
    result: dict[str, Any] = {
        "checkpoint": step,
        "episodes": config.episodes,
        "policy": settings.run.eval.policy,
        "eval_seed": settings.run.eval.seed,
    }
    newest = states
    if best is not None:
        states = [_at_best(state, kept) for state, kept in zip(states, best, strict=True)]
        result |= {"checkpoint": BEST, "selected_on": selected_on}
    result |= _play(program, settings, states, clock, config.episodes)
    if best is not None:
        for run, kept in zip(result["runs"], best, strict=True):
            run["selected_return"] = kept.score
        result["mean"] = _mean(result["runs"])
    if config.final:
        result["final"] = {"checkpoint": step, **_play(program, settings, newest, clock, config.episodes)}
    for table in _tables(result):
        open_console(soft_wrap=False).print(table)
    path = pathlib.Path(config.out) if config.out else run_dir / EVALUATION
    text = json.dumps(result, indent=1) + "\n"
    print(output.write_if_possible(path, text.encode(), "out", chosen=bool(config.out)))
    if config.gif:
        _, point = settings.runs()[config.gif_run]
        explore = next(iter(POLICIES[settings.run.eval.policy].values()))
        _gif(program, states[config.gif_run], _hparams(program, point), clock, config.gif, explore)
        print(f"written: {config.gif}")
    return result


def _settings(run_dir: pathlib.Path, config: Config) -> tuple[Settings, dict[str, Any]]:
    """The run's settings with these episodes and policy, and the episodes and policy that chose its best parameters."""
    settings = run_settings(run_dir, Permission(config.trust, config.env, plugins=config.plugins))
    own, best = settings.run.eval, config.checkpoint == BEST
    seed = own.seed + best if config.seed is None else config.seed
    if best and seed == own.seed:
        raise RefusedError(
            f"seed={seed}: these episodes chose the run's best parameters, so the return on them is too high. Use "
            "another seed."
        )
    changed = replace(own, episodes=config.episodes, seed=seed, policy=config.policy or own.policy)
    chose = {"eval_seed": own.seed, "episodes": own.episodes, "policy": _first_policy(own.policy)}
    return replace(settings, run=replace(settings.run, eval=changed)), chose


def _first_policy(policy: str) -> str:
    """What `return` without a prefix belongs to."""
    return "greedy" if policy == "both" else policy


def _restore(
    run_dir: pathlib.Path, config: Config, settings: Settings, program: Program
) -> tuple[int, Any, list[Any], list[Best] | None]:
    """(iteration, clock, states of all runs, their best parameters if these are asked for)."""
    import jax
    import jax.numpy as jnp

    from jaxshare.checkpoint import Checkpoints, Wanted

    checkpoints = Checkpoints(run_dir, read_only=True, spec=program.env.spec)
    asked = config.checkpoint
    shapes = jax.eval_shape(program.init, jnp.int32(0)).replace(replay=None)
    wanted = Wanted(shapes, len(settings.runs()), best=asked == BEST)
    if isinstance(asked, int):
        steps = checkpoints.steps()
        read = checkpoints.load(asked, wanted) if asked in steps else None
    else:
        newest = checkpoints.newest(lambda step: checkpoints.load(step, wanted))
        read = newest[1] if newest else None
    if read is None:
        has = ", ".join(map(str, checkpoints.steps())) or "none"
        missing = f"checkpoint {asked}" if isinstance(asked, int) else "checkpoint"
        raise RefusedError(f"run_dir={run_dir} has no {missing}; it has: {has}.")
    if asked == BEST and read.best is None:
        raise RefusedError(f"checkpoint=best: run_dir={run_dir} holds none. Train with checkpoint.best=true.")
    checkpoints.close()
    clock = read.clock
    states = read.runs
    if not 0 <= config.gif_run < len(states):
        raise RefusedError(f"gif_run={config.gif_run} must be between 0 and {len(states) - 1}.")
    return read.step, clock, states, read.best


def _at_best(state: Any, best: Best) -> Any:
    """A run as far as acting goes: parameters, and the environment steps that exploration depends on."""
    import numpy as np

    return state.replace(learner=state.learner.replace(params=best.params), env_steps=np.int32(best.env_steps))


def _play(program: Program, settings: Settings, states: list[Any], clock: Any, episodes: int) -> dict[str, Any]:
    """{"runs": a dict of means for each run, "mean": over the runs}."""
    import jax

    policies = {
        prefix: jax.jit(partial(_score, program, episodes, explore))
        for prefix, explore in POLICIES[settings.run.eval.policy].items()
    }
    runs = []
    for label, (_, point), state in zip(settings.labels(), settings.runs(), states, strict=True):
        run = {**label, "env_steps": int(state.env_steps)}
        for prefix, play in policies.items():
            found = play(state, _hparams(program, point), clock)
            run |= {prefix + name: float(value) for name, value in found.items()}
        runs.append(run)
    return {"runs": runs, "mean": _mean(runs)}


def _score(
    program: Program, episodes: int, explore: bool, state: Any, hparams: dict[str, Any], clock: Any
) -> dict[str, Any]:
    played = program.play(state, hparams, clock, episodes, explore=explore)
    return {**program.summary(played), "return_std": program.returns(played.episode).std()}


def _hparams(program: Program, point: dict[str, float]) -> dict[str, Any]:
    import jax.numpy as jnp

    return {name: jnp.float32(value) for name, value in {**program.algorithm.hparams, **point}.items()}


def _mean(runs: list[dict[str, Any]]) -> dict[str, float]:
    names = [name for name in runs[0] if name != "seed" and not name.endswith("return_std") and "sweep." not in name]
    return {name: sum(run[name] for run in runs) / len(runs) for name in names}


def _tables(result: dict[str, Any]) -> list[Any]:
    """One table, and one of the final checkpoint if it was played as well."""
    which = "greedy and stochastic" if result["policy"] == "both" else result["policy"]
    played = f"{result['episodes']} {which} episodes per run (seed {result['eval_seed']})"
    if result["checkpoint"] != BEST:
        return [_table(played, result)]
    on = result["selected_on"]
    chosen = f"{on['episodes']} {on['policy']} episodes of seed {on['eval_seed']}"
    tables = [_table(f"best parameters by the mean return of {chosen}\nplayed: {played}", result)]
    if "final" in result:
        tables.append(_table(f"final checkpoint\nplayed: {played}", result["final"]))
    return tables


def _table(title: str, result: dict[str, Any]) -> Any:
    from rich.table import Table

    from jaxshare.results import run_name

    table = Table(title=title)
    names = ("return", "win_rate", "length", "stochastic_return", "stochastic_win_rate", "selected_return")
    columns = [name for name in names if name in result["mean"]]
    for name in ("run", "env steps", *columns):
        table.add_column(re.sub("^(stochastic|selected)_", r"\1 ", name), justify="right")  # may be broken there
    for run in result["runs"]:
        table.add_row(run_name(run), f"{run['env_steps']:,}", *[f"{run[name]:.3f}" for name in columns])
    table.add_section()
    table.add_row("mean", f"{result['mean']['env_steps']:,.0f}", *[f"{result['mean'][name]:.3f}" for name in columns])
    return table


# ----------------------------------------------------------------------------------------------------------- pictures


def _gif(program: Program, state: Any, hparams: dict[str, Any], clock: Any, path: str, explore: bool) -> None:
    import jax
    import numpy as np

    env = program.evaluator
    assert env.render is not None
    if env.host:
        env.host.record()
    play = jax.jit(lambda s, h, c: program.play(s, h, c, 1, keep_state=True, explore=explore))
    played = play(state, hparams, clock)
    ctx = program.context(state, hparams, clock)
    inspected = jax.jit(program.algorithm.inspect)(state.learner, played.episode, ctx)
    name = next(name for name in ("individual_reward", "q_taken", "value", *inspected) if name in inspected)
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

"""python -m jaxshare.evaluate: a run's checkpoint, or each run's best parameters, on new episodes."""

from __future__ import annotations

import json
import pathlib
import sys
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from jaxshare import cli
from jaxshare.config import POLICIES
from jaxshare.evaluation import BEST, EVALUATION
from jaxshare.run import output
from jaxshare.settings.fields import COUNT, UNITS, static
from jaxshare.settings.validate import check_record
from jaxshare.trust import Permission, run_settings
from jaxshare.types import RefusedError


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
    cli.run_command(lambda: cli.small_command(HELP, Config, evaluate, sys.argv[1:]))


def _check(config: Config) -> None:
    """Raise RefusedError for settings that cannot work, and places that cannot be written."""
    if not config.run_dir:
        raise RefusedError("run_dir is missing: name a run directory, as in run_dir=runs/demo.")
    check_record(config)
    if isinstance(config.checkpoint, str) and config.checkpoint != BEST:
        raise RefusedError(f"checkpoint={config.checkpoint} is neither the iteration of a checkpoint nor {BEST}.")
    if config.final and config.checkpoint != BEST:
        raise RefusedError("final=true has no effect: the final checkpoint is played anyway. Add checkpoint=best.")
    for key in ("out", "gif"):
        if getattr(config, key):
            output.check_writable(pathlib.Path(getattr(config, key)), key)


def evaluate(config: Config) -> dict[str, Any]:
    """Play, print the table, write evaluation.json (and the gif): the written dict.

    Raises RefusedError.
    """
    _check(config)
    run_dir = pathlib.Path(config.run_dir)
    trained = run_settings(run_dir, Permission(config.trust, config.env))
    from jaxshare.evaluation import film, scores
    from jaxshare.evaluation.tables import tables
    from jaxshare.run import restoring
    from jaxshare.session import host_errors, prepare
    from jaxshare.terminal import open_console

    settings = scores.settings_with(trained, config.episodes, config.policy, config.seed, config.checkpoint == BEST)
    program = prepare(settings)
    with closing(program), host_errors(program.evaluator):
        if config.gif and program.env.render is None:
            raise RefusedError(f"gif={config.gif}: env={program.env.spec.name} has no picture of its states.")
        restored = restoring.restore(run_dir, settings, program, config.checkpoint)
        if not 0 <= config.gif_run < len(restored.runs):
            most = len(restored.runs) - 1
            raise RefusedError(f"gif_run={config.gif_run} must be between 0 and {most}.")

        result = scores.evaluation(program, settings, restored, trained.run.eval, config.final)
        for table in tables(result):
            open_console(soft_wrap=False).print(table)
        path = pathlib.Path(config.out) if config.out else run_dir / EVALUATION
        text = json.dumps(result, indent=1) + "\n"
        print(output.write_if_possible(path, text.encode(), "out", chosen=bool(config.out)))
        if config.gif:
            if restored.best is not None:
                restored = restoring.at_best(restored)
            film.write(program, settings, restored, config.gif_run, pathlib.Path(config.gif))
            print(f"written: {config.gif}")
    return result

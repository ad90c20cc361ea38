"""python -m jaxshare.evaluate: a run's checkpoint, or its best parameters, on new episodes."""

from __future__ import annotations

import json
import pathlib
import sys
from contextlib import closing
from typing import Any

from jaxshare import cli
from jaxshare.evaluation.settings import Config
from jaxshare.evaluation.tables import tables
from jaxshare.run import BEST, EVALUATION, output
from jaxshare.run.watch import host_errors
from jaxshare.settings.help import small_command
from jaxshare.settings.validate import check_record
from jaxshare.terminal import open_console
from jaxshare.trust import Permission
from jaxshare.types import RefusedError

HELP = """\
usage: python -m jaxshare.evaluate run_dir=RUN [key=value ...]

Restore a checkpoint and play episodes: per seed and mean return, win rate and length. Writes
evaluation.json into the run directory, or to out=FILE.
  python -m jaxshare.evaluate run_dir=runs/demo episodes=128 gif=episode.gif
  python -m jaxshare.evaluate run_dir=runs/demo picture=battle.png picture_steps=[3,12]
  python -m jaxshare.evaluate run_dir=runs/demo checkpoint=best final=true policy=both
checkpoint=best plays other episodes than those that selected it: its score on these is too high by
the selection.

settings and their defaults
{settings}
"""


def main() -> None:
    """Entry point."""
    cli.run_command(lambda: small_command(HELP, Config, evaluate, sys.argv[1:]))


def _check(config: Config) -> None:
    """Raise RefusedError for settings that cannot work, and places that cannot be written."""
    if not config.run_dir:
        raise RefusedError("run_dir is missing: name a run directory, as in run_dir=runs/demo.")
    check_record(config)
    if config.final and config.checkpoint != BEST:
        raise RefusedError(
            "final=true has no effect: the final checkpoint is played anyway. Add checkpoint=best."
        )
    if config.picture_steps and not config.picture:
        raise RefusedError("picture_steps has no effect without a picture: add picture=FILE.png.")
    for key in ("out", "gif", "picture"):
        if getattr(config, key):
            output.check_writable(pathlib.Path(getattr(config, key)), key)


def evaluate(config: Config) -> dict[str, Any]:
    """Play, print the table, write evaluation.json (and gif and picture): the written dict.

    Raises RefusedError.
    """
    _check(config)
    from jaxshare.evaluation import film, scores  # with matplotlib
    from jaxshare.run.saved import open_run  # with orbax

    # what is played
    steps = film.steps_of(config.picture_steps)
    permission = Permission(config.trust, config.env, plugins=config.plugins)
    run = open_run(config.run_dir, config.checkpoint, permission)
    trained = run.settings.run.eval
    run = run.with_settings(scores.settings_with(run, config.episodes, config.policy, config.seed))
    with closing(run), host_errors(run.program.evaluator):
        film.check(run, {"gif": config.gif, "picture": config.picture}, config.gif_run)
        result = scores.evaluation(run, trained, config.final)

        # show, and write
        for table in tables(result):
            open_console(soft_wrap=False).print(table)
        path = pathlib.Path(config.out) if config.out else run.run_dir / EVALUATION
        text = json.dumps(result, indent=1) + "\n"
        print(output.write_if_possible(path, text.encode(), "out", chosen=bool(config.out)))
        if config.gif or config.picture:
            episode = film.play(run, config.gif_run)
        if config.gif:
            film.write_gif(episode, pathlib.Path(config.gif))
            print(f"written: {config.gif}")
        if config.picture:
            drawn = film.write_picture(episode, steps, pathlib.Path(config.picture))
            print(f"written: {config.picture} (steps {', '.join(map(str, drawn))})")
    return result

"""python -m jaxshare.report: from run directories to tables, pictures and a page with intervals."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from jaxshare import cli
from jaxshare.results.settings import Config
from jaxshare.settings.help import small_command
from jaxshare.types import RefusedError

HELP = """\
usage: python -m jaxshare.report RUN_DIR... [key=value ...]

Statistics of finished (or unfinished) runs: IQM, mean, median and optimality gap with stratified
bootstrap intervals, probability of improvement, performance profiles, learning curves against
environment steps (updates for runs from a data set) and wall time. Writes report.html, which holds
everything, and its parts as PNG, CSV, LaTeX and JSON.
  python -m jaxshare.report runs/*
  python -m jaxshare.report QMIX='runs/qmix_*' DIFFER='runs/differ_*' out=report metric=win_rate
  python -m jaxshare.report runs/* skip=true ignore=[total_env_steps] "ranges={{2s3z:[0,20]}}"

Runs are one group if they differ in nothing but seed, task, and what changes no result (run_dir,
logger, progress, parallel but for its shards, checkpoint). Groups are named by algorithm,
modifiers, and the settings that tell them apart, or by you: LABEL=DIR. A label whose runs differ in
a setting is refused, and the setting is named. A task is an environment with its scenario, and the
data set learned from.
  score       curve: the evaluation nearest to where the shortest run ends. final and best: from
              evaluation.json, so run jaxshare.evaluate first (checkpoint=best for best). Never the
              best of a curve: that is luck. A best checkpoint has no other effect.
  seeds       with one there is no interval. Groups and tasks may differ, which is said.
  curves      IQM of runs, on a line between evaluations, as far as all runs of the group go;
              evaluations need not be equally many. Wall time is that of the whole command,
              compilation and evaluations included.
  ranges      scores are normalised for aggregates over tasks. Not given, a win rate has 0 to 1, a
              data set the returns of random play and of its best policy, and otherwise the lowest
              and highest evaluation count as 0 and 1.

settings and their defaults
{settings}
"""


def main() -> None:
    """Entry point."""
    cli.run_command(lambda: small_command(HELP, Config, report, sys.argv[1:], configured))


def configured(arguments: Sequence[str]) -> Config:
    """The settings among the arguments, and all others as run directories. Raises RefusedError."""
    from jaxshare.results import arguments as naming  # which knows of checkpoints and evaluations

    names = [setting.name for setting in fields(Config)]
    settings = []
    runs = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if argument.startswith("-"):
            usage = "settings are written key=value, as in out=report"
            raise RefusedError(f"'{argument}' is not understood: {usage}.")
        if equals and key in ("ignore", "per_task", "runs") and not value.startswith("["):
            settings.append(f"{key}=[{value}]")
        elif equals and (key in names or not naming.is_run(argument)):
            settings.append(argument)
        else:
            runs.append(naming.at_home(argument))
    config = cli.small_config(Config, settings)
    return replace(config, runs=[*config.runs, *runs])


def report(config: Config) -> dict[str, Any]:
    """Show the tables and write all files: what report.json holds. Raises RefusedError, OSError."""
    from jaxshare.results import report as reporting

    return reporting.make(config)

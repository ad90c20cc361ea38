"""python -m jaxshare.train: settings from the command line -> a run directory."""

from __future__ import annotations

import sys

from jaxshare import cli, multirun
from jaxshare.run.signals import StoppedError
from jaxshare.settings.help import help_text
from jaxshare.settings.records import Settings

HELP = """\
usage: python -m jaxshare.train [key=value ...]

Train a cooperative multi-agent algorithm. Example:
  python -m jaxshare.train algo=qmix modifiers=[differ] env=smax env.scenario=3m seeds=4 \\
      total_env_steps=200000 run_dir=runs/demo

choose
  algo={algos}
  env={envs}   (env.scenario=... or env.game=...; `python -m jaxshare.list` has them all)
  modifiers=[...]   of: {modifiers}
  preset=...        of: {presets}

settings and their defaults (for algo={algo}, env={env})
{settings}
  sweep.<hyper-parameter>=[a,b,...]   every combination in one compile: sweep.lr=[1e-4,5e-4],
                                      sweep.differ.alpha=[0.6]; with sweep.zip=true the first
                                      values of all lists together, the second ones, …

A run goes on with the same command, its run_dir and resume=auto; SIGTERM, Ctrl-C and other signals
that announce an end save first. Hydra's own options work too:
-m algo=qmix,vdn (many runs, in turn or through a launcher), --cfg job (print the configuration),
--hydra-help.
Text and paths are taken as they stand (quote for the shell only); ~ is the home folder, and
${{key}} another setting.
With -m commas separate values, but not in run_dir: there each run gets a folder by its number.
"""


def main() -> None:
    """Entry point."""
    cli.run_command(_main)


def _main() -> None:
    arguments = sys.argv[1:]
    if any(a in ("-h", "--help") for a in arguments):
        print(help_text(HELP, [a for a in arguments if not a.startswith("-")]))
    elif any(a.startswith("-") for a in arguments):
        multirun.run(arguments)
    else:
        _train(cli.settings(arguments))


def _train(settings: Settings) -> None:
    from jaxshare.run.train import train  # with orbax

    try:
        train(settings, at_once=True)
    except StoppedError as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.signum)

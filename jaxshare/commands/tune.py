"""python -m jaxshare.tune: hyper-parameter search; a batch of trials is one compiled sweep."""

from __future__ import annotations

import sys
from importlib import metadata

from jaxshare import cli
from jaxshare.run.signals import StoppedError
from jaxshare.settings.help import small_help
from jaxshare.tune.arguments import sorted_out
from jaxshare.tune.settings import Config
from jaxshare.types import RefusedError

HELP = """\
usage: python -m jaxshare.tune [FILE.yaml] [key=value ...]

Search hyper-parameters with Optuna. Example (the quotes are for the shell):
  python -m jaxshare.tune algo=qmix env=matrix env.game=climbing total_env_steps=2000 seeds=3 \\
      eval.every=500 'search.lr=log(1e-4,1e-2)' search.updates_per_episode=[1,2] \\
      trials=32 batch=8 out=runs/tune/climb
The same may stand in a file; see docs/tuning.md. All settings of jaxshare.train may be set.

search.KEY=...  KEY is a scalar of a sweep (lr, differ.alpha), which is an input of the program, or
                another setting (algo.hidden_dim): a program is compiled for each of its values
  log(a,b)      between a and b on a logarithmic scale; whole numbers where the setting is whole
  uniform(a,b)  between a and b
  [a,b,c]       one of these

A trial's value is the IQM over its seeds. Several processes with the same out share a search.
Stopped by Ctrl-C, the same command goes on. Written to out: best.yaml (for preset=), trials.json
and tune.png.

settings and their defaults
{settings}
"""
PACKAGE = "optuna"
INSTALL = "pip install 'jaxshare[tune]'"
MAJOR = 5


def main() -> None:
    """Entry point."""
    cli.run_command(_main)


def _main() -> None:
    arguments = sys.argv[1:]
    if any(argument in ("-h", "--help") for argument in arguments):
        print(small_help(HELP, Config))
        return
    check_installed()
    tune(arguments)


def tune(arguments: list[str]) -> None:
    """Search as the arguments say. Raises RefusedError, HostError, OSError."""
    from jaxshare.tune import plan  # with matplotlib's users
    from jaxshare.tune.search import search  # with orbax and Optuna

    planned = plan.make(sorted_out(arguments))
    try:
        search(planned)
    except StoppedError as stopped:
        print(f"{stopped}\nThe search goes on with the same command.", file=sys.stderr)
        sys.exit(128 + stopped.signum)


def check_installed() -> None:
    """Raise RefusedError if Optuna is not there, or is another version."""
    try:
        version = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError as error:
        raise RefusedError(f"jaxshare.tune needs the package {PACKAGE}: {INSTALL}.") from error
    if version.partition(".")[0] != str(MAJOR):
        raise RefusedError(
            f"jaxshare.tune needs {PACKAGE} {MAJOR}, and {version} is installed: {INSTALL}."
        )

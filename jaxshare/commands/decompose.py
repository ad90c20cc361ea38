"""python -m jaxshare.decompose: does a run of SIT know which agents played well?"""

from __future__ import annotations

import pathlib
import sys
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

from jaxshare import cli
from jaxshare.decomposition.settings import Config
from jaxshare.run import output
from jaxshare.settings.help import small_command
from jaxshare.terminal import open_console
from jaxshare.trust import Permission
from jaxshare.types import RefusedError

if TYPE_CHECKING:
    from jaxshare.settings.records import Settings

NAME = "decomposition"


HELP = """\
usage: python -m jaxshare.decompose run_dir=RUN [key=value ...]

What the reward ensemble in a run's newest checkpoint says of every (episode, agent) of a data set,
against the levels (random, medium, expert) of the policies that played there. Writes
RUN/decomposition.json and .png, and prints a table:
  pairs           pairs of agents of one type in one episode, one of them at random and the other
                  better
  reward, pairs   the AUROC of mean rewards over these pairs: 1 always in order, 0.5 chance,
                  0 always the wrong way
  reward, all     the same over all trajectories of the type
  prio.           the same two of the priorities that stage II makes of the rewards
  drawn, in set   the share of better policies in what stage III draws, and in the data set
  ESS             the effective number of trajectories that stage III draws from
The picture: (a) decomposed rewards over stage I, (b) priorities of each agent and (c) of each type,
by level.
  python -m jaxshare.train algo=sit env=smax env.scenario=2s3z data=sets/2s3z_low.jds seeds=3 \\
      run_dir=runs/sit
  python -m jaxshare.decompose run_dir=runs/sit

settings and their defaults
{settings}
"""


def main() -> None:
    """Entry point."""
    cli.run_command(lambda: small_command(HELP, Config, decompose, sys.argv[1:]))


def decompose(config: Config) -> dict[str, Any]:
    """Judge, print the table, write the JSON and the picture: the dict that was written.

    Raises RefusedError.
    """
    if not config.run_dir:
        raise RefusedError("run_dir is missing: name a run of algo=sit, as in run_dir=runs/sit.")
    from jaxshare.decomposition import result as results  # with orbax
    from jaxshare.run.saved import open_run

    # judge
    permission = Permission(config.trust, config.env, plugins=config.plugins)
    suitable = partial(_check_decomposes, config)
    with closing(open_run(config.run_dir, permission=permission, suitable=suitable)) as run:
        data = _data(config, run.settings)
        out = _out(config)
        decomposition = results.decompose(run, data)

    # show, and write
    console = open_console()
    for part in results.to_print(decomposition):
        console.print(part)
    for suffix, content in results.files(decomposition).items():
        path = out.with_name(f"{out.name}{suffix}")
        console.print(output.write_if_possible(path, content, "out", chosen=bool(config.out)))
    return decomposition.result


def _check_decomposes(config: Config, settings: Settings) -> None:
    if settings.algo_name != "sit":
        raise RefusedError(
            f"run_dir={config.run_dir} is a run of algo={settings.algo_name}, which decomposes no "
            "rewards. Name a run of algo=sit."
        )


def _data(config: Config, settings: Settings) -> pathlib.Path:
    """The data set to look at. Raises RefusedError if it is not there."""
    path = pathlib.Path(config.data or settings.run.data)
    if not path.exists():
        why = "" if config.data else ", from which the run learned, is there no more: it"
        raise RefusedError(
            f"data={path}{why} does not exist. Name the data set, as in data=sets/2s3z_low.jds."
        )
    return path


def _out(config: Config) -> pathlib.Path:
    """Where to write, without suffix. Another data set's figures leave the run's own alone.

    Raises RefusedError for a place that was named and cannot be written.
    """
    name = f"{NAME}_{pathlib.Path(config.data).stem}" if config.data else NAME
    out = pathlib.Path(config.out) if config.out else pathlib.Path(config.run_dir) / name
    out = out.with_suffix("") if out.suffix in (".json", ".png") else out
    if config.out:
        output.check_writable(out.with_name(f"{out.name}.json"), "out")
    return out

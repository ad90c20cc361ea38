"""python -m jaxshare.collect: a data set of teams whose agents play at different levels."""

from __future__ import annotations

import pathlib
import shlex
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

from jaxshare import cli
from jaxshare.collection.settings import Config
from jaxshare.data import card, own, target
from jaxshare.run import output
from jaxshare.run.watch import host_errors
from jaxshare.settings.help import small_command
from jaxshare.settings.validate import check_record
from jaxshare.terminal import open_console, open_progress
from jaxshare.trust import Permission
from jaxshare.types import RefusedError

if TYPE_CHECKING:
    from jaxshare.run.saved import SavedRun

HELP = """\
usage: python -m jaxshare.collect run_dir=RUN out=SET.jds [key=value ...]

Roll out teams whose agents play at different levels (r random, m medium, e expert) and write their
episodes as a data set, with a card and a picture of what is in it. The levels are checkpoints of
one run, cut by their return, so train with checkpoints kept:
  python -m jaxshare.train algo=qmix env=smax env.scenario=2s3z checkpoint.every=20000 \\
      checkpoint.keep=1000 checkpoint.replay=false run_dir=runs/2s3z
  python -m jaxshare.collect run_dir=runs/2s3z out=sets/2s3z_low.jds \\
      "composition='rrrrr + rmrmm'" episodes=2000

settings and their defaults
{settings}
"""


def main() -> None:
    """Entry point."""
    cli.run_command(lambda: small_command(HELP, Config, collect, sys.argv[1:]))


def collect(config: Config) -> pathlib.Path:
    """Measure checkpoints, play the composition, write the data set: its path.

    Raises RefusedError.
    """
    for key in ("run_dir", "out"):
        if not getattr(config, key):
            raise RefusedError(
                f"{key} is missing: python -m jaxshare.collect run_dir=RUN out=SET.jds."
            )
    check_record(config)
    from jaxshare.run.saved import open_run  # with orbax

    # try the place, before anything is read
    target.check_free(target.Target(pathlib.Path(config.out), "own", overwrite=config.overwrite))
    output.check_writable(pathlib.Path(config.out), "out", folder=True)

    permission = Permission(config.trust, takes_env=False, plugins=config.plugins)
    with (
        closing(open_run(config.run_dir, permission=permission)) as run,
        # checkpoints are measured where runs are evaluated, episodes played where they train
        host_errors(run.program.evaluator),
        host_errors(run.program.env),
    ):
        return _collect(config, run)


def _collect(config: Config, run: SavedRun) -> pathlib.Path:
    from jaxshare.collection import picture, policies, pools, teams  # with orbax

    console = open_console()
    spec = run.program.env.spec
    composition, note = pools.composition_of(config.composition, spec)

    # measure the checkpoints, and cut them into pools
    sample = policies.Sample(config.pool_episodes, config.seed)
    with open_progress(console, config.progress) as bar:
        measured = policies.measure(run, sample, bar)
    cut = pools.cut(measured, config.rule, run.settings.env_name)
    members = pools.members(composition, cut, measured)
    console.print(pools.table(cut, measured, members))

    # play and write
    about: dict[str, Any] = {"run_dir": config.run_dir, "algorithm": run.settings.algo_name}
    about |= {"epsilon": config.epsilon, "pools": pools.card_of(cut, measured), "seed": config.seed}
    described = card.card_of(spec, str(composition), **about, **note)
    schedule = teams.schedule(composition, members, config.episodes, config.seed)
    player = teams.make_player(run, config.epsilon)
    batches = teams.play(player, measured.params, schedule, config.batch, config.seed)
    with (
        own.Writer(config.out, described, config.dtype, spec, overwrite=config.overwrite) as writer,
        open_progress(console, config.progress) as bar,
    ):
        teams.record(batches, config.episodes, writer, bar)

    # tell how good it is
    stored = own.open(config.out)
    lines = [*pools.verdict(config.composition, cut, stored.card), f"written: {stored.path}"]
    learn = f"algo=icq env={run.settings.env_name} {shlex.quote(f'data={stored.path}')}"
    lines += [f"picture: {picture.draw(stored.card, stored.path)}"]
    console.print("\n".join([*lines, f"learn:   python -m jaxshare.train {learn} …"]))
    return stored.path

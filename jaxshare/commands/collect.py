"""python -m jaxshare.collect: a data set of teams whose agents play at different levels."""

from __future__ import annotations

import pathlib
import shlex
import sys
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxshare import cli
from jaxshare.replay import DTYPES
from jaxshare.run import output
from jaxshare.settings.fields import COUNT, UNITS, static
from jaxshare.settings.validate import check_record
from jaxshare.trust import Permission, run_settings
from jaxshare.types import RefusedError

if TYPE_CHECKING:
    from jaxshare.config import Settings
    from jaxshare.runner import Program


@dataclass(frozen=True)
class Config:
    """What to collect."""

    run_dir: str = ""  # a run whose checkpoints are the policies: checkpoint.keep=1000 checkpoint.every=… replay=false
    out: str = ""  # the data set to write, as in sets/2s3z_low.jds
    composition: str = "low"  # levels of the agents, as in "rrr + rrm", or the paper's: low, medium, extreme, …
    episodes: int = static(10_000, least=1, most=COUNT)  # paper: SIT appendix C.2
    batch: int = static(64, least=1, most=UNITS)  # episodes played at a time
    # share of random actions (ours: as after training); 0: greedy. Actors draw from themselves
    epsilon: float = static(0.05, least=0, most=1)
    pool_episodes: int = static(64, least=1, most=COUNT)  # to measure the return of each checkpoint
    rule: str | None = None  # 30/40/30 | thirds; null: the paper's for this environment
    seed: int = static(0, least=0, most=COUNT)
    # of observations and states on disk
    dtype: str = static("float16", choices=DTYPES)
    overwrite: bool = False  # replace a data set of the same name
    progress: bool = True


HELP = """\
usage: python -m jaxshare.collect run_dir=RUN out=SET.jds [key=value ...]

Roll out teams whose agents play at different levels (r random, m medium, e expert) and write their episodes as a data
set, with a card and a picture of what is in it. The levels are checkpoints of one run, cut by their return, so train
with checkpoints kept:
  python -m jaxshare.train algo=qmix env=smax env.scenario=2s3z checkpoint.every=20000 checkpoint.keep=1000 \\
      checkpoint.replay=false run_dir=runs/2s3z
  python -m jaxshare.collect run_dir=runs/2s3z out=sets/2s3z_low.jds "composition='rrrrr + rmrmm'" episodes=2000

settings and their defaults
{settings}
"""


def main() -> None:
    """Entry point."""
    cli.run_command(lambda: cli.small_command(HELP, Config, collect, sys.argv[1:]))


def collect(config: Config) -> pathlib.Path:
    """Measure checkpoints, play the composition, write the data set: its path. Raises RefusedError."""
    for key in ("run_dir", "out"):
        if not getattr(config, key):
            raise RefusedError(f"{key} is missing: python -m jaxshare.collect run_dir=RUN out=SET.jds.")
    check_record(config)
    from jaxshare.collection import policies
    from jaxshare.data import target
    from jaxshare.session import prepare

    target.check_free(target.Target(pathlib.Path(config.out), "own", overwrite=config.overwrite))
    output.check_writable(pathlib.Path(config.out), "out", folder=True)

    # in JAX there is nothing that a file could name, so no permission is asked for
    settings = run_settings(pathlib.Path(config.run_dir), Permission(), policies.check_in_jax)
    program = prepare(settings)
    with closing(program):
        return _collect(config, settings, program)


def _collect(config: Config, settings: Settings, program: Program) -> pathlib.Path:
    from jaxshare.collection import picture, policies, pools, teams
    from jaxshare.data import card, own
    from jaxshare.terminal import open_console, open_progress

    console = open_console()
    spec = program.env.spec
    composition, note = pools.composition_of(config.composition, spec)

    # measure the checkpoints, and cut them into pools
    sample = policies.Sample(config.pool_episodes, config.seed)
    with open_progress(console, config.progress) as bar:
        measured = policies.measure(pathlib.Path(config.run_dir), settings, program, sample, bar)
    cut = pools.cut(measured, config.rule, settings.env_name)
    members = pools.members(composition, cut, measured)
    console.print(pools.table(cut, measured, members))

    # play and write
    about: dict[str, Any] = {"run_dir": config.run_dir, "algorithm": settings.algo_name}
    about |= {"epsilon": config.epsilon, "pools": pools.card_of(cut, measured), "seed": config.seed}
    described = card.card_of(spec, str(composition), **about, **note)
    schedule = teams.schedule(composition, members, config.episodes, config.seed)
    player = teams.make_player(settings, program, config.epsilon)
    batches = teams.play(player, measured.params, schedule, config.batch, config.seed)
    with (
        own.Writer(config.out, described, config.dtype, spec, overwrite=config.overwrite) as writer,
        open_progress(console, config.progress) as bar,
    ):
        teams.record(batches, config.episodes, writer, bar)

    # tell how good it is
    stored = own.open(config.out)
    lines = [*pools.verdict(config.composition, cut, stored.card), f"written: {stored.path}"]
    learn = f"algo=icq env={settings.env_name} {shlex.quote(f'data={stored.path}')}"
    lines += [f"picture: {picture.draw(stored.card, stored.path)}"]
    console.print("\n".join([*lines, f"learn:   python -m jaxshare.train {learn} …"]))
    return stored.path

"""python -m jaxshare.convert: a data set of one format as one of another."""

from __future__ import annotations

import pathlib
import shlex
import sys
from dataclasses import asdict, dataclass

from jaxshare import cli
from jaxshare.data import converting, exchanging, formats
from jaxshare.data import target as targets
from jaxshare.run import output
from jaxshare.settings.fields import COUNT, file_path, flag, nested, static
from jaxshare.settings.help import small_command
from jaxshare.settings.run_parts import DatasetConfig
from jaxshare.settings.validate import check_record
from jaxshare.terminal import open_console, open_progress
from jaxshare.training.replay import DTYPES
from jaxshare.types import RefusedError


@dataclass(frozen=True)
class Config:
    """What to convert."""

    data: str = file_path(
        "",
        help="the data set to read: NAME.jds, a vault, an HDF5 file or a folder of its parts",
    )
    out: str = file_path(
        "",
        help="the data set to write: NAME.jds (jaxshare's own), NAME.vlt/UID (vault), "
        "NAME.h5 (PyMARL)",
    )
    format: str | None = static(
        None,
        choices=("own", "vault", "hdf5"),
        help="which format; null: as the name of out says",
        source="ours",
    )
    dtype: str | None = static(
        None,
        choices=DTYPES,
        help="type of observations and states in jaxshare's own format; null: as they are read",
        source="ours",
    )
    lossy: bool = flag(
        False, help="write also what the other format cannot hold in full", source="ours"
    )
    exchange: bool = flag(
        False,
        help="agents of a type change places at random in each episode",
        source="ours: off; paper: SIT Fig. 1 (f) tries it",
    )
    exchange_seed: int = static(
        0, least=0, most=COUNT, help="seed of those orders; only with exchange", source="ours"
    )
    overwrite: bool = flag(
        False, help="replace a data set of the same name and format", source="ours"
    )
    progress: bool = flag(True, help="the bar on the console", source="ours")
    dataset: DatasetConfig = nested(
        DatasetConfig,
        help="how a data set of a format other than jaxshare's own is read",
    )


HELP = """\
usage: python -m jaxshare.convert data=SET out=SET [key=value ...]

Write a data set in another format: jaxshare's own (.jds), a vault of OG-MARL (.vlt/UID) or an HDF5
file of PyMARL (.h5). What is read is recognised by what it is, and checked as the train command
does; dataset.* mean the same there.
  python -m jaxshare.convert data=sets/2s3z_low.jds out=sets/2s3z_low.h5
  python -m jaxshare.convert data=smac_v1/3m.vlt/Good out=sets/3m.jds dataset.last_step=keep
  python -m jaxshare.convert data=sets/2s3z_low.jds out=smax/2s3z.vlt/Low lossy=true
  python -m jaxshare.convert data=sets/2s3z_low.jds out=sets/2s3z_mixed.jds exchange=true

No format but ours holds everything. A conversion that would lose what a learner can use says what
that is, and is refused without lossy=true: rewards of each agent alone (HDF5), what the last step
of an episode that was cut off led to (vaults), and what policies said of their actions (both).

settings and their defaults
{settings}
"""


def main() -> None:
    """Entry point."""
    cli.run_command(lambda: small_command(HELP, Config, convert, sys.argv[1:]))


def convert(config: Config) -> pathlib.Path:
    """Read, check, write and tell: the path of what was written. Raises RefusedError."""
    for key in ("data", "out"):
        if not getattr(config, key):
            usage = "python -m jaxshare.convert data=SET.jds out=SET.h5"
            raise RefusedError(f"{key} is missing: {usage}.")
    check_record(config)

    # try the place, before anything is read
    target = targets.target_of(config.out, config.format, config.dtype, config.overwrite)
    source = formats.open_any(config.data, **asdict(config.dataset))
    targets.check_apart(source, target)
    output.check_writable(target.path, "out", folder=True)

    # read, and compare with what the other format can hold
    console = open_console()
    with open_progress(console, config.progress) as bar:
        task = bar.add_task("reading", total=None)
        dataset = source.read()
        if config.exchange:
            dataset = exchanging.exchange(dataset, config.exchange_seed)
        lost = converting.losses(source, dataset, target)
        if lost and not config.lossy:
            raise RefusedError(
                f"out={config.out}, {targets.FORMATS[target.format]}, would lack "
                f"{'; and '.join(lost)}. Say lossy=true to write the rest, or choose another "
                "format."
            )
        bar.update(task, description="writing", total=1.0)
        converting.write(source, dataset, target, lambda share: bar.update(task, completed=share))

    # tell what came out
    stored = formats.open_like(target.path, {"last_step": "keep"})
    lines = converting.told(stored.card, lost, converting.remarks(source, dataset, target))
    learn = shlex.quote(f"data={target.path}")
    lines += [f"written: {target.path}", f"learn:   python -m jaxshare.train algo=… {learn}"]
    console.print("\n".join(lines))
    return target.path

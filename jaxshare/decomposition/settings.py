"""What to look at: the settings of the decompose command."""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.settings.fields import file_path
from jaxshare.trust import RunCode


@dataclass(frozen=True)
class Config(RunCode):
    """What to look at."""

    run_dir: str = file_path("", help="a run directory of algo=sit, finished or not")
    data: str = file_path(
        "",
        help="a data set to look at, of the same environment; empty: that of the run",
    )
    out: str = file_path(
        "",
        help="files to write, a .json and a .png, without suffix; empty: RUN/decomposition",
    )

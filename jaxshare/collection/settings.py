"""What to collect: the settings of the collect command."""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.settings.fields import COUNT, UNITS, file_path, flag, free_text, static, text_list
from jaxshare.training.replay import DTYPES


@dataclass(frozen=True)
class Config:
    """What to collect."""

    run_dir: str = file_path(
        "",
        help="a run directory whose checkpoints are the policies; "
        "train it with checkpoint.keep=1000",
    )
    out: str = file_path("", help="the data set to write, as in sets/2s3z_low.jds")
    composition: str = free_text(
        "low",
        help='levels of the agents, as in "rrr + rrm", or the paper\'s: low, medium, extreme, …',
    )
    episodes: int = static(
        10_000,
        least=1,
        most=COUNT,
        help="episodes of the data set",
        source="paper: SIT appendix C.2",
    )
    batch: int = static(
        64,
        least=1,
        most=UNITS,
        help="episodes played at a time",
        source="ours: what is fast",
    )
    epsilon: float = static(
        0.05,
        least=0,
        most=1,
        help="share of random actions; 0: greedy; actors draw from themselves",
        source="ours: as after training",
    )
    pool_episodes: int = static(
        64,
        least=1,
        most=COUNT,
        help="episodes that measure the return of each checkpoint",
        source="ours",
    )
    rule: str | None = free_text(
        None, help="30/40/30 | thirds; null: the paper's for this environment", source="paper: SIT"
    )
    seed: int = static(0, least=0, most=COUNT, help="seed of the episodes", source="ours")
    dtype: str = static(
        "float16",
        choices=DTYPES,
        help="type of observations and states on disk",
        source="ours: half the size",
    )
    overwrite: bool = flag(False, help="replace a data set of the same name")
    progress: bool = flag(True, help="the bar on the console")
    trust: bool = flag(False, help="run the code that config.yaml names from outside jaxshare")
    plugins: list[str] = text_list(
        help="or name it again: dotted paths and files of what it has from outside jaxshare",
    )

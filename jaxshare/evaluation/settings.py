"""What to evaluate: the settings of the evaluate command."""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.settings.fields import COUNT, UNITS, file_path, flag, free_text, static, text_list
from jaxshare.settings.run_parts import POLICIES
from jaxshare.trust import RunCode


@dataclass(frozen=True)
class Config(RunCode):
    """What to evaluate."""

    run_dir: str = file_path("", help="a run directory of jaxshare.train")
    episodes: int = static(128, least=1, most=COUNT, help="episodes per run", source="ours")
    policy: str | None = static(
        None,
        choices=tuple(POLICIES),
        help="what plays: greedy, stochastic (as training explored), both; null: eval.policy",
    )
    checkpoint: int | str | None = free_text(
        None,
        help="its iteration, or best (of a run with checkpoint.best=true); null: the newest",
    )
    out: str | None = file_path(
        None,
        help="the file to write; null: evaluation.json in the run directory, which report reads",
    )
    final: bool = flag(
        False,
        help="the newest checkpoint beside checkpoint=best, on the same episodes",
    )
    seed: int | None = static(
        None,
        least=0,
        most=COUNT,
        help="seed of the episodes; null: the run's eval.seed; with checkpoint=best eval.seed + 1",
    )
    gif: str | None = file_path(
        None,
        help="write one episode here, with every agent's individual reward (or utility, or value)",
    )
    gif_run: int = static(
        0,
        least=0,
        most=UNITS,
        help="which run to show; 0 is the first seed",
        source="ours",
    )
    picture: str | None = file_path(
        None,
        help="write steps of that episode here as a PNG, with the same bars",
    )
    picture_steps: list[str] = text_list(help="which steps, as in [3,12]; []: four from end to end")

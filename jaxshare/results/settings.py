"""What to report: the settings of the report command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxshare.settings.fields import (
    COUNT,
    file_path,
    flag,
    free_table,
    free_text,
    static,
    text_list,
)


@dataclass(frozen=True)
class Config:
    """What to report."""

    runs: list[str] = text_list(help="the same as bare arguments: DIR, a glob, or LABEL=DIR")
    out: str = file_path(
        "report",
        help="folder of the report; files of an earlier one are written over",
    )
    metric: str | None = free_text(
        None,
        help="return, win_rate, or any other that evaluations log; null: win_rate if all have it",
    )
    score: str = static(
        "curve",
        choices=("curve", "final", "best"),
        help="score of a run: curve (evaluations in training), final or best (jaxshare.evaluate)",
        source="ours",
    )
    last: int = static(
        1,
        least=1,
        most=COUNT,
        help="evaluations whose mean is the score, with score=curve",
        source="ours",
    )
    at: str = static(
        "common",
        choices=("common", "end"),
        help="scores are taken where the task's shortest run ends (common), or the group's (end)",
        source="ours",
    )
    unfinished: str = static(
        "cut",
        choices=("cut", "drop", "refuse"),
        help="runs not at their end: cut (they may be the shortest), drop, or refuse",
        source="ours",
    )
    skip: bool = flag(
        False,
        help="leave out what is no run directory or has no evaluation, instead of refusing it",
    )
    ignore: list[str] = text_list(
        help="settings that may differ within a group, as in [total_env_steps]",
    )
    per_task: list[str] = text_list(help="settings that a group may have of its own for each task")
    ranges: dict[str, Any] = free_table(help="scores that count as 0 and 1, as in {2s3z:[0,20]}")
    confidence: float = static(
        0.95, above=0, below=1, help="confidence of intervals", source="paper: Agarwal et al. 2021"
    )
    resamples: int = static(
        10_000,
        least=1,
        most=COUNT,
        help="bootstraps of a table, a tenth of curves and profiles",
        source="ours: quick; paper: Agarwal et al. 2021 has 50,000 and 2,000",
    )
    seed: int = static(0, least=0, most=COUNT, help="seed of the bootstrap", source="ours")

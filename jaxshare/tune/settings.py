"""Settings of a search, besides those of its runs and the ranges that it searches."""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.settings.fields import COUNT, UNITS, file_path, free_text, static


@dataclass(frozen=True)
class Config:
    """How to search."""

    trials: int = static(
        32,
        least=1,
        most=COUNT,
        help="trials of the search, of all its processes together; more may be asked for later",
        source="ours",
    )
    batch: int = static(
        8,
        least=1,
        most=UNITS,
        help="trials that are trained together, in one compiled program",
        source="ours",
    )
    out: str = file_path(
        "", help="folder of the search; empty: runs/tune and the name of the YAML file"
    )
    metric: str | None = free_text(
        None,
        help="what evaluations log, to be maximised; null: win_rate if they have it, or return",
    )
    last: int = static(
        1,
        least=1,
        most=COUNT,
        help="last evaluations of a run, whose mean is its score",
        source="ours: as in reports",
    )
    sampler: str = static(
        "tpe",
        choices=("tpe", "random"),
        help="who proposes: Optuna's tree-structured Parzen estimator, or chance",
        source="ours: Optuna's own default",
    )
    sampler_seed: int = static(0, least=0, most=COUNT, help="seed of the sampler", source="ours")
    confirm: int = static(
        0,
        least=0,
        most=UNITS,
        help="fresh seeds on which the best trial is trained once more in the end; 0: none",
        source="ours",
    )
    confidence: float = static(
        0.95, above=0, below=1, help="confidence of intervals", source="paper: Agarwal et al. 2021"
    )
    resamples: int = static(
        2_000, least=1, most=COUNT, help="bootstraps of an interval", source="ours: quick"
    )

"""What jaxshare.evaluate has played with the runs of a directory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxshare.results import curves
from jaxshare.results.curves import Record
from jaxshare.run import BEST
from jaxshare.run.saved import SavedRun

NO_SCORES = ("seed", "env_steps", "selected_return")  # what evaluation.json has beside scores


@dataclass(frozen=True)
class Played:
    """What jaxshare.evaluate has played with one checkpoint of a run."""

    scores: dict[str, float]
    env_steps: int  # of the checkpoint
    episodes: int | None
    policy: str | None
    seed: int | None  # of the episodes


def read_played(saved: SavedRun) -> dict[str, dict[str, Played]]:
    """{"final" or "best": {name of a run: what was played}} of evaluation.json; {} without it."""
    whole = saved.evaluation
    if whole is None:
        return {}
    parts = {"best" if whole["checkpoint"] == BEST else "final": whole}
    if "final" in whole:
        parts["final"] = whole["final"]
    played: dict[str, dict[str, Played]] = {}
    for kind, part in parts.items():
        played[kind] = {curves.run_name(row): _played(row, whole) for row in part["runs"]}
    return played


def _played(row: Record, whole: dict[str, Any]) -> Played:
    """Of a row of evaluation.json, and of what stands there for all rows."""
    scores = {}
    for name, value in row.items():
        if name not in NO_SCORES and curves.SWEPT not in name:
            scores[name] = value
    return Played(
        scores=scores,
        env_steps=row.get("env_steps", 0),
        episodes=whole.get("episodes"),
        policy=whole.get("policy"),
        seed=whole.get("eval_seed"),
    )

"""What the decompose command makes of a run and a data set, as numbers, a table and a picture."""

from __future__ import annotations

import json
import pathlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jaxshare.data.environment import check_spec
from jaxshare.data.formats import open_like
from jaxshare.decomposition.curves import Curves, curves
from jaxshare.decomposition.picture import draw
from jaxshare.decomposition.statistics import mean, statistics
from jaxshare.decomposition.table import remarks, table
from jaxshare.decomposition.trajectories import judge, known_levels
from jaxshare.run.loggers import METRICS
from jaxshare.run.saved import SavedRun


@dataclass(frozen=True)
class Decomposition:
    """The numbers, and what the picture needs besides."""

    result: dict[str, Any]  # plain values, as the JSON file holds them
    curves: Curves
    priority: list[np.ndarray]  # of each run, [E, N]
    level: np.ndarray  # [E, N]


def decompose(run: SavedRun, data: pathlib.Path) -> Decomposition:
    """Judge the trajectories of a data set by the newest checkpoint of a run of SIT.

    Raises RefusedError for a run without a checkpoint, and for a data set that does not fit.
    """
    # judge the trajectories; without a checkpoint no data set is read
    settings = run.settings
    spec = run.program.env.spec
    step = run.step
    dataset = open_like(data, asdict(settings.run.dataset)).read()
    check_spec(dataset, spec, f"data={data}")
    judgements = judge(run, dataset)
    level = known_levels(dataset)

    runs = []
    for label, judgement in zip(run.labels, judgements, strict=True):
        runs.append({**label, **statistics(judgement, level, spec)})

    # what was judged
    first = settings.algo.stage1_updates
    updates = int(run.clock.updates)
    stage = {"updates": min(updates, first), "of": first, "finished": updates >= first}
    names = ("decomposition", "ensemble", "priority")
    result: dict[str, Any] = {
        "run_dir": str(run.run_dir),
        "checkpoint": step,
        "environment": spec.name,
        "data": str(data),
        "learned_from": settings.run.data,
        "composition": dataset.card.get("composition"),
        "episodes": len(dataset),
    }
    result["agent_types"] = [spec.group_names[group] for group in spec.groups]
    result["stage1"] = stage
    result["settings"] = {name: getattr(settings.algo, name) for name in names}
    result["runs"] = runs
    result["mean"] = mean([{"types": run["types"]} for run in runs])

    # what was logged meanwhile
    records = run.records() if (run.run_dir / METRICS).exists() else []
    logged = curves(records, spec.num_agents, first)
    return Decomposition(result, logged, [each["priority"] for each in judgements], level)


def to_print(decomposition: Decomposition) -> list[Any]:
    """What a person sees: the table, and sentences."""
    return [table(decomposition.result), *remarks(decomposition.result)]


def files(decomposition: Decomposition) -> dict[str, bytes]:
    """The content of each file by its suffix."""
    text = json.dumps(decomposition.result, indent=1, allow_nan=False) + "\n"
    result = decomposition.result
    picture = draw(result, decomposition.curves, decomposition.priority, decomposition.level)
    return {".json": text.encode(), ".png": picture}

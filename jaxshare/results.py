"""Reading metrics.jsonl back: first and last evaluations, and the learning curve as a picture."""

from __future__ import annotations

import io
import pathlib
from typing import Any

import numpy as np

from jaxshare import durable
from jaxshare.run import metrics
from jaxshare.types import RefusedError

CURVE = "learning_curve.png"


def load(run_dir: pathlib.Path, counters: tuple[str, ...] = ("seed",)) -> list[dict[str, Any]]:
    """All records of a run directory. A last line cut off by a kill is left out.

    counters: what every record must have. Raises RefusedError naming file and line for what cannot be read.
    """
    records, problems = metrics.read(run_dir, counters)
    if problems:
        raise RefusedError(problems[0])
    return records


def run_name(record: dict[str, Any]) -> str:
    """'seed 0, lr=0.001': which run a record belongs to."""
    point = [f"{k.removeprefix('sweep.')}={v}" for k, v in record.items() if k.startswith("sweep.")]
    return ", ".join([f"seed {record['seed']}", *point])


def evaluations(records: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The evaluation records of each run, in order."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        if "eval/return" in record:
            runs.setdefault(run_name(record), []).append(record)
    return runs


def first_and_last(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per run, then their mean: {"run", "env_steps", "<metric> first", "<metric> last"}.

    Metrics that a run lacks at its first or last evaluation, or that other runs lack, are left out; [] without an
    evaluation.
    """
    rows: list[dict[str, Any]] = []
    for name, found in evaluations(records).items():
        row: dict[str, Any] = {"run": name, "env_steps": found[-1]["env_steps"]}
        for key in (k for k in found[-1] if k.startswith("eval/") and k in found[0]):
            row |= {f"{key[5:]} first": found[0][key], f"{key[5:]} last": found[-1][key]}
        rows.append(row)
    if not rows:
        return []
    common = [key for key in rows[0] if key != "run" and all(key in row for row in rows)]
    mean = {key: float(np.mean([row[key] for row in rows])) for key in common}
    return [*rows, {"run": "mean", **mean}]


def draw(records: list[dict[str, Any]], run_dir: pathlib.Path) -> pathlib.Path:
    """The learning curve of every run and their mean against environment steps, as a PNG. There is an evaluation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib import ticker

    runs = evaluations(records)
    panels = [key for key in ("eval/win_rate", "eval/return") if _has(runs, key)]
    figure, axes = plt.subplots(1, len(panels), figsize=(5.2 * len(panels), 3.8), squeeze=False)
    for axis, key in zip(axes[0], panels, strict=True):
        x = "env_steps" if records[-1]["env_steps"] else "updates"  # with a data set no environment steps are made
        curves = {name: ([r[x] for r in found], [r[key] for r in found]) for name, found in runs.items()}
        for name, (steps, values) in curves.items():
            axis.plot(steps, values, lw=1, alpha=0.6, marker=".", ms=3, label=name)
        if len(curves) > 1:
            axis.plot(*_mean_curve(list(curves.values())), color="black", lw=2, label="mean")
        axis.set_xlabel("environment steps" if x == "env_steps" else "updates")
        axis.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
        axis.set_ylabel(f"test {key[5:].replace('_', ' ')}")
        axis.set_ylim((0, 1.02) if key == "eval/win_rate" else None)
        axis.grid(alpha=0.3)
    axes[0][-1].legend(fontsize=8, loc="best")
    figure.suptitle(run_dir.name)
    figure.tight_layout()
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, format="png")
    plt.close(figure)
    durable.write_bytes(run_dir / CURVE, picture.getvalue())  # which follows no link
    return run_dir / CURVE


def _has(runs: dict[str, list[dict[str, Any]]], key: str) -> bool:
    return all(key in record for found in runs.values() for record in found)


def _mean_curve(curves: list[tuple[list[float], list[float]]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean over runs on a common grid, as far as every run goes."""
    grid = np.linspace(max(s[0] for s, _ in curves), min(s[-1] for s, _ in curves), 100)
    return grid, np.mean([np.interp(grid, s, v) for s, v in curves], axis=0)

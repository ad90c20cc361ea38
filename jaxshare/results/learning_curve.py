"""The picture that a run leaves at its end: every seed, and their mean."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import replace

from jaxshare import durable
from jaxshare.results import figures
from jaxshare.results.curves import (
    RETURN,
    WIN_RATE,
    Curve,
    Record,
    learning_curves,
    mean_curve,
    progress_key,
)
from jaxshare.results.figures import MOST_NAMES, Line, Look, Panel
from jaxshare.run.metrics import EVALUATED

PICTURE = "learning_curve.png"
WHOLE_RATE = (0.0, 1.02)  # what an axis of win rates shows
DPI = 120


def draw(records: Sequence[Record], run_dir: pathlib.Path) -> pathlib.Path:
    """Draw the evaluations of every run and their mean against progress; the file written.

    records: of a run directory, with an evaluation at least. Raises OSError.
    """
    # what there is to show
    metrics = [metric for metric in (WIN_RATE, RETURN) if _all_have(records, metric)]

    # a panel each
    figure = figures.new_figure(5.2 * len(metrics), 3.8)
    axes = list(figure.subplots(1, len(metrics), squeeze=False).flat)
    for axis, metric in zip(axes, metrics, strict=True):
        figures.draw_curves(axis, _panel(records, metric))
    figures.legend_inside(axes[-1])
    figure.suptitle(figures.no_formula(run_dir.name))

    # write it, through no link
    path = run_dir / PICTURE
    durable.write_bytes(path, figures.png(figure, DPI))
    return path


def _all_have(records: Sequence[Record], metric: str) -> bool:
    """Whether every evaluation has a metric."""
    return all(metric in record for record in records if RETURN in record)


def _panel(records: Sequence[Record], metric: str) -> Panel:
    curves = learning_curves(records, metric)
    lines = _each_run(curves)
    if len(curves) > 1:
        mean = mean_curve(list(curves.values()))
        lines.append(Line(mean, "mean", Look("black", width=2.0)))
    offline = progress_key(records[-1]) == "updates"
    name = metric.removeprefix(EVALUATED).replace("_", " ")
    return Panel(
        lines,
        x_label="updates" if offline else "environment steps",
        y_label=f"test {name}",
        y_range=WHOLE_RATE if metric == WIN_RATE else None,
        font_size=10.0,
    )


def _each_run(curves: dict[str, Curve]) -> list[Line]:
    """A line for each run, by its name; of very many, one name for all."""
    names = [figures.no_formula(name) for name in curves]
    if len(names) >= MOST_NAMES:  # the mean has a name as well
        names = [f"each of {len(curves):,} runs", *[""] * (len(curves) - 1)]
    look = figures.looks(list(curves))
    lines = []
    for name, (run, curve) in zip(names, curves.items(), strict=True):
        thin = replace(look[run], dash="-", width=1.0, alpha=0.6, marker=".")
        lines.append(Line(curve, name, thin))
    return lines

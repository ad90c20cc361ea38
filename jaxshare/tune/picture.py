"""The picture of a search: values by trial, and against each parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxshare.results.curves import Curve
from jaxshare.results.figures import (
    Line,
    Look,
    Panel,
    draw_curves,
    legend_inside,
    new_figure,
    no_formula,
    png,
)
from jaxshare.tune.outcome import Outcome, Trial, best_of
from jaxshare.tune.plan import Plan
from jaxshare.tune.space import Parameter

if TYPE_CHECKING:
    from jaxshare.results.figures import Axes

COLUMNS = 4  # of panels
TRIALS = "tab:blue"
BEST = "tab:orange"
FAILED = "tab:red"


def draw(plan: Plan, trials: Sequence[Trial], metric: str) -> bytes:
    """All trials that have ended, as a PNG: by number, and a panel for each parameter."""
    rows = 1 + math.ceil(len(plan.space) / COLUMNS)
    columns = min(COLUMNS, len(plan.space))
    figure = new_figure(max(7.0, 3.4 * columns), 3.2 * rows)
    grid = figure.add_gridspec(rows, columns)
    ended = [trial for trial in trials if trial.outcome is not None]

    # by number
    axis = figure.add_subplot(grid[0, :])
    _draw_history(axis, ended, metric)

    # against each parameter
    for index, searched in enumerate(plan.space):
        place = grid[1 + index // columns, index % columns]
        _draw_slice(figure.add_subplot(place), searched, ended, metric)
    return png(figure)


def _draw_history(axis: Axes, ended: Sequence[Trial], metric: str) -> None:
    """Values with their intervals, the best so far, and which trials have failed."""
    scored = _scored(ended)
    lines = []
    if scored:
        x = np.array([trial.number for trial, _ in scored], float)
        y = np.array([outcome.value for _, outcome in scored])
        best = Curve(x, np.maximum.accumulate(y))
        lines.append(Line(best, "best so far", Look(BEST)))
    panel = Panel(
        lines,
        title=f"{len(ended)} trials",
        x_label="trial",
        y_label=f"{no_formula(metric)}, IQM",
        stairs=True,
        counts=False,
    )
    draw_curves(axis, panel)
    _draw_values(axis, [float(trial.number) for trial, _ in scored], scored)

    # failed ones stand at the bottom, where no value is
    failed = [trial.number for trial in ended if not trial.is_scored]
    if failed:
        bottom = axis.get_xaxis_transform()
        at = np.full(len(failed), 0.03)
        axis.plot(failed, at, "x", color=FAILED, transform=bottom, label="failed")
    axis.locator_params(axis="x", integer=True)
    if scored or failed:
        legend_inside(axis)


def _draw_slice(axis: Axes, searched: Parameter, ended: Sequence[Trial], metric: str) -> None:
    """Values against one parameter."""
    label = f"{no_formula(metric)}, IQM"
    draw_curves(axis, Panel([], x_label=no_formula(searched.key), y_label=label, counts=False))
    scored = _scored(ended)

    # where each trial stands: at the place of its choice, or at its number
    if searched.choices:
        names = [str(choice) for choice in searched.choices]
        axis.set_xticks(range(len(names)), [no_formula(name) for name in names])
        axis.set_xlim(-0.5, len(names) - 0.5)
        places = {choice: float(i) for i, choice in enumerate(searched.choices)}
        x = [places[trial.params[searched.key]] for trial, _ in scored]
    else:
        if searched.is_log:
            axis.set_xscale("log")
        axis.set_xlim(searched.low, searched.high)
        x = [float(trial.params[searched.key]) for trial, _ in scored]
    _draw_values(axis, x, scored)


def _draw_values(axis: Axes, x: Sequence[float], scored: list[tuple[Trial, Outcome]]) -> None:
    """A point with its interval for each trial; the best one in another colour."""
    best = best_of(trial for trial, _ in scored)
    for place, (trial, outcome) in zip(x, scored, strict=True):
        color = BEST if trial is best else TRIALS
        axis.plot([place], [outcome.value], "o", color=color, ms=4)
        if math.isfinite(outcome.low):
            axis.vlines(place, outcome.low, outcome.high, color=color, alpha=0.5, lw=1.2)


def _scored(trials: Sequence[Trial]) -> list[tuple[Trial, Outcome]]:
    """The trials that have a value, each with its outcome."""
    pairs = [(trial, trial.outcome) for trial in trials if trial.is_scored]
    return [(trial, outcome) for trial, outcome in pairs if outcome is not None]

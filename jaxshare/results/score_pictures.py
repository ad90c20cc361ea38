"""The pictures of scores over all tasks: aggregates, performance profiles, pairs of groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxshare.results.figures import (
    LONG_LABEL,
    Line,
    Panel,
    broken,
    draw_curves,
    draw_interval,
    legend_below,
    looks,
    new_figure,
    no_formula,
)
from jaxshare.results.numbers import Pair, Report
from jaxshare.results.tables import STATISTICS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BETTER = "P(X > Y): that a run of X (left) is better than one of Y (right) on the same task"
PAIRS = 6  # of groups, up to which they are bars, and above a table of colours
SHORT_LABEL = 16  # letters, above which a label below a table is broken


def aggregates(report: Report) -> Figure | None:
    """Four panels of aggregates, with a row for each group; None without common tasks."""
    if not report.numbers.groups:
        return None
    groups = report.numbers.pictured
    look = looks(report.numbers.pictured)

    # as high as its labels
    labels = [broken(report.named(group, report.study.common)) for group in groups]
    lines = sum(1 + label.count("\n") for label in labels)
    figure = new_figure(12.0, 1.5 + 0.28 * max(lines, 1.3 * len(labels)))

    # a panel for each aggregate
    axes = figure.subplots(1, len(STATISTICS), sharey=True)
    for axis, (name, title) in zip(axes, STATISTICS.items(), strict=True):
        axis.use_sticky_edges = False
        for y, group in enumerate(groups):
            estimate = report.numbers.groups[group].aggregates[name]
            draw_interval(axis, y, estimate, look[group].color)
        better = "lower" if name == "optimality_gap" else "higher"
        axis.set_title(f"{title} ({better} is better)", fontsize=10)
        axis.grid(alpha=0.3, axis="x")
        axis.locator_params(axis="x", nbins=5)
    axes[0].set_yticks(range(len(labels)), labels)
    axes[0].set_ylim(len(labels) - 0.4, -0.6)
    words = f"normalised {report.metric} on {report.over}; {report.band}"
    figure.supxlabel(no_formula(words), fontsize=10)
    return figure


def profiles(report: Report) -> Figure | None:
    """Share of runs above each score; None without common tasks."""
    if not report.numbers.groups:
        return None

    # a line for each group
    look = looks(report.numbers.pictured)
    lines = []
    for group in report.numbers.pictured:
        label = broken(report.named(group, report.study.common), LONG_LABEL)
        lines.append(Line(report.numbers.groups[group].profile, label, look[group]))

    # one panel
    figure = new_figure(8.0, 4.4 + 0.2 * math.ceil(len(lines) / 3))
    axis = figure.subplots()
    x_label = no_formula(f"normalised {report.metric} τ on {report.over}")
    panel = Panel(
        lines,
        title=f"performance profiles, pointwise {report.band}",
        x_label=x_label,
        y_label="share of runs with a score above τ",
        y_range=(-0.02, 1.02),
        font_size=10.0,
        stairs=True,
        counts=False,
    )
    draw_curves(axis, panel)
    legend_below(figure, [axis])
    return figure


def improvement(report: Report) -> Figure | None:
    """P(X > Y): bars for a few pairs, a table of colours for many; None without pairs."""
    pairs = report.numbers.pairs
    if not pairs:
        return None
    figure = _bars(report, pairs) if len(pairs) <= PAIRS else _table(report, pairs)
    words = f"probability of improvement, {report.metric} on {report.over}; {report.band}"
    figure.suptitle(no_formula(words), fontsize=10)
    return figure


def _bars(report: Report, pairs: Sequence[Pair]) -> Figure:
    look = looks(report.numbers.pictured)
    figure = new_figure(8.0, 1.3 + 0.55 * len(pairs))
    axis = figure.subplots()
    right = axis.twinx()

    # a bar for each pair, between the names of its groups
    for y, pair in enumerate(pairs):
        draw_interval(axis, y, pair.estimate, look[pair.first].color)
    sides = {axis: [pair.first for pair in pairs], right: [pair.second for pair in pairs]}
    for side, groups in sides.items():
        labels = [broken(report.named(group, report.study.common)) for group in groups]
        side.set_yticks(range(len(labels)), labels)
        side.set_ylim(len(labels) - 0.4, -0.6)

    # where the groups are equal
    axis.axvline(0.5, color="black", lw=0.8, ls="--")
    axis.set_xlim(-0.02, 1.02)
    axis.set_xlabel(BETTER)
    axis.grid(alpha=0.3, axis="x")
    return figure


def _table(report: Report, pairs: Sequence[Pair]) -> Figure:
    groups = report.numbers.pictured
    size = len(groups)
    number = {group: i for i, group in enumerate(groups)}
    figure = new_figure(3.0 + 0.75 * size, 2.4 + 0.6 * size)
    axis = figure.subplots()

    # each pair, and the other way round
    table = np.full((size, size), np.nan)
    for pair in pairs:
        estimate = pair.estimate
        sure = np.isfinite(estimate.low) and not estimate.low <= 0.5 <= estimate.high
        value = float(estimate.value)
        first = number[pair.first]
        second = number[pair.second]
        table[first, second] = value
        table[second, first] = 1 - value
        weight = "bold" if sure else "normal"
        for row, column in ((first, second), (second, first)):
            share = table[row, column]
            colour = "white" if abs(share - 0.5) > 0.35 else "black"
            axis.text(
                column,
                row,
                f"{share:.2f}",
                ha="center",
                va="center",
                color=colour,
                fontweight=weight,
            )

    # colours and labels
    axis.imshow(table, cmap="RdBu", vmin=0, vmax=1, aspect="auto")
    labels = [broken(report.named(group, report.study.common)) for group in groups]
    axis.set_yticks(range(size), labels)
    axis.set_xticks(
        range(size),
        [broken(group, SHORT_LABEL) for group in groups],
        rotation=45,
        ha="right",
        rotation_mode="anchor",
    )
    axis.set_xlabel("Y")
    axis.set_ylabel("X")
    axis.set_title("P(X > Y); bold: the interval leaves out one half", fontsize=9)
    return figure

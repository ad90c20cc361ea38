"""The pictures of learning curves: against environment steps or updates, and against time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from jaxshare.results.curves import Curve
from jaxshare.results.figures import (
    LONG_LABEL,
    Line,
    Panel,
    broken,
    draw_curves,
    legend_below,
    looks,
    new_figure,
    no_formula,
)
from jaxshare.results.groups import Place
from jaxshare.results.numbers import Report
from jaxshare.results.study import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 4  # panels in a row
MOST_TASKS = 40  # panels of one picture
TITLE = 34  # letters, above which the title of a panel is broken
NEAR = 0.98  # of the longest curve, from where on its end and the point of scores are one
TIMES = ((2 * 3600.0, 3600.0, "hours"), (120.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))


def curves(report: Report) -> Figure:
    """IQM of evaluations against steps or updates: a panel for each task, and one for all."""
    panels = []
    for name, task in report.study.tasks.items():
        of_task = {group: report.numbers.cells[Place(group, name)].progress for group in task.cells}
        panel = _of_task(report, name, of_task)
        panels.append(replace(panel, x_label=task.unit, scored_at=_scored_at(task, of_task)))
    together = _together(report)
    title = f"IQM of runs, pointwise {report.band}"
    return grid(report, [*panels[:MOST_TASKS], *together], title)


def wall_time(report: Report) -> Figure:
    """IQM of evaluations against the time that the command has run."""
    # one unit for all panels
    longest = max(cell.wall.x[-1] for cell in report.numbers.cells.values())
    _, seconds, unit = next(time for time in TIMES if longest >= time[0])

    # a panel for each task
    panels = []
    for name, task in report.study.tasks.items():
        of_task = {}
        for group in task.cells:
            curve = report.numbers.cells[Place(group, name)].wall
            of_task[group] = replace(curve, x=curve.x / seconds)
        panel = _of_task(report, name, of_task)
        panels.append(replace(panel, x_label=f"{unit} of the whole command", counts=False))
    title = f"IQM of runs against wall time, pointwise {report.band}"
    return grid(report, panels[:MOST_TASKS], title)


def _of_task(report: Report, name: str, of_task: Mapping[str, Curve]) -> Panel:
    """The curves of a task, of the groups that pictures show; what x is comes from the caller."""
    task = report.study.tasks[name]
    lines = _lines(report, of_task)
    title = f"{broken(name, TITLE)}\n{task.count}"
    y_label = f"{task.policy} {no_formula(report.metric)}"
    return Panel(lines, title=title, y_label=y_label)


def _lines(report: Report, of_group: Mapping[str, Curve]) -> list[Line]:
    look = looks(report.numbers.pictured)
    lines = []
    for group in report.numbers.pictured:
        if group in of_group:
            label = broken(report.named(group), LONG_LABEL)
            lines.append(Line(of_group[group], label, look[group]))
    return lines


def _scored_at(task: Task, of_task: Mapping[str, Curve]) -> float | None:
    """Where the scores of all groups are taken, if that is not where the curves end."""
    point = task.end
    last = max(curve.x[-1] for curve in of_task.values())
    together = all(cell.point == point for cell in task.cells.values())
    return point if together and point < NEAR * last else None


def _together(report: Report) -> list[Panel]:
    """A panel of all common tasks, if there are several."""
    overall = {}
    for group, numbers in report.numbers.groups.items():
        if numbers.overall is not None:
            overall[group] = numbers.overall
    if not overall:
        return []

    # one panel, in which scores are normalised
    title = f"{len(report.study.common)} tasks together"
    metric = no_formula(report.metric)
    panel = Panel(
        _lines(report, overall),
        title=title,
        x_label="share of the steps that all runs of a task have",
        y_label=f"normalised {metric}",
        counts=False,
    )
    return [panel]


def grid(report: Report, panels: Sequence[Panel], title: str) -> Figure:
    """Panels side by side, with one legend for all."""
    # how many in a row
    count = len(panels)
    columns = min(COLUMNS, count) if count != 5 else 3
    rows = math.ceil(count / columns)
    entries = math.ceil(len(report.numbers.pictured) / columns)
    figure = new_figure(max(7.0, 3.5 * columns), 0.8 + 3.1 * rows + 0.2 * entries)

    # each of them
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, panel in zip(axes, panels, strict=False):
        draw_curves(axis, panel)
    for axis in axes[count:]:
        axis.axis("off")
    tasks = len(report.study.tasks)
    if tasks > MOST_TASKS:
        title = f"{title}; {MOST_TASKS} of {tasks:,} tasks"
    figure.suptitle(title, fontsize=10)
    legend_below(figure, axes[:count])
    return figure

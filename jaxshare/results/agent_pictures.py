"""Pictures of what single agents do: their returns, and the importance ratios of SEAC."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from jaxshare.results import statistics
from jaxshare.results.curve_pictures import MOST_TASKS, TITLE, grid
from jaxshare.results.curves import Curve, statistic_curve
from jaxshare.results.figures import LONG_LABEL, Line, Panel, broken, looks
from jaxshare.results.numbers import FEWER, Report
from jaxshare.results.runs import Run
from jaxshare.results.statistics import Bootstrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# metrics of evaluations, in words and by the dash of their line
ENDS = {"return/best_agent": ("best agent", "-"), "return/worst_agent": ("worst agent", "--")}
WIDTH = 0.5  # of the last bin of ratios, which is open, in the picture

Lines = Callable[[Report, str, list[Run]], list[Line]]  # of a group's runs on a task


def agents(report: Report) -> Figure | None:
    """Returns of the best and the worst agent while training, as Fig. 7 of SEAC.

    A panel for each task whose rewards are not common; None without such a task.
    """
    title = f"best and worst agent of each run: IQM of runs, pointwise {report.band}"
    return _of_tasks(report, _ends, Panel([], y_label="return"), title)


def ratios(report: Report) -> Figure | None:
    """Where importance ratios lie, as shares of all in training: Fig. 6 of SEAC.

    None if no run logs them.
    """
    panel = Panel(
        [],
        x_label="importance ratio, the last bin is open",
        y_label="share in a bin",
        stairs=True,
        counts=False,
    )
    title = "importance ratios of others' steps: mean over training and runs"
    return _of_tasks(report, _bins, panel, title)


def _of_tasks(report: Report, lines_of: Lines, like: Panel, title: str) -> Figure | None:
    """A panel for each task on which some group has lines; None without one."""
    panels = []
    for name, task in report.study.tasks.items():
        lines: list[Line] = []
        for group in report.numbers.pictured:
            if group in task.cells:
                lines += lines_of(report, group, task.cells[group].runs)
        if lines:
            words = f"{broken(name, TITLE)}\n{task.count}"
            x_label = like.x_label or task.unit
            panels.append(replace(like, lines=lines, title=words, x_label=x_label))
    return grid(report, panels[:MOST_TASKS], title) if panels else None


def _ends(report: Report, group: str, runs: list[Run]) -> list[Line]:
    config = report.config
    bootstrap = Bootstrap(max(1, config.resamples // FEWER), config.confidence, config.seed)
    look = looks(report.numbers.pictured)[group]
    lines = []
    for metric, (words, dash) in ENDS.items():
        if all(metric in run.values for run in runs):
            curves = [run.along_progress(metric) for run in runs]
            curve = statistic_curve(statistics.iqm, curves, bootstrap)
            label = broken(f"{report.named(group)}, {words}", LONG_LABEL)
            lines.append(Line(curve, label, replace(look, dash=dash)))
    return lines


def _bins(report: Report, group: str, runs: list[Run]) -> list[Line]:
    if not all(run.ratios for run in runs):
        return []
    shares = _mean_shares([run.ratios for run in runs])

    # a value holds up to the next bin
    x = [*shares, max(shares) + WIDTH]
    y = [*shares.values(), shares[max(shares)]]
    curve = Curve(np.array(x), np.array(y))
    label = broken(report.named(group), LONG_LABEL)
    return [Line(curve, label, looks(report.numbers.pictured)[group])]


def _mean_shares(of_runs: list[Mapping[float, float]]) -> dict[float, float]:
    """{lower end of a bin: mean share}, from the lowest bin on."""
    means = {}
    for low in sorted(of_runs[0]):
        means[low] = float(np.mean([shares[low] for shares in of_runs]))
    return means

"""The picture of a study: its learning curves, and its checks' values against their bounds."""

from __future__ import annotations

import math
import pathlib
from typing import TYPE_CHECKING

import numpy as np

from jaxshare.results import figures
from jaxshare.results.curves import Curve
from jaxshare.results.figures import Line, Panel
from jaxshare.study.figures import Cell, CheckResult, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3  # panels in a row
DPI = 80
COLOURS = {"confirmed": "tab:green", "not confirmed": "tab:red"}


def draw(name: str, result: Result, folder: pathlib.Path) -> str | None:
    """Write a panel of curves for each task and one of the checks: the picture's path, if any."""
    checks = [check for check in result["checks"] if check.get("value") is not None]
    panels = len(result["cells"]) + bool(checks)
    path = folder / f"{name}.png"
    if not panels:
        path.unlink(missing_ok=True)  # of an earlier page
        return None
    columns = min(COLUMNS, panels)
    rows = math.ceil(panels / columns)
    figure = figures.new_figure(3.7 * columns, 2.9 * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    arms: dict[str, None] = {}
    for cells in result["cells"].values():
        arms |= dict.fromkeys(cells)
    for axis, (task, cells) in zip(axes, result["cells"].items(), strict=False):
        draw_curves(axis, task, cells, list(arms))
    if checks:
        _draw_checks(axes[len(result["cells"])], checks)
    for axis in axes[panels:]:
        axis.axis("off")
    path.write_bytes(figures.png(figure, DPI))
    return f"{folder.name}/{path.name}"


def draw_curves(axis: Axes, task: str, cells: dict[str, Cell], arms: list[str]) -> None:
    """IQM and interval of every arm on a task. arms: of all tasks, for their colours."""
    look = figures.looks(arms)
    lines = []
    for arm, cell in cells.items():
        curve = Curve(**{key: np.array(cell["curve"][key]) for key in ("x", "y", "low", "high")})
        lines.append(Line(curve, figures.no_formula(arm), look[arm]))

    # what all arms have in common
    first = next(iter(cells.values()))
    metric = first["metric"].replace("_", " ")
    panel = Panel(
        lines,
        title=figures.no_formula(task),
        x_label=first["unit"],
        y_label=figures.no_formula(metric),
        font_size=8.0,
    )
    figures.draw_curves(axis, panel)
    figures.legend_inside(axis, font_size=6.0)


def _draw_checks(axis: Axes, checks: list[CheckResult]) -> None:
    """Each interval in units of its own, so that its bound is at 0 and all fit in one panel."""
    for row, check in enumerate(checks):
        value = check["value"]
        low = value if check["low"] is None else check["low"]
        high = value if check["high"] is None else check["high"]
        is_equal = check["compare"] == "equal"
        centre = 0.0 if is_equal else check["bound"]
        edge = check["bound"] if is_equal else 0.0
        points = (low, high, value, centre + edge)
        unit = max(abs(point - centre) for point in points) or 1.0

        # an interval, its value, and its bounds if it must lie within
        colour = COLOURS.get(check["verdict"], "tab:gray")
        ends = [(low - centre) / unit, (high - centre) / unit]
        axis.plot(ends, [-row, -row], color=colour, lw=5, alpha=0.5, solid_capstyle="butt")
        axis.plot((value - centre) / unit, -row, "o", color=colour, ms=4)
        if is_equal:
            axis.plot([-edge / unit, edge / unit], [-row, -row], "k|", ms=10)

    rows = range(len(checks))
    axis.axvline(0, color="black", lw=1)
    axis.set_yticks([-row for row in rows], [str(row + 1) for row in rows])
    axis.set_ylim(-len(checks) + 0.4, 0.6)
    axis.set_xlim(-1.1, 1.1)
    axis.set_xticks([0], ["bound"])
    axis.set_title("checks in their order: value and interval", fontsize=9)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.3, axis="y")

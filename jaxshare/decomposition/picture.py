"""The picture of a decomposition: rewards over stage I, and priorities by level.

Letters: E episodes, N agents, R runs, P points of a curve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxshare.decomposition.curves import Curves
from jaxshare.decomposition.statistics import LEVEL_NAMES
from jaxshare.results.curves import Curve, along
from jaxshare.results.figures import (
    Line,
    Panel,
    draw_curves,
    legend_inside,
    looks,
    new_figure,
    png,
)

if TYPE_CHECKING:
    from jaxshare.results.figures import Axes

COLOURS = {
    "random": "tab:red",
    "medium": "tab:orange",
    "expert": "tab:green",
    "unknown": "tab:gray",
}
BINS = 40


@dataclass(frozen=True)
class Row:
    """The trajectories of one row of histograms."""

    label: str
    priority: np.ndarray  # [Z]
    level: np.ndarray  # [Z]


def draw(
    result: dict[str, Any], curves: Curves, priority: list[np.ndarray], level: np.ndarray
) -> bytes:
    """Three panels as a PNG: rewards over stage I, and priorities by level.

    The priorities of each agent, and those of each type.
    result: what the command writes.
    priority: [E, N] of each run.
    level: [E, N].
    """
    types = result["agent_types"]
    stage = result["stage1"]
    labels = [f"{i} {name}" for i, name in enumerate(types)]
    all_priorities = np.concatenate(priority)  # [R * E, N]
    all_levels = np.tile(level, (len(priority), 1))
    height = max(4.2, 0.42 * len(types) + 1.2)
    figure = new_figure(15.5, height)
    rewards, agents, by_type = figure.subplots(1, 3, width_ratios=(1.15, 1, 1))

    # (a) rewards
    draw_rewards(rewards, curves, labels)
    if not stage["finished"]:
        until = f"now at {stage['updates']:,} of {stage['of']:,}"
        rewards.set_title(f"{rewards.get_title()} ({until})", fontsize=10)

    # (b) priorities of each agent
    agents.set_title("(b) priorities of each agent's trajectories", fontsize=10)
    rows = []
    for i, label in enumerate(labels):
        rows.append(Row(label, all_priorities[:, i], all_levels[:, i]))
    draw_ridges(agents, rows, each=False)

    # (c) priorities of each type
    by_type.set_title("(c) priorities of each type, every level by itself", fontsize=10)
    rows = []
    for kind in dict.fromkeys(types):
        members = [i for i, name in enumerate(types) if name == kind]
        priorities = all_priorities[:, members].ravel()
        rows.append(Row(kind, priorities, all_levels[:, members].ravel()))
    draw_ridges(by_type, rows, each=True)

    what = f"{result['environment']}, {result['composition'] or 'levels not known'}"
    count = f"{len(priority)} run{'s' * (len(priority) > 1)}"
    decomposition = result["settings"]["decomposition"]
    figure.suptitle(f"{what}: decomposition={decomposition}, {count}", fontsize=11)
    return png(figure, dpi=120)


def draw_rewards(axis: Axes, curves: Curves, labels: list[str]) -> None:
    """Each agent's decomposed reward, the mean over runs.

    With a band of one standard deviation.
    """
    panel = Panel(
        _reward_lines(curves, labels) if curves else [],
        title="(a) decomposed rewards in stage I",
        x_label="updates",
        y_label="mean reward of a step",
        font_size=10.0,
    )
    draw_curves(axis, panel)
    if curves:
        legend_inside(axis, title="agent", columns=math.ceil(len(labels) / 6))
        return
    middle: dict[str, Any] = {"ha": "center", "va": "center", "transform": axis.transAxes}
    axis.text(0.5, 0.5, "nothing was logged", **middle)


def _reward_lines(curves: Curves, labels: list[str]) -> list[Line]:
    """A line for each agent, where the run that got least far was logged."""
    shortest, _ = min(curves.values(), key=_last_update)
    grid = np.array(shortest, float)
    marker = "." if len(grid) == 1 else ""
    look = looks(labels)
    lines = []
    for agent, label in enumerate(labels):
        runs = []
        for updates, rewards in curves.values():
            runs.append(Curve(np.array(updates, float), rewards[:, agent]))
        values = along(runs, grid)  # [P, R]
        mean = values.mean(-1)
        spread = values.std(-1)
        curve = Curve(grid, mean)
        if len(runs) > 1:
            curve = Curve(grid, mean, mean - spread, mean + spread)
        lines.append(Line(curve, label, replace(look[label], marker=marker)))
    return lines


def _last_update(curve: tuple[list[float], np.ndarray]) -> float:
    updates, _ = curve
    return updates[-1]


def draw_ridges(axis: Axes, rows: list[Row], each: bool) -> None:
    """A histogram of priorities on each row.

    each: every level by itself, so that rare ones show; otherwise levels are stacked.
    """
    most = max(float(row.priority.max()) for row in rows) or 1.0
    edges = np.linspace(0.0, most, BINS + 1)
    for number, row in enumerate(rows):
        _draw_ridge(axis, row, edges, number, each)
    levels = {int(level) for row in rows for level in np.unique(row.level)}
    for level in sorted(levels):
        axis.bar(0, 0, color=COLOURS[LEVEL_NAMES[level]], label=LEVEL_NAMES[level])
    axis.legend(fontsize=8, loc="upper center", ncols=4)
    axis.set_yticks([-i for i in range(len(rows))], [row.label for row in rows])
    axis.set_ylim(-len(rows) + 0.95, 1.0 + 0.1 * len(rows))  # room for the legend
    axis.set_xlabel("priority")
    axis.grid(alpha=0.3)


def _draw_ridge(axis: Axes, row: Row, edges: np.ndarray, number: int, each: bool) -> None:
    """One row, `number` from the top; edges [BINS + 1]."""
    # {level: [BINS]}, as shares of the level if each is drawn by itself
    counts = {}
    for level in LEVEL_NAMES:
        chosen = row.level == level
        if chosen.any():
            count = np.histogram(row.priority[chosen], edges)[0].astype(float)
            counts[level] = count / count.sum() if each else count

    # one above the other, the highest 0.9 of a row high
    heights = np.array(list(counts.values()))
    top = heights.max() if each else heights.sum(0).max()

    below = np.full(BINS, float(-number))
    for level, count in counts.items():
        above = below + 0.9 * count / top
        colour = COLOURS[LEVEL_NAMES[level]]
        alpha = 0.45 if each else 0.9
        axis.stairs(above, edges, baseline=below, fill=True, color=colour, alpha=alpha)
        if each:
            axis.stairs(above, edges, baseline=below, color=colour, lw=1.2)
        else:
            below = above

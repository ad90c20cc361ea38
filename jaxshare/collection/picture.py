"""The picture of what a collected data set holds."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from jaxshare.results.figures import new_figure, png

COLOURS = {
    "random": "tab:red",
    "medium": "tab:orange",
    "expert": "tab:green",
    "unknown": "tab:gray",
}
COLUMNS = 5  # of panels, at most


def draw(card: dict[str, Any], path: pathlib.Path) -> pathlib.Path:
    """Histograms of the returns, for each agent by the level at which it played.

    card: of the data set.
    path: of the data set; the picture is the PNG beside it, whose path is returned.
    """
    # a panel for each agent
    agents = card["histogram"]["agents"]
    edges = np.array(card["histogram"]["edges"])
    columns = min(len(agents), COLUMNS)
    rows = -(-len(agents) // columns)
    figure = new_figure(2.6 * columns, 2.3 * rows + 0.6)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for agent, axis in enumerate(axes.flat):
        if agent >= len(agents):
            axis.set_visible(False)
            continue

        # bars of each level, on those of the levels before
        below = np.zeros(len(edges) - 1)
        for level, counts in agents[agent].items():
            colour = COLOURS[level]
            widths = np.diff(edges)
            axis.bar(edges[:-1], counts, widths, below, align="edge", color=colour, label=level)
            below += counts
        axis.set_title(f"agent {agent} ({card['agent_types'][agent]})", fontsize=9)
        axis.set_xlabel("team return", fontsize=8)
        axis.legend(fontsize=7)

    # what all have in common
    axes[0, 0].set_ylabel("episodes", fontsize=8)
    task = "/".join(part for part in (card["environment"], card["scenario"]) if part)
    title = f"{task}: {card['composition']}, {card['episodes']} episodes"
    figure.suptitle(title, fontsize=10)
    picture = path.with_suffix(".png")
    picture.write_bytes(png(figure, dpi=120))
    return picture

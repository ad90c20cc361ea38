"""The pictures of a report, as PNG."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from jaxshare.results.agent_pictures import agents, ratios
from jaxshare.results.curve_pictures import curves, wall_time
from jaxshare.results.figures import png
from jaxshare.results.numbers import Report
from jaxshare.results.score_pictures import aggregates, improvement, profiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES: dict[str, Callable[[Report], Figure | None]] = {
    "aggregates": aggregates,
    "profiles": profiles,
    "improvement": improvement,
    "curves": curves,
    "wall_time": wall_time,
    "agents": agents,
    "ratios": ratios,
}


def draw(report: Report, out: pathlib.Path) -> dict[str, pathlib.Path]:
    """All pictures that the study allows: {what it shows: file}. Raises OSError."""
    files = {}
    for name, make in PICTURES.items():
        path = out / f"{name}.png"
        figure = make(report)
        if figure is None:
            path.unlink(missing_ok=True)  # of an earlier report
        else:
            path.write_bytes(png(figure))
            files[name] = path
    return files

"""How curves and intervals are drawn, everywhere: after a run, in reports and in studies.

Usage, for two named curves with bands that are there as arrays:

    figure = new_figure(5.0, 4.0)
    axis = figure.subplots()
    look = looks(["qmix", "vdn"])
    lines = [Line(Curve(x, y, low, high), name, look[name]) for name, (x, y, low, high) in …]
    draw_curves(axis, Panel(lines, title="3m", x_label="environment steps", y_label="return"))
    legend_below(figure, [axis])
    path.write_bytes(png(figure))
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jaxshare.results.curves import Curve
from jaxshare.results.statistics import Estimate

if TYPE_CHECKING:  # matplotlib takes a second to import, and most commands draw nothing
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import ColorType

DPI = 130
DASHES = ("-", "--", ":", "-.")  # one after another for each ten colours
MOST_NAMES = 40  # entries of a legend: as many looks can be told apart
LABEL = 24  # letters, above which a label beside an axis is broken
LONG_LABEL = 60  # the same in a legend


@dataclass(frozen=True)
class Look:
    """How a line looks."""

    color: ColorType
    dash: str = "-"
    width: float = 1.7
    alpha: float = 1.0
    marker: str = ""


@dataclass(frozen=True)
class Line:
    """A curve in a picture."""

    curve: Curve
    label: str  # in the legend; "": it has no entry
    look: Look


@dataclass(frozen=True)
class Panel:
    """What one pair of axes shows."""

    lines: Sequence[Line]
    title: str = ""
    x_label: str = ""
    y_label: str = ""
    y_range: tuple[float, float] | None = None  # None: what the lines need
    font_size: float = 9.0  # of title and labels; the numbers have one less
    stairs: bool = False  # a value holds up to the next point, instead of a line between them
    counts: bool = True  # whether x counts something, so that 20,000 is written 20k
    scored_at: float | None = None  # where on x scores are taken, to be marked


def looks(names: Sequence[str]) -> dict[str, Look]:
    """A colour for each name, and after ten names other dashes as well."""
    import matplotlib

    colors = matplotlib.color_sequences["tab10"]
    dashes = [dash for dash in DASHES for _ in colors]
    pairs = zip(names, cycle(colors), cycle(dashes), strict=False)
    return {name: Look(color, dash) for name, color, dash in pairs}


def draw_curves(axis: Axes, panel: Panel) -> None:
    """Draw every line of a panel, with its band where there is one, and say what the axes are."""
    from matplotlib.ticker import EngFormatter

    # lines and bands
    for line in panel.lines:
        curve = line.curve
        look = line.look
        axis.plot(
            curve.x,
            curve.y,
            label=line.label or "_nolegend_",
            color=look.color,
            ls=look.dash,
            lw=look.width,
            alpha=look.alpha,
            marker=look.marker,
            ms=3,
            drawstyle="steps-post" if panel.stairs else "default",
        )
        if curve.low is not None and curve.high is not None and curve.has_band:
            step: Literal["post"] | None = "post" if panel.stairs else None
            axis.fill_between(
                curve.x,
                curve.low,
                curve.high,
                color=look.color,
                alpha=0.16,
                lw=0,
                step=step,
            )

    if panel.scored_at is not None:
        axis.axvline(panel.scored_at, color="black", lw=0.9, ls=":", label="where scores are taken")

    # axes and words
    axis.set_title(panel.title, fontsize=panel.font_size)
    axis.set_xlabel(panel.x_label, fontsize=panel.font_size)
    axis.set_ylabel(panel.y_label, fontsize=panel.font_size)
    axis.tick_params(labelsize=panel.font_size - 1)
    axis.locator_params(axis="x", nbins=5)
    axis.grid(alpha=0.3)
    if panel.counts:
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    if panel.y_range:
        axis.set_ylim(*panel.y_range)


def draw_interval(axis: Axes, y: float, estimate: Estimate, color: ColorType) -> None:
    """Draw a horizontal bar for an interval, with a line at its value; the line alone without."""
    if np.isfinite(estimate.low):
        width = float(estimate.high - estimate.low)
        axis.barh(y, width, left=float(estimate.low), height=0.6, color=color, alpha=0.55)
    axis.vlines(float(estimate.value), y - 0.38, y + 0.38, color="black", lw=1.6)


def legend_below(figure: Figure, axes: Sequence[Axes]) -> None:
    """A legend below all panels, each entry once, and no more than can be told apart."""
    # gather the entries
    entries: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    names = list(entries)[:MOST_NAMES]

    # as many columns as fit
    longest = max(map(len, names), default=1)
    fitting = int(figure.get_size_inches()[0] * 12 / (longest + 6))
    columns = max(1, min(4, len(names), fitting))
    handles = [entries[name] for name in names]
    figure.legend(
        handles,
        names,
        loc="outside lower center",
        ncols=columns,
        fontsize=9,
        frameon=False,
    )


def legend_inside(
    axis: Axes,
    title: str | None = None,
    columns: int = 1,
    font_size: float = 8.0,
) -> None:
    """A legend where there is room in a panel, with no more entries than can be told apart."""
    handles, labels = axis.get_legend_handles_labels()
    axis.legend(
        handles[:MOST_NAMES],
        labels[:MOST_NAMES],
        title=title,
        fontsize=font_size,
        ncols=columns,
        loc="best",
    )


def broken(label: str, width: int = LABEL) -> str:
    """A long label on several lines; a dollar sign in it begins no formula."""
    lines = [""]
    for word in no_formula(label).split(" "):
        if len(lines[-1]) + len(word) < width:
            lines[-1] = f"{lines[-1]} {word}".strip()
        else:
            lines.append(word)
    return "\n".join(line for line in lines if line)


def no_formula(text: str) -> str:
    """A text as it stands: to matplotlib a dollar sign begins a formula."""
    return text.replace("$", r"\$")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, which no window shows."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def png(figure: Figure, dpi: int = DPI) -> bytes:
    """A figure as the content of a PNG file."""
    picture = io.BytesIO()
    figure.savefig(picture, dpi=dpi, format="png")
    return picture.getvalue()

"""The pictures of a report, as PNG."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np

from jaxshare.results.numbers import Curve, Numbers, end
from jaxshare.results.statistics import Estimate
from jaxshare.results.study import Study

DPI = 130
COLUMNS = 4  # panels in a row
NAMES = ("aggregates", "profiles", "improvement", "curves", "wall_time")
PAIRS = 6  # of groups, up to which they are bars, and above a table of colours
WIDTH, LONG = 24, 60  # letters, above which a label is broken: beside an axis, in a legend
TITLES = {"iqm": "IQM", "mean": "mean", "median": "median", "optimality_gap": "optimality gap"}
TIME = ((2 * 3600.0, 3600.0, "hours"), (120.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))


def draw(study: Study, numbers: Numbers, out: pathlib.Path, confidence: float) -> dict[str, pathlib.Path]:
    """All pictures that the study allows: {what it shows: file}."""
    style = styles(study.groups)
    band = f"{100 * confidence:g} % bootstrap intervals"
    drawn: dict[str, Any] = {}
    if numbers.aggregates:
        drawn["aggregates"] = aggregates(study, numbers, style, band)
        drawn["profiles"] = profiles(study, numbers, style, band)
    if numbers.improvement:
        drawn["improvement"] = improvement(study, numbers, style, band)
    drawn["curves"] = curves(study, numbers, style, band)
    drawn["wall_time"] = wall_time(study, numbers, style, band)
    files = {}
    for name in NAMES:
        (out / f"{name}.png").unlink(missing_ok=True)  # of an earlier report, which this one may not have
    for name, figure in drawn.items():
        files[name] = out / f"{name}.png"
        figure.savefig(files[name], dpi=DPI)
    return files


def styles(groups: list[str]) -> dict[str, dict[str, Any]]:
    """A colour, and after ten groups another line as well."""
    import matplotlib

    colours = cycle(matplotlib.colormaps["tab10"].colors)  # type: ignore[attr-defined]
    lines = [line for line in ("-", "--", ":", "-.") for _ in range(10)]
    return {g: {"color": c, "ls": line} for g, c, line in zip(groups, colours, cycle(lines), strict=False)}


def broken(label: str, width: int = WIDTH) -> str:
    """A long label on several lines; a dollar sign in it begins no formula."""
    lines = [""]
    for word in label.replace("$", r"\$").split(" "):
        lines[-1:] = [f"{lines[-1]} {word}".strip()] if len(lines[-1]) + len(word) < width else [lines[-1], word]
    return "\n".join(line for line in lines if line)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _named(study: Study, group: str, common: bool = True) -> str:
    """'qmix (5 seeds)', on the tasks that all groups have, or on all of its own."""
    tasks = study.common if common else study.tasks
    return f"{group} ({study.counted(group, tasks)})".replace(" seed", "\u00a0seed")  # no line ends there


def _bar(axis: Any, y: float, found: Estimate, style: dict[str, Any]) -> None:
    """A horizontal interval with its value as a line; without an interval the line alone."""
    if np.isfinite(found.low):
        axis.barh(y, found.high - found.low, left=found.low, height=0.6, color=style["color"], alpha=0.55)
    axis.vlines(found.value, y - 0.38, y + 0.38, color="black", lw=1.6)


def _over(study: Study) -> str:
    tasks = study.common
    return tasks[0] if len(tasks) == 1 else f"{len(tasks)} tasks"


def aggregates(study: Study, numbers: Numbers, style: dict[str, Any], band: str) -> Any:
    """Four panels: the aggregates with intervals, a row for each group."""
    rows = {group: _named(study, group) for group in numbers.aggregates}
    lines = sum(1 + broken(row).count("\n") for row in rows.values())
    figure = _figure(12.0, 1.5 + 0.28 * max(lines, 1.3 * len(rows)))
    axes = figure.subplots(1, len(TITLES), sharey=True)
    for axis, (name, title) in zip(axes, TITLES.items(), strict=True):
        axis.use_sticky_edges = False
        for y, group in enumerate(rows):
            _bar(axis, y, numbers.aggregates[group][name], style[group])
        axis.set_title(f"{title} ({'lower' if name == 'optimality_gap' else 'higher'} is better)", fontsize=10)
        axis.grid(alpha=0.3, axis="x")
        axis.locator_params(axis="x", nbins=5)
    axes[0].set_yticks(range(len(rows)), [broken(row) for row in rows.values()])
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    figure.supxlabel(f"normalised {_metric(study)} on {_over(study)}; {band}", fontsize=10)
    return figure


def profiles(study: Study, numbers: Numbers, style: dict[str, Any], band: str) -> Any:
    """Share of runs above each score."""
    figure = _figure(8.0, 4.4 + 0.2 * math.ceil(len(study.groups) / 3))
    axis = figure.subplots()
    for group, found in numbers.profiles.items():
        _band(axis, Curve(numbers.taus, found), style[group], broken(_named(study, group), LONG), "steps-post")
    axis.set_xlabel(f"normalised {_metric(study)} τ on {_over(study)}")
    axis.set_ylabel("share of runs with a score above τ")
    axis.set_ylim(-0.02, 1.02)
    axis.grid(alpha=0.3)
    axis.set_title(f"performance profiles, pointwise {band}", fontsize=10)
    _legend(figure, axis)
    return figure


def _band(axis: Any, curve: Curve, style: dict[str, Any], label: str, drawstyle: str = "default") -> None:
    axis.plot(curve.x, curve.y.value, lw=1.7, label=label, drawstyle=drawstyle, **style)
    if np.isfinite(curve.y.low).all():
        step = "post" if drawstyle == "steps-post" else None
        axis.fill_between(curve.x, curve.y.low, curve.y.high, color=style["color"], alpha=0.16, lw=0, step=step)


def _legend(figure: Any, axis: Any, more: Any = ()) -> None:
    """Below all panels, each entry once."""
    found: dict[str, Any] = {}
    for one in (axis, *more):
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    longest = max(map(len, found), default=1)
    width = figure.get_size_inches()[0]
    columns = max(1, min(4, len(found), int(width * 12 / (longest + 6))))
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=columns, fontsize=9, frameon=False)


def improvement(study: Study, numbers: Numbers, style: dict[str, Any], band: str) -> Any:
    """P(X > Y): bars for a few pairs, a table of colours for many."""
    bars = len(numbers.improvement) <= PAIRS
    figure = _pairs(study, numbers, style) if bars else _matrix(study, numbers)
    figure.suptitle(f"probability of improvement, {_metric(study)} on {_over(study)}; {band}", fontsize=10)
    return figure


def _pairs(study: Study, numbers: Numbers, style: dict[str, Any]) -> Any:
    figure = _figure(8.0, 1.3 + 0.55 * len(numbers.improvement))
    axis = figure.subplots()
    right = axis.twinx()
    for y, ((first, _), found) in enumerate(numbers.improvement.items()):
        _bar(axis, y, found, style[first])
    for side, which in ((axis, 0), (right, 1)):
        names = [broken(_named(study, pair[which])) for pair in numbers.improvement]
        side.set_yticks(range(len(names)), names)
        side.set_ylim(len(names) - 0.4, -0.6)
    axis.axvline(0.5, color="black", lw=0.8, ls="--")
    axis.set_xlim(-0.02, 1.02)
    axis.set_xlabel("P(X > Y): that a run of X (left) is better than one of Y (right) on the same task")
    axis.grid(alpha=0.3, axis="x")
    return figure


def _matrix(study: Study, numbers: Numbers) -> Any:
    size = len(study.groups)
    figure = _figure(3.0 + 0.75 * size, 2.4 + 0.6 * size)
    axis = figure.subplots()
    found = np.full((size, size), np.nan)
    for (first, second), estimate in numbers.improvement.items():
        i, j = study.groups.index(first), study.groups.index(second)
        sure = np.isfinite(estimate.low) and not estimate.low <= 0.5 <= estimate.high
        for (row, column), value in {(i, j): float(estimate.value), (j, i): 1 - float(estimate.value)}.items():
            found[row, column] = value
            colour = "white" if abs(value - 0.5) > 0.35 else "black"
            weight = "bold" if sure else "normal"
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontweight=weight)
    axis.imshow(found, cmap="RdBu", vmin=0, vmax=1, aspect="auto")
    axis.set_yticks(range(size), [broken(_named(study, group)) for group in study.groups])
    axis.set_xticks(range(size), [broken(g, 16) for g in study.groups], rotation=45, ha="right", rotation_mode="anchor")
    axis.set_xlabel("Y")
    axis.set_ylabel("X")
    axis.set_title("P(X > Y); bold: the interval leaves out one half", fontsize=9)
    return figure


def curves(study: Study, numbers: Numbers, style: dict[str, Any], band: str) -> Any:
    """IQM of evaluations against environment steps or updates: a panel for each task, and one for all."""

    def finish(axis: Any, task: str) -> None:
        axis.set_xlabel(study.unit[task], fontsize=9)
        axis.xaxis.set_major_formatter(_engineering())
        point, last = end(study, task), max(c.x[-1] for (_, t), c in numbers.progress.items() if t == task)
        if point < 0.98 * last and task_scored_there(study, task, point):
            axis.axvline(point, color="black", lw=0.9, ls=":", label="where scores are taken")

    return _panels(study, numbers.progress, numbers.overall, style, finish, f"IQM of runs, pointwise {band}")


def task_scored_there(study: Study, task: str, point: float) -> bool:
    """Whether all groups are scored at one point of a task."""
    return all(cell.point == point for (_, t), cell in study.cells.items() if t == task)


def _engineering() -> Any:
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="")


def wall_time(study: Study, numbers: Numbers, style: dict[str, Any], band: str) -> Any:
    """IQM of evaluations against the time that the command has run."""
    longest = max(curve.x[-1] for curve in numbers.wall.values())
    _, per, name = next(scale for scale in TIME if longest >= scale[0])
    scaled = {key: Curve(curve.x / per, curve.y) for key, curve in numbers.wall.items()}

    def finish(axis: Any, task: str) -> None:
        axis.set_xlabel(f"{name} of the whole command", fontsize=9)

    title = f"IQM of runs against wall time, pointwise {band}"
    return _panels(study, scaled, {}, style, finish, title)


def _panels(
    study: Study, found: dict[tuple[str, str], Curve], overall: dict[str, Curve], style: dict[str, Any],
    finish: Callable[[Any, str], None], title: str,
) -> Any:  # fmt: skip
    """A panel for each task, and one for all tasks if there are curves of them."""
    count = len(study.tasks) + bool(overall)
    columns = min(COLUMNS, count) if count != 5 else 3
    rows, entries = math.ceil(count / columns), len(study.groups)
    figure = _figure(max(7.0, 3.5 * columns), 0.8 + 3.1 * rows + 0.2 * math.ceil(entries / columns))
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, task in zip(axes, study.tasks, strict=False):
        for group in study.groups:
            if (group, task) in found:
                _band(axis, found[group, task], style[group], broken(_named(study, group, common=False), LONG))
        seeds = study.counted_on(task)
        axis.set_title(f"{broken(task, 34)}\n{seeds}", fontsize=9)
        axis.set_ylabel(f"{study.policy[task]} {_metric(study)}", fontsize=9)
        finish(axis, task)
    if overall:
        axis = axes[len(study.tasks)]
        for group, curve in overall.items():
            _band(axis, curve, style[group], broken(_named(study, group, common=False), LONG))
        axis.set_title(f"{len(study.common)} tasks together", fontsize=9)
        axis.set_xlabel("share of the steps that all runs of a task have", fontsize=9)
        axis.set_ylabel(f"normalised {_metric(study)}", fontsize=9)
    for axis in axes[:count]:
        axis.grid(alpha=0.3)
        axis.tick_params(labelsize=8)
        axis.locator_params(axis="x", nbins=5)
    for axis in axes[count:]:
        axis.axis("off")
    figure.suptitle(title, fontsize=10)
    _legend(figure, axes[0], axes[1:count])
    return figure


def _metric(study: Study) -> str:
    return study.metric.replace("_", " ")

"""The tables of a report as LaTeX, for the package booktabs."""

from __future__ import annotations

from collections.abc import Sequence

from jaxshare.results.groups import Place
from jaxshare.results.numbers import Report
from jaxshare.results.statistics import Estimate
from jaxshare.results.tables import STATISTICS, in_words

LETTERS = {
    "\\": r"\textbackslash{}",
    "_": r"\_",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
}


def escaped(text: str) -> str:
    """A label as LaTeX wants it."""
    return "".join(LETTERS.get(letter, letter) for letter in text)


def latex(report: Report) -> str:
    """Two tables: IQM by task as measured, and the normalised aggregates."""
    tables = [_by_task(report)]
    if report.numbers.groups:
        tables.append(_aggregates(report))
    return "\n\n".join(["% needs \\usepackage{booktabs}", *tables]) + "\n"


def _level(report: Report) -> str:
    return rf"{100 * report.config.confidence:g}\,\%"


def _by_task(report: Report) -> str:
    """A row for each group, a column for each task."""
    study = report.study
    rows = []
    for group in study.groups:
        row = [escaped(group)]
        row += [_on_task(report, Place(group, task)) for task in study.tasks]
        rows.append(row)
    ways = dict.fromkeys(task.policy for task in study.tasks.values())
    caption = (
        f"IQM of the {escaped(report.metric)} ({escaped(', '.join(ways))} evaluation) with "
        f"{_level(report)} bootstrap intervals (number of seeds)."
    )
    return _tabular(caption, ["", *study.tasks], rows)


def _on_task(report: Report, place: Place) -> str:
    if place not in report.study.cells:
        return "--"
    seeds = len(report.study.cells[place].runs)
    return f"{_cell(report.numbers.cells[place].statistics['iqm'])} ({seeds})"


def _aggregates(report: Report) -> str:
    """A row for each group, a column for each statistic."""
    rows = []
    for group, numbers in report.numbers.groups.items():
        row = [escaped(group), escaped(report.count(group))]
        row += [_cell(numbers.aggregates[name]) for name in STATISTICS]
        rows.append(row)
    tasks = escaped(", ".join(report.study.common))
    intervals = f"{_level(report)} stratified bootstrap intervals"
    caption = f"Normalised {escaped(report.metric)} on {tasks}, with {intervals}."
    return _tabular(caption, ["", "seeds", *STATISTICS.values()], rows)


def _cell(estimate: Estimate) -> str:
    value, _, bounds = in_words(estimate).partition(" ")
    return f"${value}$" + (rf" {{\scriptsize ${bounds}$}}" if bounds else "")


def _tabular(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """rows: cells that are LaTeX; header: names."""
    columns = "l" + "r" * (len(header) - 1)  # words, then numbers
    head = " & ".join(map(escaped, header))
    body = [" & ".join(row) + r" \\" for row in rows]
    lines = [
        rf"\begin{{table}}\centering\caption{{{caption}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        head + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines)

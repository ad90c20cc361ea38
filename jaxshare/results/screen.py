"""A report on the console: tables and sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE
from rich.table import Column, Table

from jaxshare.results.groups import Place
from jaxshare.results.numbers import Report
from jaxshare.results.tables import STATISTICS, in_words
from jaxshare.terminal import open_console

NORMALISED = "[0.11,0.22]"  # as wide as intervals are, which a narrow console must not break
MEASURED = "[-111.1,-111.1]"


def show(report: Report, how: Sequence[str]) -> None:
    """Print the tables, what their numbers are, and notes."""
    console = open_console()
    if report.numbers.groups:
        console.print(_aggregates(report))
    for table in _tasks(report):
        console.print(table)
    for line in how:
        console.print(line)
    for note in report.study.notes:
        console.print(f"note: {note}")


def _table(title: str, names: Sequence[str], widest: str) -> Table:
    columns = [Column(name, min_width=len(widest)) for name in names]
    group = Column("group", overflow="fold")
    return Table(group, "seeds", *columns, title=title, box=SIMPLE)


def _aggregates(report: Report) -> Table:
    """Normalised, over the common tasks."""
    title = f"normalised {report.metric} on {report.over}"
    table = _table(title, list(STATISTICS.values()), NORMALISED)
    for group, numbers in report.numbers.groups.items():
        cells = [in_words(numbers.aggregates[name], "", 2) for name in STATISTICS]
        table.add_row(group, report.count(group), *cells)
    return table


def _tasks(report: Report) -> Iterator[Table]:
    """What was measured on each task."""
    for name, task in report.study.tasks.items():
        title = f"{report.metric} on {name}"
        table = _table(title, ("IQM", "mean", "lowest to highest"), MEASURED)
        for group, cell in task.cells.items():
            statistics = report.numbers.cells[Place(group, name)].statistics
            iqm = in_words(statistics["iqm"], "")
            mean = in_words(statistics["mean"], "")
            extremes = f"{cell.scores.min():.4g} to {cell.scores.max():.4g}"
            table.add_row(group, str(len(cell.runs)), iqm, mean, extremes)
        yield table

"""The page of a report: one HTML file with its pictures inside."""

from __future__ import annotations

import base64
import pathlib
from collections.abc import Mapping, Sequence

from jaxshare.results.groups import Place
from jaxshare.results.markup import Markup, element, image, joined
from jaxshare.results.numbers import Report
from jaxshare.results.runs import Run, listed
from jaxshare.results.sentences import command
from jaxshare.results.tables import STATISTICS, Table, in_words, settings

STYLE = """
body {
  font: 15px/1.5 system-ui, sans-serif;
  max-width: 1180px; margin: 2em auto; padding: 0 1em; color: #222;
}
table { border-collapse: collapse; margin: 0.7em 0; font-size: 13.5px; }
th, td {
  padding: 0.25em 0.8em; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap;
}
th:first-child, td:first-child { text-align: left; }
th { border-bottom: 2px solid #888; }
div.wide { overflow-x: auto; }
img { max-width: 100%; height: auto; display: block; margin: 0.5em 0; }
code { background: #f3f3f3; padding: 0.1em 0.3em; }
"""
CAPTIONS = {
    "aggregates": "Aggregates",
    "improvement": "Probability of improvement",
    "profiles": "Performance profiles",
    "curves": "Sample efficiency",
    "wall_time": "Wall time",
    "agents": "Best and worst agent",
    "ratios": "Importance ratios",
}
PACKAGES = ("jaxshare", "jax")  # whose versions are shown


def write(
    report: Report,
    how: Sequence[str],
    pictures: Mapping[str, pathlib.Path],
    out: pathlib.Path,
) -> pathlib.Path:
    """Write report.html. how: sentences on what the numbers are. Raises OSError."""
    # head and body
    title = listed(report.study.groups)
    head = [
        Markup("<meta charset='utf-8'>"),
        element("title", title),
        element("style", Markup(STYLE)),
    ]
    body = joined(["", element("h1", title), *_sections(report, how, pictures), ""], "\n")

    # the file
    path = out / "report.html"
    page = element("html", element("head", *head), element("body", body), lang="en")
    path.write_text(f"<!doctype html>\n{page}\n", "utf-8")
    return path


def _sections(
    report: Report,
    how: Sequence[str],
    pictures: Mapping[str, pathlib.Path],
) -> list[Markup]:
    """All that stands below the title."""
    study = report.study
    parts = [element("p", f"{report.metric} on {listed(list(study.tasks))}")]

    # words
    parts += [element("h2", "How to read it"), _list(how)]
    if study.notes:
        parts += [element("h2", "Notes"), _list(study.notes)]

    # numbers
    if report.numbers.groups:
        title = "Normalised scores over the tasks of all groups"
        parts += [element("h2", title), _table(_aggregates(report))]
    parts += [element("h2", "Tasks, as measured"), _table(_tasks(report))]
    if report.numbers.pairs:
        parts += [element("h2", "Pairs"), _table(_pairs(report))]

    # pictures
    for name, path in pictures.items():
        parts += [element("h2", CAPTIONS[name]), _picture(path, CAPTIONS[name])]

    # what was run
    parts += [element("h2", "What differs between the groups"), _settings(report)]
    parts += [element("h2", "Runs"), _table(_runs(report))]
    parts.append(element("p", "Made by ", element("code", command(report.config))))
    return parts


def _list(items: Sequence[str]) -> Markup:
    return element("ul", *[element("li", item) for item in items])


def _table(table: Table) -> Markup:
    header = element("tr", *[element("th", name) for name in table.header])
    rows = []
    for row in table.rows:
        rows.append(element("tr", *[element("td", cell) for cell in row]))
    whole = element("table", element("thead", header), element("tbody", *rows))
    return element("div", whole, **{"class": "wide"})


def _picture(path: pathlib.Path, caption: str) -> Markup:
    data = base64.b64encode(path.read_bytes()).decode()
    return image(f"data:image/png;base64,{data}", caption)


def _aggregates(report: Report) -> Table:
    rows = []
    for group, numbers in report.numbers.groups.items():
        cells = [in_words(numbers.aggregates[name]) for name in STATISTICS]
        rows.append([group, report.count(group), *cells])
    return Table(["group", "seeds", *STATISTICS.values()], rows)


def _tasks(report: Report) -> Table:
    rows = []
    for name, task in report.study.tasks.items():
        for group, cell in task.cells.items():
            statistics = report.numbers.cells[Place(group, name)].statistics
            cells = [in_words(estimate) for estimate in statistics.values()]
            ends = f"{cell.scores.min():.3f} to {cell.scores.max():.3f}"
            at = f"{cell.point:,.0f} {task.unit}"
            rows.append([name, group, len(cell.runs), *cells, ends, at])
    names = ["IQM", "mean", "median of runs", "lowest to highest", "at"]
    return Table(["task", "group", "seeds", *names], rows)


def _pairs(report: Report) -> Table:
    rows = []
    for pair in report.numbers.pairs:
        first = [pair.first, report.count(pair.first)]
        second = [pair.second, report.count(pair.second)]
        rows.append([*first, *second, in_words(pair.estimate)])
    return Table(["X", "seeds", "Y", "seeds", "P(X > Y)"], rows)


def _settings(report: Report) -> Markup:
    if not report.study.settings:
        return element("p", "Nothing but the seeds.")
    return _table(settings(report))


def _runs(report: Report) -> Table:
    """A row for each run directory of a group on a task."""
    rows = []
    for place, cell in report.study.cells.items():
        of_path: dict[pathlib.Path, list[Run]] = {}
        for run in cell.runs:
            of_path.setdefault(run.path, []).append(run)
        for path, runs in of_path.items():
            seeds = ", ".join(str(run.seed) for run in runs)
            finished = "yes" if all(run.finished for run in runs) else "no"
            versions = runs[0].versions
            words = ", ".join(f"{name} {versions[name]}" for name in PACKAGES if name in versions)
            rows.append([*place, path, seeds, finished, words])
    header = ["group", "task", "run directory", "seeds", "finished", "versions"]
    return Table(header, rows)

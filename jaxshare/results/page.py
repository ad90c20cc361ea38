"""The page of a report: one HTML file with its pictures inside."""

from __future__ import annotations

import base64
import html
import pathlib
from typing import Any

from jaxshare.results.numbers import Numbers
from jaxshare.results.study import Study
from jaxshare.results.tables import STATISTICS, shown

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 0.7em 0; font-size: 13.5px; }
th, td { padding: 0.25em 0.8em; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
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
}


def write(
    study: Study, numbers: Numbers, pictures: dict[str, pathlib.Path], how: list[str], command: str, out: pathlib.Path
) -> pathlib.Path:
    """report.html. how: sentences on what the numbers are; command: what made the page."""
    parts = [f"<h1>{_text(', '.join(study.groups))}</h1>"]
    parts.append(f"<p>{_text(study.metric.replace('_', ' '))} on {_text(', '.join(study.tasks))}</p>")
    parts += ["<h2>How to read it</h2>", _list(how)]
    parts += ["<h2>Notes</h2>", _list(study.notes)] if study.notes else []
    if numbers.aggregates:
        parts += ["<h2>Normalised scores over the tasks of all groups</h2>", _table(*_aggregates(study, numbers))]
    parts += ["<h2>Tasks, as measured</h2>", _table(*_tasks(study, numbers))]
    if numbers.improvement:
        parts += ["<h2>Pairs</h2>", _table(*_pairs(study, numbers))]
    for name, path in pictures.items():
        parts += [f"<h2>{CAPTIONS[name]}</h2>", _image(path, CAPTIONS[name])]
    parts += ["<h2>What differs between the groups</h2>", _settings(study)]
    parts += ["<h2>Runs</h2>", _table(*_runs(study)), f"<p>Made by <code>{_text(command)}</code></p>"]
    head = f"<meta charset='utf-8'><title>{_text(', '.join(study.groups))}</title><style>{STYLE}</style>"
    path = out / "report.html"
    body = "\n".join(parts)
    path.write_text(f"<!doctype html>\n<html lang='en'><head>{head}</head><body>\n{body}\n</body></html>\n", "utf-8")
    return path


def _text(value: Any) -> str:
    return html.escape(str(value))


def _list(items: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{_text(item)}</li>" for item in items) + "</ul>"


def _table(header: list[str], rows: list[list[Any]]) -> str:
    top = "".join(f"<th>{_text(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class='wide'><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def _image(path: pathlib.Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f"<img alt='{_text(caption)}' src='data:image/png;base64,{data}'>"


def _aggregates(study: Study, numbers: Numbers) -> tuple[list[str], list[list[Any]]]:
    rows = [
        [group, study.count(group, study.common), *(shown(found[name]) for name in STATISTICS)]
        for group, found in numbers.aggregates.items()
    ]
    return ["group", "seeds", *STATISTICS.values()], rows


def _tasks(study: Study, numbers: Numbers) -> tuple[list[str], list[list[Any]]]:
    rows = []
    for task in study.tasks:
        for group in study.groups:
            if (group, task) in study.cells:
                found, cell = numbers.by_task[group, task], study.cells[group, task]
                at = f"{cell.point:,.0f} {study.unit[task]}"
                ends = f"{cell.scores.min():.3f} to {cell.scores.max():.3f}"
                rows.append([task, group, len(cell.runs), *(shown(one) for one in found.values()), ends, at])
    return ["task", "group", "seeds", "IQM", "mean", "median of runs", "lowest to highest", "at"], rows


def _pairs(study: Study, numbers: Numbers) -> tuple[list[str], list[list[Any]]]:
    count = lambda group: study.count(group, study.common)  # noqa: E731
    rows = [[x, count(x), y, count(y), shown(found)] for (x, y), found in numbers.improvement.items()]
    return ["X", "seeds", "Y", "seeds", "P(X > Y)"], rows


def _settings(study: Study) -> str:
    if not study.settings:
        return "<p>Nothing but the seeds.</p>"
    return _table(["setting", *study.groups], [[key, *row.values()] for key, row in study.settings.items()])


def _runs(study: Study) -> tuple[list[str], list[list[Any]]]:
    rows = []
    for (group, task), cell in study.cells.items():
        for path in dict.fromkeys(run.path for run in cell.runs):
            own = [run for run in cell.runs if run.path == path]
            seeds = ", ".join(str(run.seed) for run in own)
            versions = ", ".join(
                f"{name} {own[0].versions[name]}" for name in ("jaxshare", "jax") if name in own[0].versions
            )
            rows.append([group, task, path, seeds, "yes" if all(run.finished for run in own) else "no", versions])
    return ["group", "task", "run directory", "seeds", "finished", "versions"], rows

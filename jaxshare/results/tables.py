"""The tables of a report: CSV, LaTeX, and JSON as marl-eval reads it (Gorsane et al. 2022, arXiv 2209.10485)."""

from __future__ import annotations

import csv
import json
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxshare.results import study as studies
from jaxshare.results.numbers import Curve, Numbers
from jaxshare.results.statistics import Estimate
from jaxshare.results.study import Study

STATISTICS = {"iqm": "IQM", "mean": "mean", "median": "median", "optimality_gap": "optimality gap"}
LATEX = {
    "\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--",
}  # fmt: skip
BOUNDS = ("value", "low", "high")


def shown(found: Estimate, space: str = " ", most: int = 3) -> str:
    """'0.512 [0.401, 0.623]', or the value alone where there is no interval. most: decimals, of small numbers."""
    every = [x for x in (float(found.value), float(found.low), float(found.high)) if np.isfinite(x)]
    digits = max(0, most - max(0, int(np.log10(max(1.0, *map(abs, every))))))
    value, *bounds = [f"{x:.{digits}f}" for x in every]
    return f"{value} [{bounds[0]},{space}{bounds[1]}]" if bounds else value


def write(study: Study, numbers: Numbers, out: pathlib.Path, config: Any) -> list[pathlib.Path]:
    """All files."""
    tables = {
        "scores": _scores(study), "tasks": _tasks(study, numbers), "aggregates": _aggregates(study, numbers),
        "improvement": _improvement(study, numbers), "profiles": _profiles(study, numbers),
        "curves": _curves(study, numbers),
        "settings": [["setting", *study.groups], *([key, *row.values()] for key, row in study.settings.items())],
    }  # fmt: skip
    files = []
    for name, rows in tables.items():
        files.append(out / f"{name}.csv")
        with open(files[-1], "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    files += [out / "tables.tex", out / "marl_eval.json"]
    files[-2].write_text(latex(study, numbers, config.confidence), encoding="utf-8")
    files[-1].write_text(json.dumps(marl_eval(study, config), indent=1) + "\n", encoding="utf-8")
    return files


def _bounds(found: Estimate) -> list[Any]:
    """Value and interval; empty cells where there is none."""
    return [x if np.isfinite(x) else "" for x in (float(found.value), float(found.low), float(found.high))]


def _scores(study: Study) -> list[list[Any]]:
    rows: list[list[Any]] = [
        ["group", "task", "run_dir", "seed", "point", "unit", "finished", study.metric, "normalised"]
    ]
    for (group, task), cell in study.cells.items():
        for run, score in zip(cell.runs, cell.scores.tolist(), strict=True):
            normalised = float(study.ranges[task].normalised(np.array(score)))
            point = [cell.point, study.unit[task], run.finished]
            rows.append([group, task, str(run.path), run.seed, *point, score, normalised])
    return rows


def _tasks(study: Study, numbers: Numbers) -> list[list[Any]]:
    names = [f"{name} {bound}" for name in ("iqm", "mean", "median") for bound in BOUNDS]
    about = ["policy", "episodes", "range low", "range high", "range from"]
    rows: list[list[Any]] = [["group", "task", "seeds", *names, "lowest", "highest", *about]]
    for (group, task), found in numbers.by_task.items():
        cell, of = study.cells[group, task], study.ranges[task]
        bounds = [x for one in found.values() for x in _bounds(one)]
        ends = [float(cell.scores.min()), float(cell.scores.max())]
        how = [study.policy[task], study.episodes[task], of.low, of.high, of.source]
        rows.append([group, task, len(cell.runs), *bounds, *ends, *how])
    return rows


def _aggregates(study: Study, numbers: Numbers) -> list[list[Any]]:
    names = [f"{name} {bound}" for name in STATISTICS for bound in BOUNDS]
    rows: list[list[Any]] = [["group", "tasks", "seeds", *names]]
    for group, found in numbers.aggregates.items():
        bounds = [x for name in STATISTICS for x in _bounds(found[name])]
        rows.append([group, len(study.common), study.count(group, study.common), *bounds])
    return rows


def _improvement(study: Study, numbers: Numbers) -> list[list[Any]]:
    rows: list[list[Any]] = [["X", "Y", "tasks", "seeds of X", "seeds of Y", "P(X > Y)", "low", "high"]]
    for (x, y), found in numbers.improvement.items():
        seeds = [study.count(group, study.common) for group in (x, y)]
        rows.append([x, y, len(study.common), *seeds, *_bounds(found)])
    return rows


def _profiles(study: Study, numbers: Numbers) -> list[list[Any]]:
    rows: list[list[Any]] = [["group", "tasks", "seeds", "tau", *BOUNDS]]
    for group, found in numbers.profiles.items():
        about = [group, len(study.common), study.count(group, study.common)]
        rows += [[*about, *row] for row in _points(Curve(numbers.taus, found))]
    return rows


def _curves(study: Study, numbers: Numbers) -> list[list[Any]]:
    rows: list[list[Any]] = [["group", "task", "seeds", "against", "x", *BOUNDS]]
    for against, curves in (("", numbers.progress), ("seconds", numbers.wall)):
        for (group, task), curve in curves.items():
            about = [group, task, study.seeds(group, task), against or study.unit[task]]
            rows += [[*about, *row] for row in _points(curve)]
    for group, curve in numbers.overall.items():
        about = [group, "all, normalised", study.count(group, study.common), "share of the steps"]
        rows += [[*about, *row] for row in _points(curve)]
    return rows


def _points(curve: Curve) -> Iterable[list[Any]]:
    for x, *bounds in zip(curve.x, curve.y.value, curve.y.low, curve.y.high, strict=True):
        yield [float(x), *_bounds(Estimate(*bounds))]


# --------------------------------------------------------------------------------------------------------------- LaTeX


def escaped(text: str) -> str:
    """A label as LaTeX wants it."""
    return "".join(LATEX.get(letter, letter) for letter in text)


def latex(study: Study, numbers: Numbers, confidence: float) -> str:
    """Two tables for the package booktabs: IQM by task as measured, and the normalised aggregates."""
    level, metric = rf"{100 * confidence:g}\,\%", escaped(study.metric.replace("_", " "))
    ways = escaped(", ".join(dict.fromkeys(study.policy.values())))
    by_task = [[_by_task(study, numbers, group, task) for task in study.tasks] for group in study.groups]
    parts = ["% needs \\usepackage{booktabs}"]
    parts.append(
        _tabular(
            f"IQM of the {metric} ({ways} evaluation) with {level} bootstrap intervals (number of seeds).",
            ["", *study.tasks],
            [[escaped(group), *row] for group, row in zip(study.groups, by_task, strict=True)],
        )
    )
    if numbers.aggregates:
        rows = [
            [escaped(group), escaped(study.count(group, study.common)), *(_cell(found[name]) for name in STATISTICS)]
            for group, found in numbers.aggregates.items()
        ]
        tasks = escaped(", ".join(study.common))
        caption = f"Normalised {metric} on {tasks}, with {level} stratified bootstrap intervals."
        parts.append(_tabular(caption, ["", "seeds", *STATISTICS.values()], rows))
    return "\n\n".join(parts) + "\n"


def _by_task(study: Study, numbers: Numbers, group: str, task: str) -> str:
    if (group, task) not in study.cells:
        return "--"
    return f"{_cell(numbers.by_task[group, task]['iqm'])} ({study.seeds(group, task)})"


def _cell(found: Estimate) -> str:
    value, _, bounds = shown(found).partition(" ")
    return f"${value}$" + (rf" {{\scriptsize ${bounds}$}}" if bounds else "")


def _tabular(caption: str, header: list[str], rows: list[list[str]]) -> str:
    lines = [rf"\begin{{table}}\centering\caption{{{caption}}}", rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}"]
    lines += [r"\toprule", " & ".join(map(escaped, header)) + r" \\", r"\midrule"]
    lines += [" & ".join(row) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


# ----------------------------------------------------------------------------------------------------------- marl-eval


def marl_eval(study: Study, config: Any) -> dict[str, Any]:
    """{environment: {task: {group: {run: {step_i: scores, absolute_metrics: scores}}}}}, as marl-eval reads it.

    Every list has one number, the mean of an evaluation's episodes. absolute_metrics are the scores of the report;
    with score=best they are Gorsane et al.'s, of the best parameters on episodes that did not choose them.
    """
    metrics = marl_eval_metrics(study, config.score)
    found: dict[str, Any] = {}
    for (group, task), cell in study.cells.items():
        environment, _, name = task.partition("/")
        runs: dict[str, Any] = {}
        for run in cell.runs:
            steps = runs[f"seed_{run.seed}"] = {}
            for i, step in enumerate(run.progress):
                values = {key: [float(run.values[key][i])] for key in metrics}
                steps[f"step_{i + 1}"] = {"step_count": int(step), **values}
            steps["absolute_metrics"] = {
                key: [studies.score_of(run, key, cell.point, config.score, config.last)] for key in metrics
            }
        task_runs = found.setdefault(environment.lower(), {}).setdefault((name or task).lower(), {})
        task_runs[group.lower().replace(",", ";")] = runs
    return found


def marl_eval_metrics(study: Study, score: str) -> list[str]:
    """Metrics that all runs have, as marl-eval wants it."""
    runs = [run for cell in study.cells.values() for run in cell.runs]
    has = [set(run.values) & set(run.values if score == "curve" else run.played[score]) for run in runs]
    return sorted(has[0].intersection(*has[1:]))

"""The runs of a report as marl-eval reads them (Gorsane et al. 2022, arXiv 2209.10485)."""

from __future__ import annotations

from typing import Any

from jaxshare.results.numbers import Report
from jaxshare.results.runs import Run
from jaxshare.results.scores import score_of
from jaxshare.results.study import Study


def marl_eval(report: Report) -> dict[str, Any]:
    """{environment: {task: {group: {run: {step_i: scores, absolute_metrics: scores}}}}}.

    Every list has one number, the mean of an evaluation's episodes. absolute_metrics are the scores
    of the report; with score=best they are Gorsane et al.'s, of the best parameters on episodes
    that did not choose them.
    """
    metrics = common_metrics(report.study, report.config.score)
    environments: dict[str, Any] = {}
    for place, cell in report.study.cells.items():
        # every seed of a group on a task
        seeds: dict[str, Any] = {}
        for run in cell.runs:
            steps = _steps(run, metrics)
            absolute = {}
            for metric in metrics:
                absolute[metric] = [score_of(run, metric, cell.point, report.config)]
            seeds[f"seed_{run.seed}"] = {**steps, "absolute_metrics": absolute}

        # where it belongs
        environment, _, name = place.task.partition("/")
        tasks = environments.setdefault(environment.lower(), {})
        groups = tasks.setdefault((name or place.task).lower(), {})
        groups[place.group.lower().replace(",", ";")] = seeds
    return environments


def common_metrics(study: Study, score: str) -> list[str]:
    """Metrics that all runs have, as marl-eval wants it."""
    has = []
    for cell in study.cells.values():
        for run in cell.runs:
            scored = run.values if score == "curve" else run.played[score].scores
            has.append(set(run.values) & set(scored))
    return sorted(has[0].intersection(*has[1:]))


def _steps(run: Run, metrics: list[str]) -> dict[str, Any]:
    """Every evaluation of a run."""
    steps = {}
    for i, step in enumerate(run.progress):
        values = {metric: [float(run.values[metric][i])] for metric in metrics}
        steps[f"step_{i + 1}"] = {"step_count": int(step), **values}
    return steps

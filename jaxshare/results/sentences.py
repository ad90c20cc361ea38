"""What a report says of its numbers, in sentences, and the command that makes it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING

from jaxshare.results.numbers import MOST_GROUPS, Report
from jaxshare.results.study import Task
from jaxshare.settings.rows import value_text

if TYPE_CHECKING:
    from jaxshare.results.settings import Config


def explained(report: Report) -> Iterator[str]:
    """What the numbers are."""
    config = report.config

    # scores
    played = "what jaxshare.evaluate found with the"
    kinds = {
        "curve": "the last evaluation",
        "final": f"{played} final checkpoint",
        "best": f"{played} best checkpoint, on other episodes than chose it",
    }
    score = kinds[config.score]
    if config.last > 1:
        score = f"the mean of the last {config.last} evaluations"
    yield f"A run's score is its {report.metric}: {score}. Higher counts as better."
    for name, task in report.study.tasks.items():
        yield _measured(name, task, config)

    # intervals
    yield (
        f"Intervals: {100 * config.confidence:g} %, percentiles of {config.resamples:,} bootstraps "
        "that draw seeds anew within each task (curves and profiles: a tenth of them). They hold "
        "for new seeds on these tasks."
    )

    # time
    at_once = {run.at_once for cell in report.study.cells.values() for run in cell.runs}
    several = ""
    if max(at_once) > 1:
        counts = " or ".join(map(str, sorted(at_once)))
        several = f"; commands here trained {counts} runs at once"
    yield f"Wall time is of the whole command, with compilation and evaluations{several}."

    # what pictures leave out
    if len(report.study.groups) > MOST_GROUPS:
        yield (
            f"Pictures and pairs show {MOST_GROUPS} of {len(report.study.groups):,} groups, those "
            "with the highest IQM where there is one. The tables have all."
        )


def _measured(name: str, task: Task, config: Config) -> str:
    """How the scores of a task came about, and how they are normalised."""
    where = ""
    if config.score == "curve":
        points = sorted({f"{cell.point:,.0f}" for cell in task.cells.values()})
        where = f" at {' or '.join(points)} {task.unit}"
    ends = f"{task.range.low:g} as 0 and {task.range.high:g} as 1 ({task.range.source})"
    return f"{name}: {task.policy} policy, {task.episodes} episodes{where}; normalised with {ends}."


def command(config: Config) -> str:
    """The command line that makes this report again."""
    settings = []
    for field in fields(config):
        value = getattr(config, field.name)
        usual = field.default if field.default_factory is MISSING else field.default_factory()
        if field.name != "runs" and value != usual:
            settings.append(f"{field.name}={value_text(value)}")
    return shlex.join(["python", "-m", "jaxshare.report", *config.runs, *settings])

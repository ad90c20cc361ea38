"""python -m jaxshare.report: from run directories to tables, pictures and a page, with intervals and seeds stated."""

from __future__ import annotations

import glob
import json
import os
import pathlib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from jaxshare import cli, registry
from jaxshare.run import output
from jaxshare.settings.fields import COUNT, file_path, flag, free_table, free_text, static, text_list
from jaxshare.settings.help import small_help
from jaxshare.settings.validate import check_record
from jaxshare.types import RefusedError

if TYPE_CHECKING:
    from jaxshare.results.numbers import Numbers
    from jaxshare.results.runs import Run
    from jaxshare.results.statistics import Estimate
    from jaxshare.results.study import Study

REPORT = "report.json"
CHOICES = {
    "score": ("curve", "final", "best"),
    "at": ("common", "end"),
    "unfinished": ("cut", "drop", "refuse"),
}


@dataclass(frozen=True)
class Config:
    """What to report."""

    runs: list[str] = text_list(help="the same as bare arguments: DIR, a glob, or LABEL=DIR")
    out: str = file_path(
        "report",
        help="folder of the report; files of an earlier one are written over",
    )
    metric: str | None = free_text(
        None,
        help="return, win_rate, or any other that evaluations log; null: win_rate if all have it",
    )
    score: str = free_text(
        "curve",
        help="score of a run: curve (evaluations in training), final or best (jaxshare.evaluate)",
    )
    last: int = static(
        1,
        least=1,
        most=COUNT,
        help="evaluations whose mean is the score, with score=curve",
        source="ours",
    )
    at: str = free_text(
        "common",
        help="scores are taken where the task's shortest run ends (common), or the group's (end)",
    )
    unfinished: str = free_text(
        "cut",
        help="runs not at their end: cut (they may be the shortest), drop, or refuse",
    )
    skip: bool = flag(
        False,
        help="leave out what is no run directory or has no evaluation, instead of refusing it",
    )
    ignore: list[str] = text_list(
        help="settings that may differ within a group, as in [total_env_steps]",
    )
    per_task: list[str] = text_list(help="settings that a group may have of its own for each task")
    ranges: dict[str, Any] = free_table(help="scores that count as 0 and 1, as in {2s3z:[0,20]}")
    confidence: float = static(
        0.95, above=0, below=1, help="confidence of intervals", source="paper: Agarwal et al. 2021"
    )
    resamples: int = static(
        10_000,
        least=1,
        most=COUNT,
        help="bootstraps of a table, a tenth of curves and profiles",
        source="ours: quick; paper: Agarwal et al. 2021 has 50,000 and 2,000",
    )
    seed: int = static(0, least=0, most=COUNT, help="seed of the bootstrap", source="ours")


HELP = """\
usage: python -m jaxshare.report RUN_DIR... [key=value ...]

Statistics of finished (or unfinished) runs: IQM, mean, median and optimality gap with stratified bootstrap intervals,
probability of improvement, performance profiles, learning curves against environment steps (updates for runs from a
data set) and wall time. Writes report.html, which holds everything, and its parts as PNG, CSV, LaTeX and JSON.
  python -m jaxshare.report runs/*
  python -m jaxshare.report QMIX='runs/qmix_*' DIFFER='runs/differ_*' out=report metric=win_rate
  python -m jaxshare.report runs/* skip=true ignore=[total_env_steps] "ranges={{2s3z:[0,20]}}"

Runs are one group if they differ in nothing but seed, task, and what changes no result (run_dir, logger, progress,
parallel, checkpoint). Groups are named by algorithm, modifiers, and the settings that tell them apart, or by you:
LABEL=DIR. A label whose runs differ in a setting is refused, and the setting is named. A task is an environment with
its scenario, and the data set learned from.
  score       curve: the evaluation nearest to where the shortest run ends. final and best: from evaluation.json, so
              run jaxshare.evaluate first (checkpoint=best for best). Never the best evaluation of a curve: that is
              chosen by luck. A best checkpoint has no other effect.
  seeds       with one there is no interval. Groups and tasks may have different numbers, which is said.
  curves      IQM of runs, on a line between evaluations, as far as all runs of the group go; evaluations need not be
              equally many. Wall time is that of the whole command, compilation and evaluations included.
  ranges      scores are normalised for aggregates over tasks. Not given, a win rate has 0 to 1, a data set the returns
              of random play and of its best policy, and otherwise the lowest and highest evaluation count as 0 and 1.

settings and their defaults
{settings}
"""


def main() -> None:
    """Entry point."""
    cli.run_command(lambda: _main(sys.argv[1:]))


def _main(arguments: list[str]) -> None:
    if any(a in ("-h", "--help") for a in arguments):
        print(small_help(HELP, Config))
        return
    report(configured(arguments))


def configured(arguments: list[str]) -> Config:
    """The settings among the arguments, and all others as run directories. Raises RefusedError."""
    names, settings, runs = [f.name for f in fields(Config)], [], []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if argument.startswith("-"):
            raise RefusedError(f"'{argument}' is not understood: settings are written key=value, as in out=report.")
        if equals and key in ("ignore", "per_task", "runs") and not value.startswith("["):
            settings.append(f"{key}=[{value}]")
        elif equals and (key in names or not (pathlib.Path(argument).exists() or _names_a_run(value))):
            settings.append(argument)
        else:
            runs.append(_at_home(argument))
    config = cli.small_config(Config, settings)
    return replace(config, runs=[*config.runs, *runs])


def _names_a_run(pattern: str) -> bool:
    from jaxshare.results.runs import is_run_dir

    return any(is_run_dir(pathlib.Path(path)) for path in glob.glob(os.path.expanduser(pattern)))


def _at_home(item: str) -> str:
    """A run with its label, in which a shell leaves ~ alone: LABEL=~/DIR."""
    label, equals, pattern = item.partition("=")
    if not equals or pathlib.Path(item).exists():
        return os.path.expanduser(item)
    return f"{label}={os.path.expanduser(pattern)}"


def _check(config: Config) -> None:
    if not config.runs:
        raise RefusedError("no run is named: python -m jaxshare.report runs/*.")
    for key, known in CHOICES.items():
        registry.one_of(key, getattr(config, key), known)
    check_record(config)
    if config.last > 1 and config.score != "curve":
        raise RefusedError(f"last={config.last} has no effect with score={config.score}: say score=curve.")


def report(config: Config) -> dict[str, Any]:
    """Read, compute, write and print: what report.json holds. Raises RefusedError."""
    _check(config)
    from jaxshare.results import numbers as numbering
    from jaxshare.results import page, pictures, tables
    from jaxshare.results import study as studies
    from jaxshare.terminal import open_console

    notes: list[str] = []
    study = studies.make(_runs(config, notes), config, notes)
    out = pathlib.Path(config.out)
    output.check_writable(out, "out", folder=True)
    output.check_writable(out / REPORT, "out")  # before the bootstraps, which take long
    numbers = numbering.make(study, config)
    how = explained(study, config)
    _show(study, numbers, how)
    out.mkdir(parents=True, exist_ok=True)
    drawn = pictures.draw(study, numbers, out, config.confidence)
    written = [*drawn.values(), *tables.write(study, numbers, out, config)]
    written.append(page.write(study, numbers, drawn, how, command(config), out))
    result = as_plain(study, numbers, config, how)
    written.append(out / REPORT)
    written[-1].write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    console = open_console()
    console.print(f"written: {out}: {', '.join(path.name for path in written)}\nopen:    {out / 'report.html'}")
    return result


def _show(study: Study, numbers: Numbers, how: list[str]) -> None:
    """Print tables and sentences, before anything is written."""
    from jaxshare.terminal import open_console

    console = open_console()
    for table in _console_tables(study, numbers):
        console.print(table)
    for line in (*how, *(f"note: {note}" for note in study.notes)):
        console.print(line)


def _runs(config: Config, notes: list[str]) -> list[Run]:
    """All runs that are named; with skip=true what is none becomes a note."""
    from jaxshare.results import runs as reading

    found: list[Run] = []
    remarks: dict[str, list[str]] = {}
    for label, path in reading.expand(config.runs):
        try:
            found += reading.read(path, label, remarks)
        except RefusedError as error:
            if not config.skip:
                raise
            notes.append(f"left out: {str(error).removesuffix(f' {reading.SKIP}')}")
    notes += [f"{', '.join(paths)}: {what}" for what, paths in remarks.items()]
    if not found:
        raise RefusedError(f"there is no run to report among {', '.join(config.runs)}. Name run directories: runs/*.")
    return found


def command(config: Config) -> str:
    """The command line that makes this report again."""
    settings = []
    for one in fields(Config):
        value = getattr(config, one.name)
        usual = one.default_factory() if callable(one.default_factory) else one.default
        if one.name != "runs" and value != usual:
            settings.append(f"{one.name}={_spelled(value)}")
    return shlex.join(["python", "-m", "jaxshare.report", *config.runs, *settings])


def _spelled(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_spelled(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_spelled, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def explained(study: Study, config: Config) -> list[str]:
    """What the numbers are, in sentences."""
    kinds = {
        "curve": f"the mean of the last {config.last} evaluations" if config.last > 1 else "the last evaluation",
        "final": "what jaxshare.evaluate found with the final checkpoint",
        "best": "what jaxshare.evaluate found with the best checkpoint, on other episodes than chose it",
    }
    lines = [f"A run's score is its {study.metric.replace('_', ' ')}: {kinds[config.score]}. Higher counts as better."]
    for task in study.tasks:
        of, found = study.ranges[task], [cell for (_, name), cell in study.cells.items() if name == task]
        points = sorted({f"{cell.point:,.0f}" for cell in found})
        where = f" at {' or '.join(points)} {study.unit[task]}" if config.score == "curve" else ""
        lines.append(
            f"{task}: {study.policy[task]} policy, {study.episodes[task]} episodes{where}; normalised with "
            f"{of.low:g} as 0 and {of.high:g} as 1 ({of.source})."
        )
    lines.append(
        f"Intervals: {100 * config.confidence:g} %, percentiles of {config.resamples:,} bootstraps that draw seeds "
        "anew within each task (curves and profiles: a tenth of them). They hold for new seeds on these tasks."
    )
    at_once = {run.at_once for cell in study.cells.values() for run in cell.runs}
    several = "; commands here trained " + " or ".join(map(str, sorted(at_once))) + " runs at once"
    lines.append(f"Wall time is of the whole command, with compilation and evaluations{several * (max(at_once) > 1)}.")
    return lines


# ---------------------------------------------------------------------------------------------------------------- plain


def as_plain(study: Study, numbers: Numbers, config: Config, how: list[str]) -> dict[str, Any]:
    """Everything but curves and profiles, which are in their CSV files, as plain values."""
    return {
        "command": command(config),
        "metric": study.metric,
        "score": config.score,
        "how": how,
        "notes": study.notes,
        "groups": study.groups,
        "common_tasks": study.common,
        "tasks": {task: _task(study, numbers, task) for task in study.tasks},
        "aggregates": {
            group: {"seeds": study.count(group, study.common), **{k: _plain(x) for k, x in found.items()}}
            for group, found in numbers.aggregates.items()
        },
        "improvement": [{"x": x, "y": y, **_plain(found)} for (x, y), found in numbers.improvement.items()],
        "settings": study.settings,
    }


def _task(study: Study, numbers: Numbers, task: str) -> dict[str, Any]:
    of, groups = study.ranges[task], {}
    for group in study.groups:
        if (group, task) in study.cells:
            cell = study.cells[group, task]
            groups[group] = {
                "seeds": [run.seed for run in cell.runs],
                "run_dirs": [str(run.path) for run in cell.runs],
                "finished": [run.finished for run in cell.runs],
                "scores": cell.scores.tolist(),
                "point": cell.point,
                **{name: _plain(found) for name, found in numbers.by_task[group, task].items()},
            }
    about = {"unit": study.unit[task], "policy": study.policy[task], "episodes": study.episodes[task]}
    return {**about, "range": {"low": of.low, "high": of.high, "source": of.source}, "groups": groups}


def _plain(found: Estimate) -> dict[str, float | None]:
    pairs = (("value", found.value), ("low", found.low), ("high", found.high))
    return {name: float(value) if float(value) == float(value) else None for name, value in pairs}


# -------------------------------------------------------------------------------------------------------------- console


def _console_tables(study: Study, numbers: Numbers) -> list[Any]:
    """Normalised aggregates over the common tasks, and what was measured on each task.

    No space in an interval, so that a narrow console does not break it.
    """
    from rich.box import SIMPLE
    from rich.table import Column, Table

    from jaxshare.results.tables import STATISTICS, shown

    def table(title: str, names: Sequence[str], width: int) -> Any:
        columns = [Column(name, min_width=width) for name in names]
        return Table(Column("group", overflow="fold"), "seeds", *columns, title=title, box=SIMPLE)

    tables, metric = [], study.metric.replace("_", " ")
    if numbers.aggregates:
        over = study.common[0] if len(study.common) == 1 else f"{len(study.common)} tasks"
        tables.append(table(f"normalised {metric} on {over}", list(STATISTICS.values()), len("[0.11,0.22]")))
        for group, own in numbers.aggregates.items():
            cells = [shown(own[name], "", 2) for name in STATISTICS]
            tables[-1].add_row(group, study.count(group, study.common), *cells)
    for task in study.tasks:
        tables.append(table(f"{metric} on {task}", ("IQM", "mean", "lowest to highest"), len("[-111.1,-111.1]")))
        for group in (group for group in study.groups if (group, task) in study.cells):
            cell, found = study.cells[group, task], numbers.by_task[group, task]
            ends = f"{cell.scores.min():.4g} to {cell.scores.max():.4g}"
            tables[-1].add_row(group, str(len(cell.runs)), shown(found["iqm"], ""), shown(found["mean"], ""), ends)
    return tables


if __name__ == "__main__":
    main()

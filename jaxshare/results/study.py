"""The scores of runs, made comparable: taken at one point, and normalised between a worst and a best score per task."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxshare.results import groups as grouping
from jaxshare.results.runs import Run, policy_of
from jaxshare.types import RefusedError

WIN_RATE = "win_rate"
FEW = 5  # seeds, below which percentile intervals are much too narrow


@dataclass(frozen=True)
class Range:
    """What counts as 0 and as 1 on a task, and who says so."""

    low: float
    high: float
    source: str

    def normalised(self, scores: np.ndarray) -> np.ndarray:
        """Scores of any shape, 0 at `low` and 1 at `high`."""
        return (scores - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Cell:
    """The runs of one group on one task."""

    runs: list[Run]
    point: float  # where the scores are taken, in environment steps or updates
    scores: np.ndarray  # [N]


@dataclass(frozen=True)
class Study:
    """Everything that statistics and pictures are made from."""

    metric: str
    policy: dict[str, str]  # task -> greedy or stochastic
    episodes: dict[str, Any]  # task -> per evaluation
    groups: list[str]
    tasks: list[str]
    cells: dict[tuple[str, str], Cell]  # (group, task)
    ranges: dict[str, Range]  # of a task
    unit: dict[str, str]  # of a task: "environment steps" or "updates"
    common: list[str]  # tasks that all groups have
    settings: dict[str, dict[str, str]]  # setting -> group -> value, for those that differ
    notes: list[str]

    def seeds(self, group: str, task: str) -> int:
        """Number of runs of a group on a task."""
        return len(self.cells[group, task].runs) if (group, task) in self.cells else 0

    def count(self, group: str, tasks: list[str] | None = None) -> str:
        """Number of runs on each of the tasks (all): '5', or '3 to 5' where they differ."""
        return _span([n for n in (self.seeds(group, task) for task in tasks or self.tasks) if n])

    def counted(self, group: str, tasks: list[str] | None = None) -> str:
        """'5 seeds', of a group on each of the tasks (all)."""
        count = self.count(group, tasks)
        return f"{count} seed{'s' * (count != '1')}"

    def counted_on(self, task: str) -> str:
        """'5 seeds a group', of a task."""
        count = _span([n for n in (self.seeds(group, task) for group in self.groups) if n])
        return f"{count} seed{'s' * (count != '1')} a group"

    def normalised(self, group: str) -> list[np.ndarray]:
        """Normalised scores on the tasks that all groups have, [N] each."""
        return [self.ranges[task].normalised(self.cells[group, task].scores) for task in self.common]


def _span(counts: list[int]) -> str:
    few, many = min(counts), max(counts)
    return str(few) if few == many else f"{few} to {many}"


def make(runs: list[Run], config: Any, notes: list[str]) -> Study:
    """The study of these runs. config: of jaxshare.report. Raises RefusedError for what cannot be compared."""
    metric = choose_metric(runs, config)
    runs = _unfinished(runs, config.unfinished, notes)
    as_played = {"eval.policy": lambda run: policy_of(metric, str(run.settings.get("eval.policy", "greedy")))}
    runs = [replace(run, settings={**run.settings, **{k: of(run) for k, of in as_played.items()}}) for run in runs]
    chosen = {name: grouping.full_keys(name, getattr(config, name), runs) for name in ("ignore", "per_task")}
    found = grouping.cells(runs, metric, config.score, chosen, notes)
    names = list(dict.fromkeys(group for group, _ in found))
    tasks = sorted({task for _, task in found})
    cells = {key: _cell(key, found, metric, config, notes) for key in found}
    how = {t: grouping.evaluated(next(found[k][0] for k in found if k[1] == t), metric, config.score) for t in tasks}
    _note_points(cells, tasks, config, notes)
    _note_seeds(cells, notes)
    return Study(
        metric=metric, policy={task: str(how[task]["eval.policy"]) for task in tasks},
        episodes={task: how[task]["eval.episodes"] for task in tasks}, groups=names, tasks=tasks, cells=cells,
        ranges=_ranges(cells, tasks, metric, config), unit={t: _unit(cells, t) for t in tasks},
        common=_common(found, names, tasks, notes), settings=grouping.settings_table(found), notes=notes,
    )  # fmt: skip


def choose_metric(runs: list[Run], config: Any) -> str:
    """The asked metric, if all runs have it; else win_rate where all have that, else return."""
    if config.score == "curve":
        has = [set(run.values) for run in runs]
    else:
        lacking = next((run for run in runs if config.score not in run.played), None)
        if lacking:
            how = "checkpoint=best" if config.score == "best" else ""
            raise RefusedError(
                f"score={config.score}: {lacking} has no such scores in evaluation.json. Make them with "
                f"`{' '.join(f'python -m jaxshare.evaluate run_dir={lacking.path} {how}'.split())}`, or report "
                "score=curve."
            )
        not_metrics = {"seed", "env_steps", "how", "selected_return"}
        has = [{k for k in run.played[config.score] if k not in not_metrics and "sweep." not in k} for run in runs]
    metric = config.metric or (WIN_RATE if all(WIN_RATE in names for names in has) else "return")
    for run, names in zip(runs, has, strict=True):
        if metric not in names:
            raise RefusedError(f"metric={metric}: {run} has no such score. It has: {', '.join(sorted(names))}.")
    return metric


def _unfinished(runs: list[Run], what: str, notes: list[str]) -> list[Run]:
    """The runs that are reported, by what is asked for unfinished ones: cut, drop or refuse."""
    open_ones = [run for run in runs if not run.finished]
    shown = []
    for path in dict.fromkeys(run.path for run in open_ones):
        own = [run for run in open_ones if run.path == path]
        seeds = ", ".join(str(run.seed) for run in own)
        least = min(run.progress[-1] for run in own)
        shown.append(f"{path}, seed {seeds}, is at {least:,.0f} of {own[0].total:,}")
    if open_ones and what == "refuse":
        raise RefusedError(
            f"unfinished=refuse: {'; '.join(shown)}. Train to the end with resume=auto, leave unfinished runs out with "
            "unfinished=drop, or compare where the shortest one stands with unfinished=cut."
        )
    for line in shown:
        notes.append(f"unfinished: {line}" + (", and is left out." if what == "drop" else "."))
    kept = [run for run in runs if run.finished] if what == "drop" else runs
    if not kept:
        raise RefusedError("unfinished=drop leaves no run: none has come to its end.")
    return kept


# --------------------------------------------------------------------------------------------------------------- scores


def _cell(key: tuple[str, str], found: grouping.Cells, metric: str, config: Any, notes: list[str]) -> Cell:
    """The scores of a group on a task: at the last point that all runs have reached, of the task or of the group."""
    runs, (group, task) = found[key], key
    compared = runs if config.at == "end" else [run for (_, t), own in found.items() if t == task for run in own]
    shortest = min(compared, key=lambda run: run.progress[-1])
    point = float(shortest.progress[-1])
    if config.score != "curve":
        _note_played(group, task, runs, config.score, notes)
    elif point <= 0:
        raise RefusedError(
            f"{shortest} has been evaluated before training only. Train on, or leave it out with unfinished=drop."
        )
    return Cell(runs, point, np.array([score_of(run, metric, point, config.score, config.last) for run in runs]))


def score_of(run: Run, metric: str, point: float, score: str, last: int) -> float:
    """The mean of the `last` evaluations that end with the one nearest to a point, or what evaluation.json says."""
    if score != "curve":
        found, where = float(run.played[score][metric]), "in evaluation.json"
    else:
        end = int(np.argmin(np.abs(run.progress - point))) + 1
        if end < last:
            raise RefusedError(f"last={last}: {run} has {end} evaluations up to {point:,.0f}. Use last={end} at most.")
        found, where = float(run.values[metric][end - last : end].mean()), f"at {run.progress[end - 1]:,.0f}"
    if not np.isfinite(found):
        raise RefusedError(f"{run} has a {metric} of {found} {where}. Leave this run out.")
    return found


def _note_played(group: str, task: str, runs: list[Run], kind: str, notes: list[str]) -> None:
    """A final checkpoint that was not the last one is worth knowing."""
    for run in runs:
        at = run.played[kind].get("env_steps", 0)
        if kind == "final" and not run.data and at < run.progress[-1]:
            notes.append(
                f"{group} on {task}: evaluation.json of {run} is of the checkpoint at {at:,} of "
                f"{run.progress[-1]:,.0f} environment steps."
            )


def _note_points(cells: dict[tuple[str, str], Cell], tasks: list[str], config: Any, notes: list[str]) -> None:
    """Runs of different length: who is compared where."""
    if config.score != "curve":
        return
    for task in tasks:
        ends = {g: max(run.progress[-1] for run in c.runs) for (g, t), c in cells.items() if t == task}
        point = min(cell.point for (_, t), cell in cells.items() if t == task)
        beyond = [g for g, end in ends.items() if end > point + 0.02 * max(ends.values())]
        if beyond and config.at == "common":
            notes.append(
                f"{task}: scores are taken at {point:,.0f} {_unit(cells, task)}, where the shortest run ends; longer "
                f"ones: {', '.join(beyond)}. at=end takes every group where it ends itself."
            )
        elif len({cell.point for (_, t), cell in cells.items() if t == task}) > 1 and config.at == "end":
            at = ", ".join(f"{g} {c.point:,.0f}" for (g, t), c in cells.items() if t == task)
            notes.append(f"{task}: every group is scored where it ends itself, in {_unit(cells, task)}: {at}.")


def _note_seeds(cells: dict[tuple[str, str], Cell], notes: list[str]) -> None:
    one = [f"{group} on {task}" for (group, task), cell in cells.items() if len(cell.runs) == 1]
    few = [f"{group} on {task}" for (group, task), cell in cells.items() if 1 < len(cell.runs) < FEW]
    if one:
        notes.append(f"one seed says nothing of the spread, so there is no interval: {', '.join(one)}.")
    if few:
        notes.append(f"with fewer than {FEW} seeds bootstrap intervals are too narrow: {', '.join(few)}.")
    for task in dict.fromkeys(task for _, task in cells):
        counts = {group: len(cell.runs) for (group, t), cell in cells.items() if t == task}
        if len(set(counts.values())) > 1:
            shown = ", ".join(f"{group} {count}" for group, count in counts.items())
            notes.append(f"{task}: groups have different numbers of seeds: {shown}.")


# --------------------------------------------------------------------------------------------------------------- ranges


def _ranges(cells: dict[tuple[str, str], Cell], tasks: list[str], metric: str, config: Any) -> dict[str, Range]:
    given = {str(name): values for name, values in config.ranges.items()}
    found, used = {}, set()
    for task in tasks:
        name = next((name for name in given if name in _names(task)), None)
        used.add(name)
        found[task] = _given(task, given[name]) if name is not None else _range(cells, task, metric)
    for name in given:
        if name not in used:
            raise RefusedError(f"ranges has {name}, which is no task here. Tasks: {', '.join(tasks)}.")
    return found


def _names(task: str) -> tuple[str, ...]:
    """What a task may be called: in full, without its environment, and without what tells it from others."""
    short = task.partition(" ")[0]
    return task, task.partition("/")[2], short, short.partition("/")[2]


def _given(task: str, values: Any) -> Range:
    """Two numbers, the smaller first, or RefusedError."""
    numbers = [v for v in values if isinstance(v, int | float)] if isinstance(values, list | tuple) else []
    if len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise RefusedError(f"ranges: {task} has {values}, which must be a lower and an upper score, as in [0,20].")
    return Range(float(numbers[0]), float(numbers[1]), "given")


def _range(cells: dict[tuple[str, str], Cell], task: str, metric: str) -> Range:
    """Of a task whose range is not given: what the metric or the data set say, or what the runs have reached."""
    if metric.endswith(WIN_RATE):
        return Range(0.0, 1.0, "a win rate")
    own = [cell for (_, name), cell in cells.items() if name == task]
    stored = _of_data_set(own[0].runs[0].data) if metric == "return" else None
    if stored:
        return stored
    values = [run.values[metric] for cell in own for run in cell.runs if metric in run.values]
    every = np.concatenate([*values, *(cell.scores for cell in own)])
    low, high = float(np.nanmin(every)), float(np.nanmax(every))
    if not low < high:
        raise RefusedError(
            f"{task}: all evaluations are {low:g}, which gives no range to normalise by. Say what is bad and good, as "
            f"in ranges={{{task}:[{low:g},{low + 1:g}]}}."
        )
    return Range(low, high, "lowest and highest evaluation of the runs in this report")


def _of_data_set(data: str) -> Range | None:
    """From random play to the best of the policies that made a data set, if it is there and says so."""
    from jaxshare.data import own

    path = pathlib.Path(data)
    if not data or not (path / own.CARD).is_file():
        return None
    pools = own.open(path).card.get("pools") or {}
    if not ("low" in pools and "high" in pools and pools["low"] < pools["high"]):
        return None
    return Range(float(pools["low"]), float(pools["high"]), "random play and best policy of the data set's pool")


def _unit(cells: dict[tuple[str, str], Cell], task: str) -> str:
    offline = next(cell.runs[0].data for (_, name), cell in cells.items() if name == task)
    return "updates" if offline else "environment steps"


def _common(found: grouping.Cells, names: list[str], tasks: list[str], notes: list[str]) -> list[str]:
    """Tasks that every group has: only there groups are compared over all tasks."""
    common = [task for task in tasks if all((name, task) in found for name in names)]
    if len(common) < len(tasks):
        missing = [f"{name} on {task}" for task in tasks for name in names if (name, task) not in found]
        over = ", ".join(common) if common else "none, so there are no aggregates"
        notes.append(f"there are no runs of {', '.join(missing)}. Aggregates are over: {over}.")
    return common

"""What several run directories are: groups on tasks, with comparable scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from jaxshare.results import arguments, checks, directories, groups, ranges, scores, study_notes
from jaxshare.results.checks import Scored
from jaxshare.results.groups import Cells, Place
from jaxshare.results.ranges import Range
from jaxshare.results.runs import Run, listed, policy_of, shortened
from jaxshare.types import RefusedError

if TYPE_CHECKING:
    from jaxshare.results.settings import Config


@dataclass(frozen=True)
class Cell:
    """The runs of one group on one task."""

    runs: list[Run]  # in the order of their seeds
    point: float  # where the scores are taken, in environment steps or updates
    scores: np.ndarray  # [N]


@dataclass(frozen=True)
class Task:
    """What is compared on one task."""

    cells: dict[str, Cell]  # of each group that has runs here
    unit: str  # of progress: "environment steps" or "updates"
    policy: str  # of evaluations: greedy or stochastic
    episodes: int  # of an evaluation
    range: Range

    @property
    def runs(self) -> Iterator[Run]:
        """All runs of all groups."""
        return (run for cell in self.cells.values() for run in cell.runs)

    @cached_property
    def end(self) -> float:
        """How far all runs go."""
        return min(run.progress[-1] for run in self.runs)

    @property
    def count(self) -> str:
        """'5 seeds a group'."""
        return f"{_seeds(_span([len(cell.runs) for cell in self.cells.values()]))} a group"


@dataclass(frozen=True)
class Study:
    """Everything that statistics and pictures are made from."""

    metric: str
    groups: list[str]
    tasks: dict[str, Task]  # by name, in the order of the alphabet
    cells: dict[Place, Cell]
    common: list[str]  # tasks that all groups have
    settings: dict[str, dict[str, str]]  # setting -> group -> value, for those that differ
    notes: list[str]

    def count(self, group: str, tasks: Sequence[str] = ()) -> str:
        """Number of runs of a group on each of the tasks (all): '5', or '3 to 5' if they differ."""
        places = [Place(group, task) for task in tasks or self.tasks]
        return _span([len(self.cells[place].runs) for place in places if place in self.cells])

    def counted(self, group: str, tasks: Sequence[str] = ()) -> str:
        """'5 seeds', of a group on each of the tasks (all)."""
        return _seeds(self.count(group, tasks))

    def normalised(self, group: str) -> list[np.ndarray]:
        """Normalised scores on the tasks that all groups have, [N] each."""
        normalised = []
        for task in self.common:
            cell = self.cells[Place(group, task)]
            normalised.append(self.tasks[task].range.normalised(cell.scores))
        return normalised


def _span(counts: Sequence[int]) -> str:
    few = min(counts)
    many = max(counts)
    return str(few) if few == many else f"{few} to {many}"


def _seeds(count: str) -> str:
    return f"{count} seed{'s' * (count != '1')}"


# -------------------------------------------------------------------------------------------- made


def read(config: Config) -> Study:
    """The study of the runs that are named. Raises RefusedError for what cannot be compared."""
    notes: list[str] = []
    return make(_read_runs(config, notes), config, notes)


def _read_runs(config: Config, notes: list[str]) -> list[Run]:
    """All runs that are named; with skip=true what is none becomes a note."""
    # every directory
    runs: list[Run] = []
    reading = directories.Reading()
    left_out = []
    for label, path in arguments.expand(config.runs):
        try:
            runs += reading.runs(path, label)
        except RefusedError as error:
            if not config.skip:
                raise
            left_out.append(f"left out: {str(error).removesuffix(f' {directories.SKIP}')}")

    # what was noticed on the way
    notes += shortened(left_out, "left out")
    notes += [f"{listed(paths)}: {what}" for what, paths in reading.remarks.items()]
    if not runs:
        names = listed(config.runs)
        remedy = "Name run directories: runs/*."
        raise RefusedError(f"there is no run to report among {names}. {remedy}")
    return runs


def make(runs: Sequence[Run], config: Config, notes: list[str]) -> Study:
    """The study of these runs. Raises RefusedError for what cannot be compared."""
    # which runs, by which metric
    metric = scores.choose_metric(runs, config)
    scored = Scored(metric, config.score)
    runs = scores.reported(runs, config.unfinished, notes)
    runs = [_with_policy(run, metric) for run in runs]

    # groups on tasks
    free = groups.exempt(config.ignore, config.per_task, runs)
    pooled = groups.cells(runs, free)
    checks.check_cells(pooled, scored, free)
    notes += checks.notes_on(pooled, free)
    names = list(groups.groups_of(pooled))
    of_tasks = dict(sorted(groups.tasks_of(pooled).items()))

    # their scores
    cells = _cells(pooled, metric, config, notes)
    tasks = _tasks(of_tasks, cells, scored, config)
    notes += study_notes.on_points(tasks, config)
    notes += study_notes.on_seeds(cells)
    common = [task for task in tasks if len(tasks[task].cells) == len(names)]
    notes += study_notes.on_missing(names, tasks, common)
    return Study(
        metric=metric,
        groups=names,
        tasks=tasks,
        cells=cells,
        common=common,
        settings=groups.settings_table(pooled),
        notes=notes,
    )


def _with_policy(run: Run, metric: str) -> Run:
    """The run with the policy of this metric as a setting: evaluations may have played both."""
    policy = policy_of(metric, run.eval_policy)
    return replace(run, settings={**run.settings, "eval.policy": policy})


def _cells(pooled: Cells, metric: str, config: Config, notes: list[str]) -> dict[Place, Cell]:
    """Scores at the last point that all runs have reached, of the task or of the group."""
    # which run of a task ends first
    of_task = groups.tasks_of(pooled)
    shortest = {task: _shortest(cells) for task, cells in of_task.items()}

    # each group there, or where it ends itself
    cells = {}
    earlier: list[str] = []
    for place, runs in pooled.items():
        last = shortest[place.task] if config.at == "common" else _shortest({place: runs})
        point = float(last.progress[-1])
        if config.score != "curve":
            earlier += study_notes.on_checkpoints(place, runs, config.score)
        elif point <= 0:
            remedy = "Train on, or leave it out with unfinished=drop"
            raise RefusedError(f"{last} has been evaluated before training only. {remedy}.")
        values = np.array([scores.score_of(run, metric, point, config) for run in runs])
        cells[place] = Cell(runs, point, values)
    notes += shortened(earlier, "evaluation.json of an earlier checkpoint")
    return cells


def _shortest(pooled: Cells) -> Run:
    runs = [run for members in pooled.values() for run in members]
    return min(runs, key=lambda run: run.progress[-1])


def _tasks(
    of_tasks: dict[str, Cells],
    cells: dict[Place, Cell],
    scored: Scored,
    config: Config,
) -> dict[str, Task]:
    """What is compared on each task, and how scores are normalised there."""
    chosen = ranges.chosen(config.ranges, list(of_tasks))
    tasks = {}
    for task, pooled in of_tasks.items():
        first = next(iter(pooled.values()))[0]
        how = scored.evaluated(first)
        of_task = {place.group: cells[place] for place in pooled}

        # what is counted, and which scores are 0 and 1
        unit = "updates" if first.data else "environment steps"
        ends = chosen.get(task) or _usual(task, of_task, scored.metric)
        tasks[task] = Task(
            cells=of_task,
            unit=unit,
            policy=str(how["eval.policy"]),
            episodes=how["eval.episodes"],
            range=ends,
        )
    return tasks


def _usual(task: str, cells: dict[str, Cell], metric: str) -> Range:
    runs = [run for cell in cells.values() for run in cell.runs]
    values = [run.values[metric] for run in runs if metric in run.values]
    values += [cell.scores for cell in cells.values()]
    return ranges.usual(task, metric, runs[0].data, values)

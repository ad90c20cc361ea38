"""What a reader of a study should know: points of comparison, numbers of seeds, tasks missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from jaxshare.results.groups import Place
from jaxshare.results.runs import Run, listed

if TYPE_CHECKING:
    from jaxshare.results.settings import Config
    from jaxshare.results.study import Cell, Task

FEW = 5  # seeds, below which percentile intervals are much too narrow
BEYOND = 0.02  # of the longest run, by which others may be shorter without a word


def on_checkpoints(place: Place, runs: Sequence[Run], score: str) -> Iterator[str]:
    """Runs whose final checkpoint was not the last one."""
    for run in runs:
        at = run.played[score].env_steps
        last = run.progress[-1]
        if score == "final" and not run.data and at < last:
            yield (
                f"{place.group} on {place.task}: evaluation.json of {run} is of the checkpoint at "
                f"{at:,} of {last:,.0f} environment steps."
            )


def on_points(tasks: Mapping[str, Task], config: Config) -> Iterator[str]:
    """Runs of different length: who is compared where."""
    if config.score != "curve":
        return
    for name, task in tasks.items():
        # where each group ends, and where it is scored
        ends = {}
        for group, cell in task.cells.items():
            ends[group] = max(run.progress[-1] for run in cell.runs)
        points = {group: cell.point for group, cell in task.cells.items()}
        point = min(points.values())

        # who goes on after that
        slack = BEYOND * max(ends.values())
        beyond = [group for group, end in ends.items() if end > point + slack]
        if beyond and config.at == "common":
            yield (
                f"{name}: scores are taken at {point:,.0f} {task.unit}, where the shortest run "
                f"ends; longer ones: {listed(beyond)}. at=end takes every group where it ends "
                "itself."
            )
        elif len(set(points.values())) > 1 and config.at == "end":
            where = listed([f"{group} {at:,.0f}" for group, at in points.items()])
            yield f"{name}: every group is scored where it ends itself, in {task.unit}: {where}."


def on_seeds(cells: Mapping[Place, Cell]) -> Iterator[str]:
    """Groups with too few seeds, and tasks where groups have different numbers of them."""
    # too few
    alone = []
    few = []
    counts: dict[str, dict[str, int]] = {}
    for place, cell in cells.items():
        count = len(cell.runs)
        counts.setdefault(place.task, {})[place.group] = count
        if count == 1:
            alone.append(f"{place.group} on {place.task}")
        elif count < FEW:
            few.append(f"{place.group} on {place.task}")
    if alone:
        yield f"one seed says nothing of the spread, so there is no interval: {listed(alone)}."
    if few:
        yield f"with fewer than {FEW} seeds bootstrap intervals are too narrow: {listed(few)}."

    # different numbers
    for task, of_task in counts.items():
        if len(set(of_task.values())) > 1:
            words = listed([f"{group} {count}" for group, count in of_task.items()])
            yield f"{task}: groups have different numbers of seeds: {words}."


def on_missing(
    groups: Sequence[str],
    tasks: Mapping[str, Task],
    common: Sequence[str],
) -> Iterator[str]:
    """Tasks that not every group has: only on the others are groups compared over all tasks."""
    if len(common) == len(tasks):
        return
    missing = []
    for name, task in tasks.items():
        missing += [f"{group} on {name}" for group in groups if group not in task.cells]
    over = listed(common) if common else "none, so there are no aggregates"
    yield f"there are no runs of {listed(missing)}. Aggregates are over: {over}."

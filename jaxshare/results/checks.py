"""What may be pooled and compared: settings, seeds and evaluations of runs, and notes on them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

from jaxshare.results.groups import (
    ABSENT,
    Cells,
    Exempt,
    differences,
    groups_of,
    tasks_of,
)
from jaxshare.results.runs import Run, gather_versions, policy_of
from jaxshare.types import RefusedError

MOST_SETTINGS = 6  # that a refusal names
MOST_NOTES = 10  # on groups that are perhaps one


@dataclass(frozen=True)
class Scored:
    """What the score of a run is."""

    metric: str
    source: str  # curve (evaluations in training), or final or best of evaluation.json

    def evaluated(self, run: Run) -> dict[str, Any]:
        """How a run's score came about, as settings, all of which compared runs must share."""
        if self.source == "curve":
            return {
                "eval.episodes": run.settings.get("eval.episodes"),
                "eval.policy": policy_of(self.metric, run.eval_policy),
            }
        played = run.played[self.source]
        return {
            "eval.episodes": played.episodes,
            "eval.policy": policy_of(self.metric, str(played.policy)),
            "eval.seed": played.seed,
        }


def check_cells(pooled: Cells, scored: Scored, free: Exempt) -> None:
    """Raise RefusedError, naming what differs, if runs are pooled or compared that must not be."""
    for place, runs in pooled.items():
        _check_pool(f"{place.group} on {place.task}", runs, free.ignore)
    for group, of_group in groups_of(pooled).items():
        _check_over_tasks(group, list(of_group.values()), free)
    for task, of_task in tasks_of(pooled).items():
        compared = [run for runs in of_task.values() for run in runs]
        _check_evaluations(task, compared, scored, free.ignore)


def _check_pool(what: str, runs: Sequence[Run], ignore: Collection[str]) -> None:
    """All settings of runs that are pooled are the same, and no seed is there twice."""
    for run in runs[1:]:
        _check_same(what, (runs[0], run), ignore, "ignore")
    for first, second in pairwise(runs):  # they are in the order of their seeds
        if first.seed == second.seed:
            raise RefusedError(
                f"{what}: seed {first.seed} is there twice, in {first.path} and in {second.path}. "
                "They are no independent runs: leave one out, or give them labels of their own, as "
                "in A=DIR B=DIR."
            )


def _check_over_tasks(group: str, members: Sequence[Sequence[Run]], free: Exempt) -> None:
    """A group has the same settings on all tasks but for those that may depend on the task."""
    for runs in members[1:]:
        _check_same(group, (members[0][0], runs[0]), free.over_tasks, "per_task")


def _check_same(what: str, pair: tuple[Run, Run], but: Collection[str], option: str) -> None:
    """Refuse two runs that differ in another setting than `but`, which `option` would allow."""
    # what differs
    first, second = [{"algorithm": run.name, **run.settings} for run in pair]
    keys = [key for key in differences([first, second]) if key not in but]
    if not keys:
        return

    # in words
    words = []
    for key in keys[:MOST_SETTINGS]:
        words.append(f"{key}={first.get(key, ABSENT)} and {second.get(key, ABSENT)}")
    differing = ", ".join(words)
    if len(keys) > MOST_SETTINGS:
        differing += f", and {len(keys) - MOST_SETTINGS} more"
    remedy = ""
    if "algorithm" not in keys:
        remedy = f", or pool them all the same with {option}=[{','.join(keys)}]"
    raise RefusedError(
        f"{what}: {pair[0].path} and {pair[1].path} differ in {differing}. Report them under "
        f"labels of their own, as in A=DIR B=DIR{remedy}."
    )


def _check_evaluations(
    task: str,
    runs: Sequence[Run],
    scored: Scored,
    ignore: Collection[str],
) -> None:
    """Scores that are compared come from as many episodes, played by the same kind of policy."""
    usual = scored.evaluated(runs[0])
    for run in runs:
        # what differs
        how = scored.evaluated(run)
        keys = [key for key in differences([usual, how]) if key not in ignore]

        # in words
        if keys:
            words = ", ".join(f"{key}={usual[key]} and {how[key]}" for key in keys)
            asked = "train or" if scored.source == "curve" else ""
            both = f"{runs[0].path} and {run.path}"
            raise RefusedError(
                f"{task}: {both} were evaluated differently ({words}). "
                f"Report them apart, {asked} evaluate them alike, or compare them all the same "
                f"with ignore=[{','.join(keys)}]."
            )


# ------------------------------------------------------------------------------------------- notes


def notes_on(pooled: Cells, free: Exempt) -> list[str]:
    """What a reader should know of groups that are perhaps one, and of versions."""
    return [*_apart(pooled, free), *_versions(pooled)]


@dataclass(frozen=True)
class _Group:
    name: str
    run: Run  # the first one
    tasks: frozenset[str]

    def may_be(self, other: _Group) -> bool:
        """Whether two groups of one algorithm meet on no task."""
        return self.run.name == other.run.name and not self.tasks & other.tasks


def _apart(pooled: Cells, free: Exempt) -> list[str]:
    """Groups of one algorithm that meet on no task are perhaps one, tuned for each task."""
    notes: list[str] = []
    for group, other in _strangers(pooled):
        if len(notes) == MOST_NOTES:
            notes.append("there are more such groups, which have no task in common.")
            break
        keys = differences([group.run.settings, other.run.settings])
        names = ",".join(key for key in keys if key not in free.over_tasks)
        notes.append(
            f"'{group.name}' and '{other.name}' have no task in common: if they are one group "
            f"with settings of its own for each task, say per_task=[{names}]."
        )
    return notes


def _strangers(pooled: Cells) -> Iterator[tuple[_Group, _Group]]:
    """Pairs of groups of one algorithm, named by nobody, that meet on no task."""
    groups = []
    for name, of_group in groups_of(pooled).items():
        first = next(iter(of_group.values()))[0]
        if not first.label:
            groups.append(_Group(name, first, frozenset(place.task for place in of_group)))

    # of thousands of groups few differ in algorithm and tasks, so that pairs need no comparing
    kinds = {(group.run.name, group.tasks): group for group in groups}
    if any(group.may_be(other) for group, other in combinations(kinds.values(), 2)):
        yield from (pair for pair in combinations(groups, 2) if pair[0].may_be(pair[1]))


def _versions(pooled: Cells) -> Iterator[str]:
    """Cells whose runs were made by different versions of something."""
    for place, runs in pooled.items():
        written = [run.versions for run in runs if run.versions]
        gathered = gather_versions(written)
        words = []
        for package in differences(written):
            values = gathered[package]
            if any(package not in run.versions for run in runs):
                values = [*values, ABSENT]
            words.append(f"{package} {' and '.join(values)}")
        if words:
            what = "its runs were made by different versions"
            yield f"{place.group} on {place.task}: {what} of {', '.join(words)}."

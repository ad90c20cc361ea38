"""Runs put into groups and tasks: a configuration is a group, and its name says what differs."""

from __future__ import annotations

import pathlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxshare import registry
from jaxshare.results.runs import Run, hashable
from jaxshare.types import RefusedError

SCENARIO = ("scenario", "game", "id")  # what the first own setting of an environment may be called
PER_TASK = ("total_env_steps", "total_updates", "eval.every")  # may differ from task to task
ABSENT = "absent"  # the value of a setting that a run does not have


class Place(NamedTuple):
    """A group on a task."""

    group: str
    task: str


Cells = dict[Place, list[Run]]  # the runs of each group on each task, in the order of their seeds


@dataclass(frozen=True)
class Exempt:
    """Full keys of settings in which runs may differ and are compared all the same."""

    ignore: Sequence[str]  # within a group
    per_task: Sequence[str]  # of a group from task to task

    @property
    def over_tasks(self) -> set[str]:
        """All in which the runs of a group on different tasks may differ."""
        return {*self.ignore, *self.per_task, *PER_TASK}


def exempt(ignore: Sequence[str], per_task: Sequence[str], runs: Sequence[Run]) -> Exempt:
    """The full keys that names like 'lr' or 'eval.every' mean. Raises RefusedError for others."""
    known = sorted({*PER_TASK, *(key for run in runs for key in run.settings)})
    return Exempt(
        ignore=_full_keys("ignore", ignore, known),
        per_task=_full_keys("per_task", per_task, known),
    )


def _full_keys(option: str, names: Sequence[str], known: Sequence[str]) -> list[str]:
    keys = []
    for name in names:
        bare = name.removeprefix("run.").removeprefix("modifiers.")
        meant = [key for key in known if key == bare or key.endswith(f".{bare}")]
        if not meant:
            near = registry.suggest(bare, known)
            raise RefusedError(f"{option}=[{bare}] is no setting of these runs.{near}")
        keys += meant
    return keys


def cells(runs: Sequence[Run], free: Exempt) -> Cells:
    """Runs by group and task."""
    by_task = _tasks(runs)
    by_group = _groups(runs, free)

    # where each run is
    place = {id(run): task for task, members in by_task.items() for run in members}
    order = {task: number for number, task in enumerate(by_task)}

    # the groups in their order, and in each of them the tasks
    pooled: Cells = {}
    for group, members in by_group.items():
        of_task: dict[str, list[Run]] = {}
        for run in members:
            of_task.setdefault(place[id(run)], []).append(run)
        for task in sorted(of_task, key=order.__getitem__):
            pooled[Place(group, task)] = sorted(of_task[task], key=lambda run: run.seed)
    return pooled


def groups_of(pooled: Cells) -> dict[str, Cells]:
    """The cells of each group."""
    groups: dict[str, Cells] = {}
    for place, runs in pooled.items():
        groups.setdefault(place.group, {})[place] = runs
    return groups


def tasks_of(pooled: Cells) -> dict[str, Cells]:
    """The cells of each task."""
    tasks: dict[str, Cells] = {}
    for place, runs in pooled.items():
        tasks.setdefault(place.task, {})[place] = runs
    return tasks


# ------------------------------------------------------------------------------------------- names


def _tasks(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by their task's name: environment and scenario, data set, and what else differs."""
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        by_name.setdefault(_environment(run), []).append(run)
    tasks: dict[str, list[Run]] = {}
    for name, members in by_name.items():
        kinds = []
        for run in members:
            data = str(pathlib.Path(run.data).resolve()) if run.data else ""
            kinds.append({**run.env, "data": data})
        tasks |= _told_apart(name, members, kinds)
    return tasks


def _environment(run: Run) -> str:
    """'smax/2s3z from low'."""
    scenario = next((str(run.env[key]) for key in SCENARIO if run.env.get(key)), "")
    name = "/".join(part for part in (run.env["env"], scenario) if part)
    return f"{name} from {pathlib.Path(run.data).stem}" if run.data else name


def _groups(runs: Sequence[Run], free: Exempt) -> dict[str, list[Run]]:
    """Runs by their group's name: the user's, or algorithm, modifiers and what else differs.

    Those that the user has named come first.
    """
    # those that the user has named
    groups: dict[str, list[Run]] = {}
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        if run.label:
            groups.setdefault(run.label, []).append(run)
        else:
            by_name.setdefault(run.name, []).append(run)

    # the others, by what tells them apart
    for name, members in by_name.items():
        kinds = [_without(run.settings, free.over_tasks) for run in members]
        for group, of_kind in _told_apart(name, members, kinds).items():
            groups.setdefault(group, []).extend(of_kind)
    return groups


def _without(settings: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in keys}


def _told_apart(
    name: str,
    runs: Sequence[Run],
    kinds: Sequence[dict[str, Any]],
) -> dict[str, list[Run]]:
    """Runs of one name, each of a kind (its settings), by a name that says how kinds differ."""
    # the kinds there are, in the order in which they come
    hashes = [hashable(kind) for kind in kinds]
    distinct: dict[Hashable, dict[str, Any]] = {}
    for key, kind in zip(hashes, kinds, strict=True):
        distinct.setdefault(key, kind)

    # ' lr=0.1 tau=0.01' for each of them
    differing = differences(distinct.values())
    short = _shortened(differing)
    suffixes = {}
    for key, kind in distinct.items():
        suffixes[key] = ""
        for setting in differing:
            suffixes[key] += f" {short[setting]}={in_words(kind.get(setting, ABSENT))}"

    # the runs of each
    named: dict[str, list[Run]] = {}
    for run, key in zip(runs, hashes, strict=True):
        named.setdefault(name + suffixes[key], []).append(run)
    return named


def in_words(value: object) -> str:
    """The value of a setting, without spaces."""
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(str, value)) + "]"
    return str(value)


def _shortened(keys: Sequence[str]) -> dict[str, str]:
    """Each key by its last part, or in full where two end alike."""
    ends = [key.split(".")[-1] for key in keys]
    short = {}
    for key, end in zip(keys, ends, strict=True):
        short[key] = end if ends.count(end) == 1 else key
    return short


def differences(kinds: Iterable[dict[str, Any]]) -> list[str]:
    """Keys whose value is not the same in all of several settings."""
    first: dict[str, Any] | None = None
    differing: dict[str, bool] = {}  # every key, in the order in which they come
    for kind in kinds:
        first = kind if first is None else first
        for key in (*kind, *first):
            same = kind.get(key, ABSENT) == first.get(key, ABSENT)
            differing[key] = differing.get(key, False) or not same
    return [key for key, differs in differing.items() if differs]


def settings_table(pooled: Cells) -> dict[str, dict[str, str]]:
    """{setting: {group: value}} where groups differ; values by task are joined."""
    kinds: dict[str, dict[str, str]] = {}
    for group, of_group in groups_of(pooled).items():
        values: dict[str, dict[str, None]] = {}
        for runs in of_group.values():
            for run in runs:
                for key, value in run.settings.items():
                    values.setdefault(key, {})[in_words(value)] = None
        kinds[group] = {key: " | ".join(several) for key, several in values.items()}
    table = {}
    for key in sorted(differences(kinds.values())):
        table[key] = {group: kind.get(key, "–") for group, kind in kinds.items()}
    return table

"""Runs put into groups and tasks: the same configuration is one group, and what differs is never pooled."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from jaxshare import registry
from jaxshare.results.runs import SCENARIO, Run, policy_of
from jaxshare.types import RefusedError

PER_TASK = ("total_env_steps", "total_updates", "eval.every")  # a group may have them differ from task to task
ABSENT = "absent"
Cells = dict[tuple[str, str], list[Run]]  # (group, task) -> its runs


def tasks(runs: list[Run]) -> dict[str, list[Run]]:
    """Runs by the label of their task: environment and scenario, data set, and what else tells tasks apart."""
    named: dict[str, list[Run]] = {}
    for run in runs:
        named.setdefault(_short(run), []).append(run)
    found: dict[str, list[Run]] = {}
    for name, members in named.items():
        data = [str(pathlib.Path(run.data).resolve()) if run.data else "" for run in members]
        found |= _told_apart(name, members, [{**run.env, "data": d} for run, d in zip(members, data, strict=True)])
    return found


def _told_apart(name: str, runs: list[Run], own: list[dict[str, Any]]) -> dict[str, list[Run]]:
    """Runs of one name by a label that says where their `own` settings differ."""
    kinds = [what for i, what in enumerate(own) if what not in own[:i]]
    suffixes = _suffixes(kinds)
    found: dict[str, list[Run]] = {}
    for run, what in zip(runs, own, strict=True):
        found.setdefault(name + suffixes[kinds.index(what)], []).append(run)
    return found


def _short(run: Run) -> str:
    scenario = next((str(run.env[key]) for key in SCENARIO if run.env.get(key)), "")
    data = pathlib.Path(run.data).stem if run.data else ""
    return "/".join(part for part in (run.env["env"], scenario) if part) + (f" from {data}" if data else "")


def label(runs: list[Run], chosen: dict[str, list[str]]) -> dict[str, list[Run]]:
    """Runs by the label of their group: the given one, or algorithm, modifiers and the settings that tell it apart.

    chosen: full keys under "ignore" and "per_task".
    """
    free = {*chosen["ignore"], *chosen["per_task"], *PER_TASK}
    found: dict[str, list[Run]] = {}
    for run in (run for run in runs if run.given):
        found.setdefault(run.given, []).append(run)
    by_name: dict[str, list[Run]] = {}
    for run in (run for run in runs if not run.given):
        by_name.setdefault(run.name, []).append(run)
    for name, members in by_name.items():
        own = [{key: value for key, value in run.settings.items() if key not in free} for run in members]
        found |= _told_apart(name, members, own)
    return dict(sorted(found.items(), key=lambda item: item[1][0].given == ""))  # given ones first, in their order


def _suffixes(kinds: list[dict[str, Any]]) -> list[str]:
    """' lr=0.1 tau=0.01' for each of several settings: what is not the same in all."""
    differing = differences(kinds)
    short = _shortened(differing)
    return ["".join(f" {short[key]}={_shown(kind.get(key, ABSENT))}" for key in differing) for kind in kinds]


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(str, value)) + "]"
    return str(value)


def _shortened(keys: list[str]) -> dict[str, str]:
    """Each key by its last part, or in full where two end alike."""
    ends = [key.split(".")[-1] for key in keys]
    return {key: end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)}


def differences(kinds: Iterable[dict[str, Any]]) -> list[str]:
    """Keys whose value is not the same in all of several settings."""
    kinds = list(kinds)
    keys = dict.fromkeys(key for kind in kinds for key in kind)
    return [key for key in keys if any(kind.get(key, ABSENT) != kinds[0].get(key, ABSENT) for kind in kinds)]


def full_keys(option: str, names: list[str], runs: list[Run]) -> list[str]:
    """The settings that names like 'lr' or 'eval.every' mean. Raises RefusedError for one that there is not."""
    known = sorted({*PER_TASK, *(key for run in runs for key in run.settings)})
    found = []
    for name in names:
        name = name.removeprefix("run.").removeprefix("modifiers.")
        meant = [key for key in known if key == name or key.endswith(f".{name}")]
        if not meant:
            raise RefusedError(f"{option}=[{name}] is no setting of these runs.{registry.suggest(name, known)}")
        found += meant
    return found


def cells(runs: list[Run], metric: str, score: str, chosen: dict[str, list[str]], notes: list[str]) -> Cells:
    """Runs by (group, task). Raises RefusedError if a group would pool what differs in more than its seeds."""
    by_task, by_group = tasks(runs), label(runs, chosen)
    found: Cells = {}
    for group, members in by_group.items():
        for task, others in by_task.items():
            both = [run for run in members if any(run is other for other in others)]
            if both:
                found[group, task] = sorted(both, key=lambda run: run.seed)
    for (group, task), members in found.items():
        _check_pool(f"{group} on {task}", members, chosen["ignore"])
    for group in by_group:
        _check_over_tasks(group, [member for (name, _), member in found.items() if name == group], chosen)
    for task in by_task:
        compared = [run for (_, name), members in found.items() if name == task for run in members]
        _check_evaluations(task, compared, metric, score, chosen["ignore"])
    _note_apart(found, chosen, notes)
    _note_versions(found, notes)
    return found


def _check_pool(what: str, runs: list[Run], ignore: list[str]) -> None:
    """All settings of runs that are pooled are the same, and no seed is there twice."""
    for run in runs[1:]:
        _same(what, runs[0], run, ignore)
    for first, second in pairwise(runs):  # they are in the order of their seeds
        if first.seed == second.seed:
            raise RefusedError(
                f"{what}: seed {first.seed} is there twice, in {first.path} and in {second.path}. They are no "
                "independent runs: leave one out, or give them labels of their own, as in A=DIR B=DIR."
            )


def _check_over_tasks(group: str, members: list[list[Run]], chosen: dict[str, list[str]]) -> None:
    """A group has the same settings on all tasks but for those that may depend on the task."""
    for runs in members[1:]:
        _same(group, members[0][0], runs[0], [*chosen["ignore"], *chosen["per_task"], *PER_TASK], "per_task")


def _same(what: str, first: Run, second: Run, but: list[str], option: str = "ignore") -> None:
    """Raise RefusedError naming what differs."""
    mine, theirs = ({"algorithm": run.name, **run.settings} for run in (first, second))
    keys = [key for key in differences([mine, theirs]) if key not in but]
    if keys:
        shown = ", ".join(f"{key}={mine.get(key, ABSENT)} and {theirs.get(key, ABSENT)}" for key in keys[:6])
        more = f", and {len(keys) - 6} more" if len(keys) > 6 else ""
        free = [key for key in keys if key != "algorithm"]
        remedy = f", or pool them all the same with {option}=[{','.join(free)}]" if free == keys else ""
        raise RefusedError(
            f"{what}: {first.path} and {second.path} differ in {shown}{more}. Report them under labels of their own, "
            f"as in A=DIR B=DIR{remedy}."
        )


def _check_evaluations(task: str, runs: list[Run], metric: str, score: str, ignore: list[str]) -> None:
    """Scores that are compared come from as many episodes, played by the same kind of policy."""
    first: tuple[Run, dict[str, Any]] | None = None
    for run in runs:
        how = evaluated(run, metric, score)
        first = first or (run, how)
        keys = [key for key in differences([first[1], how]) if key not in ignore]
        if keys:
            shown = ", ".join(f"{key}={first[1][key]} and {how[key]}" for key in keys)
            asked = "train or" if score == "curve" else ""
            raise RefusedError(
                f"{task}: {first[0].path} and {run.path} were evaluated differently ({shown}). Report them apart, "
                f"{asked} evaluate them alike, or compare them all the same with ignore=[{','.join(keys)}]."
            )


def evaluated(run: Run, metric: str, score: str) -> dict[str, Any]:
    """How a run's score came about: {"eval.episodes", "eval.policy"}, and with evaluation.json "eval.seed"."""
    if score == "curve":
        policy = policy_of(metric, str(run.settings.get("eval.policy", "greedy")))
        return {"eval.episodes": run.settings.get("eval.episodes"), "eval.policy": policy}
    how = run.played[score]["how"]
    return {
        "eval.episodes": how["episodes"],
        "eval.policy": policy_of(metric, str(how["policy"])),
        "eval.seed": how["eval_seed"],
    }


def _note_apart(found: Cells, chosen: dict[str, list[str]], notes: list[str]) -> None:
    """Groups of one algorithm that meet on no task are perhaps one group, tuned for each task."""
    kinds = {group: (runs[0], {task for name, task in found if name == group}) for (group, _), runs in found.items()}
    names = list(kinds)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            (first, here), (second, there) = kinds[one], kinds[other]
            if first.name == second.name and not (first.given or second.given or here & there):
                free = {*chosen["ignore"], *chosen["per_task"], *PER_TASK}
                keys = [key for key in differences([first.settings, second.settings]) if key not in free]
                notes.append(
                    f"'{one}' and '{other}' have no task in common: if they are one group with settings of its own for "
                    f"each task, say per_task=[{','.join(keys)}]."
                )


def _note_versions(found: Cells, notes: list[str]) -> None:
    for (group, task), runs in found.items():
        keys = differences([run.versions for run in runs if run.versions]) if any(run.versions for run in runs) else []
        if keys:
            shown = ", ".join(
                f"{key} {' and '.join(sorted({str(run.versions.get(key, ABSENT)) for run in runs}))}" for key in keys
            )
            notes.append(f"{group} on {task}: its runs were made by different versions of {shown}.")


def settings_table(found: Cells) -> dict[str, dict[str, str]]:
    """{setting: {group: value}} for all settings that are not the same in all groups; values by task are joined."""
    names = list(dict.fromkeys(group for group, _ in found))
    kinds: dict[str, dict[str, str]] = {}
    for group in names:
        own = [run.settings for (name, _), runs in found.items() if name == group for run in runs]
        keys = dict.fromkeys(key for settings in own for key in settings)
        kinds[group] = {
            key: " | ".join(dict.fromkeys(_shown(settings[key]) for settings in own if key in settings)) for key in keys
        }
    return {key: {group: kinds[group].get(key, "–") for group in names} for key in sorted(differences(kinds.values()))}

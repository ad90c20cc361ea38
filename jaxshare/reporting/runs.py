"""Runs read from their directories: settings, evaluations while training, and what jaxshare.evaluate has played."""

from __future__ import annotations

import glob
import pathlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxshare import results
from jaxshare.config import POLICIES
from jaxshare.evaluate import BEST, EVALUATION
from jaxshare.loggers import METRICS
from jaxshare.run import folder, reader
from jaxshare.run.metrics import COUNTERS
from jaxshare.types import RefusedError

# Settings that change no result, or that tell runs of a group from each other. Everything else is compared.
IRRELEVANT = ("seed", "seeds", "run_dir", "logger", "progress", "parallel", "checkpoint", "resume", "eval.num_envs")
OF_HOST = ("workers", "timeout", "python")  # of environments: how they are run, not what they are
SCENARIO = ("scenario", "game", "id")  # what the first own setting of an environment may be called
PREFIX = "eval/"
SKIP = "skip=true leaves out what has nothing to report."


@dataclass(frozen=True)
class Run:
    """One seed of one configuration. P evaluations while training."""

    path: pathlib.Path
    seed: int
    name: str  # "qmix+differ"
    given: str  # label that the user has given, or ""
    settings: dict[str, Any]  # flat, without the environment's and the irrelevant ones
    env: dict[str, Any]  # the environment's, and the name of it
    data: str  # the data set that it learns from, or ""
    total: int  # environment steps, or updates with a data set
    at_once: int  # runs that one command trained together
    progress: np.ndarray  # [P]: environment steps, or updates with a data set
    wall: np.ndarray  # [P] seconds
    values: dict[str, np.ndarray]  # metric -> [P]
    played: dict[str, dict[str, Any]] = field(default_factory=dict)  # "final" and "best" of evaluation.json
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether it was evaluated at its end."""
        return bool(self.progress[-1] >= self.total)

    def __str__(self) -> str:
        """Its directory and seed."""
        return f"{self.path}, seed {self.seed}"


def expand(items: list[str]) -> list[tuple[str, pathlib.Path]]:
    """(given label or "", directory) for every `DIR`, `GLOB` or `LABEL=DIR or GLOB`, each directory once."""
    found: dict[pathlib.Path, tuple[str, pathlib.Path]] = {}
    for item in items:
        label, pattern = labelled(item)
        paths = [pathlib.Path(path) for path in sorted(glob.glob(pattern))] or [pathlib.Path(pattern)]
        for path in paths:
            known = found.setdefault(path.resolve(), (label, path))
            if known[0] != label:
                raise RefusedError(f"{path} is named twice, in '{known[0]}' and in '{label}': name it once.")
    return list(found.values())


def labelled(item: str) -> tuple[str, str]:
    """("QMIX", "runs/q*") of "QMIX=runs/q*"; the label is empty where there is none."""
    label, equals, pattern = item.partition("=")
    if not equals or pathlib.Path(item).exists() or "/" in label:
        return "", item
    return label, pattern


def is_run_dir(path: pathlib.Path) -> bool:
    """Whether it has settings and a log."""
    return (path / folder.CONFIG).is_file() and (path / METRICS).is_file()


def read(path: pathlib.Path, given: str, remarks: dict[str, list[str]]) -> list[Run]:
    """All runs of a directory, seeds and sweep points; what a reader should know goes to remarks: {it: [directory]}.

    Raises RefusedError if it is no run directory or has no evaluation.
    """
    if not is_run_dir(path):
        raise RefusedError(_not_a_run(path))
    plain = _filled(path, remarks)
    try:
        found = results.evaluations(results.load(path, COUNTERS))
    except RefusedError as error:
        raise RefusedError(f"{error} {SKIP}") from error
    if not found:
        raise RefusedError(f"{path} has no evaluation yet. {SKIP}")
    played, versions = _played(path), folder.read_versions(path)
    runs = [_run(path, given, plain, records, played, versions) for records in found.values()]
    missing = _expected(plain) - len(runs)
    if missing > 0:
        what = f"{missing} of {_expected(plain)} runs have no evaluation yet and are left out."
        remarks.setdefault(what, []).append(str(path))
    return runs


def _not_a_run(path: pathlib.Path) -> str:
    if not path.exists():
        return f"{path} does not exist. Name run directories of jaxshare.train, as in runs/*."
    missing = METRICS if (path / folder.CONFIG).is_file() else folder.CONFIG
    inside = len([child for child in path.iterdir() if is_run_dir(child)]) if path.is_dir() else 0
    hint = f" It holds {inside} of them: name {path}/*." if inside else ""
    return f"{path} is not a run directory: it has no {missing}.{hint} {SKIP}"


def _filled(path: pathlib.Path, remarks: dict[str, list[str]]) -> dict[str, Any]:
    """The settings of a directory. Those that did not exist when the run was made have today's defaults."""
    plain = folder.read_config(path)
    try:
        full = folder.plain(folder.read_settings(path))
    except RefusedError:
        what = "made by another version of jaxshare, or with entries from outside that are not imported for a report; "
        what += "the settings are compared as they are written."
        remarks.setdefault(what, []).append(str(path))
        return plain
    new = sorted(folder.flatten(full).keys() - folder.flatten(plain).keys())
    new = [key for key in new if not _irrelevant(key.removeprefix("run."))]
    if new:
        what = f"made before these settings were there, which are taken at their defaults: {', '.join(new)}."
        remarks.setdefault(what, []).append(str(path))
    return full


def _irrelevant(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in IRRELEVANT)


def _expected(plain: dict[str, Any]) -> int:
    points = [len(values) for values in plain.get("sweep", {}).values()]
    return int(plain["run"].get("seeds", 1) * np.prod(points, initial=1))


def _run(
    path: pathlib.Path, given: str, plain: dict[str, Any], records: list[dict[str, Any]],
    played: dict[str, dict[Any, dict[str, Any]]], versions: dict[str, Any],
) -> Run:  # fmt: skip
    """The run that these evaluation records, of a directory with settings `plain`, belong to."""
    first, run = records[0], plain["run"]
    point = {key.removeprefix("sweep."): value for key, value in first.items() if key.startswith("sweep.")}
    offline = bool(run.get("data"))
    progress = np.array([record["updates" if offline else "env_steps"] for record in records], float)
    last = np.append(np.diff(progress) > 0, True)  # of evaluations at the same progress the last one
    names = [key for key in first if key.startswith(PREFIX) and all(key in record for record in records)]
    label = results.run_name(first)
    return Run(
        path=path, seed=int(first["seed"]), name="+".join([plain["algo_name"], *plain["modifiers"]]), given=given,
        settings=_settings(plain, point), env=_environment(plain), data=str(run.get("data") or ""),
        total=int(run["total_updates" if offline else "total_env_steps"]), at_once=_expected(plain),
        progress=progress[last], wall=np.array([record["wall_s"] for record in records], float)[last],
        values={k.removeprefix(PREFIX): np.array([record[k] for record in records], float)[last] for k in names},
        played={kind: runs[label] for kind, runs in played.items() if label in runs}, versions=versions,
    )  # fmt: skip


def _settings(plain: dict[str, Any], point: dict[str, Any]) -> dict[str, Any]:
    """Flat settings that a result may depend on; those of the sweep have the value of this run."""
    run = {key: value for key, value in folder.flatten(plain["run"]).items() if not _irrelevant(key)}
    run.pop("data", None)
    flat = {**run, **folder.flatten({"algo": plain["algo"], **plain["modifiers"]})}
    for name, value in point.items():
        flat[f"algo.hparams.{name}" if f"algo.hparams.{name}" in flat else name] = value
    unused = "total_env_steps" if plain["run"].get("data") else "total_updates"
    return {key: value for key, value in flat.items() if key != unused}


def _environment(plain: dict[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in folder.flatten(plain["env"] or {}).items() if key not in OF_HOST}
    return {"env": plain["env_name"], **own}


def _played(path: pathlib.Path) -> dict[str, dict[Any, dict[str, Any]]]:
    """{"final" or "best": {run: its scores, and under "how" episodes, policy and seed}} of evaluation.json."""
    if not (path / EVALUATION).is_file():
        return {}
    again = f"Make it anew with python -m jaxshare.evaluate run_dir={path}, or delete it."
    whole = reader.read_json(path / EVALUATION, reader.EVALUATION, again)
    how = {key: whole.get(key) for key in ("episodes", "policy", "eval_seed")}
    parts = {"best" if whole["checkpoint"] == BEST else "final": whole}
    if "final" in whole:
        parts["final"] = whole["final"]
    return {
        kind: {results.run_name(run): {**run, "how": {**how, "checkpoint": part["checkpoint"]}} for run in part["runs"]}
        for kind, part in parts.items()
    }


def policy_of(metric: str, played: str) -> str:
    """Which policy a metric belongs to, where evaluations played `played` (greedy, stochastic or both)."""
    prefixes = list(POLICIES.get(played, {"": False}))
    if len(prefixes) == 1:
        return played
    return "stochastic" if metric.startswith(prefixes[1]) else "greedy"

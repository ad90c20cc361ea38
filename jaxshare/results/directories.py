"""Run directories read: settings, evaluations in training, what jaxshare.evaluate has played."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxshare.evaluation import EVALUATION
from jaxshare.results import curves
from jaxshare.results.arguments import is_run_dir
from jaxshare.results.curves import Record
from jaxshare.results.runs import Played, Run, hashable
from jaxshare.run import BEST, folder, reader
from jaxshare.run.loggers import METRICS
from jaxshare.run.metrics import COUNTERS, EVALUATED
from jaxshare.settings.plain import flatten
from jaxshare.types import RefusedError

# Settings that change no result, or that tell runs of a group apart. Everything else is compared.
IRRELEVANT = (
    "seed",
    "seeds",
    "run_dir",
    "logger",
    "progress",
    "parallel",
    "checkpoint",
    "resume",
    "eval.num_envs",
)
ALONE = ("seed", "run_dir")  # what a run has for itself, and no result depends on
OF_HOST = ("workers", "timeout", "python")  # of environments: how they are run, not what they are
NO_SCORES = ("seed", "env_steps", "selected_return")  # what evaluation.json has beside scores
SKIP = "skip=true leaves out what has nothing to report."


@dataclass(frozen=True)
class _Directory:
    """What the runs of a directory share."""

    path: pathlib.Path
    label: str
    settings: dict[str, Any]  # plain, as nested dicts
    played: dict[str, dict[str, Played]]  # of "final" and "best": {name of a run: its scores}
    versions: dict[str, str]

    @property
    def offline(self) -> bool:
        """Whether its runs learn from a data set."""
        return bool(self.settings["run"].get("data"))

    @property
    def count(self) -> int:
        """How many runs its command trains."""
        points = [len(values) for values in self.settings.get("sweep", {}).values()]
        return int(self.settings["run"].get("seeds", 1)) * math.prod(points)


class Reading:
    """Run directories read one after another; thousands of them share most of their settings.

    Attributes:
        remarks: what a reader should know of directories, {it: [directory]}.
    """

    def __init__(self) -> None:
        self.remarks: dict[str, list[str]] = {}
        self._complete: dict[Hashable, tuple[dict[str, Any], str]] = {}

    def runs(self, path: pathlib.Path, label: str = "") -> list[Run]:
        """All runs of a directory, seeds and points of a sweep, that have an evaluation.

        label: of their group, chosen by the user. Raises RefusedError if it is no run directory,
        cannot be read, or has no evaluation.
        """
        if not is_run_dir(path):
            raise RefusedError(_not_a_run(path))

        # what all of its runs share
        settings = self._settings(path)
        try:
            evaluations = curves.evaluations(curves.load(path, COUNTERS))
        except RefusedError as error:
            raise RefusedError(f"{error} {SKIP}") from error
        if not evaluations:
            raise RefusedError(f"{path} has no evaluation yet. {SKIP}")
        played = read_played(path)
        directory = _Directory(path, label, settings, played, folder.read_versions(path))

        # each of its runs
        runs = [_run(directory, records) for records in evaluations.values()]
        missing = directory.count - len(runs)
        if missing > 0:
            self._remark(
                f"{missing} of {directory.count} runs have no evaluation yet and are left out.",
                path,
            )
        return runs

    def _settings(self, path: pathlib.Path) -> dict[str, Any]:
        """The plain settings of a directory; what did not exist then has today's default."""
        plain = folder.read_config(path)
        run = {key: value for key, value in plain["run"].items() if key not in ALONE}
        kind = hashable({**plain, "run": run})
        if kind not in self._complete:
            self._complete[kind] = _complete(path, plain)
        settings, remark = self._complete[kind]
        if remark:
            self._remark(remark, path)
        return settings

    def _remark(self, words: str, path: pathlib.Path) -> None:
        self.remarks.setdefault(words, []).append(str(path))


def read_played(path: pathlib.Path) -> dict[str, dict[str, Played]]:
    """{"final" or "best": {name of a run: what was played}} of evaluation.json; {} without it.

    Raises RefusedError for a damaged file.
    """
    if not (path / EVALUATION).is_file():
        return {}
    remedy = f"Make it anew with python -m jaxshare.evaluate run_dir={path}, or delete it."
    whole = reader.read_json(path / EVALUATION, reader.EVALUATION, remedy)
    parts = {"best" if whole["checkpoint"] == BEST else "final": whole}
    if "final" in whole:
        parts["final"] = whole["final"]
    played: dict[str, dict[str, Played]] = {}
    for kind, part in parts.items():
        played[kind] = {curves.run_name(row): _played(row, whole) for row in part["runs"]}
    return played


def _played(row: Record, whole: dict[str, Any]) -> Played:
    """Of a row of evaluation.json, and of what stands there for all rows."""
    return Played(
        scores={k: v for k, v in row.items() if k not in NO_SCORES and curves.SWEPT not in k},
        env_steps=row.get("env_steps", 0),
        episodes=whole.get("episodes"),
        policy=whole.get("policy"),
        seed=whole.get("eval_seed"),
    )


def _not_a_run(path: pathlib.Path) -> str:
    """Why a path is no run directory, and what may be meant."""
    if not path.exists():
        return f"{path} does not exist. Name run directories of jaxshare.train, as in runs/*."
    missing = METRICS if (path / folder.CONFIG).is_file() else folder.CONFIG
    inside = sum(is_run_dir(child) for child in path.iterdir()) if path.is_dir() else 0
    hint = f" It holds {inside} of them: name {path}/*." if inside else ""
    return f"{path} is not a run directory: it has no {missing}.{hint} {SKIP}"


def _complete(path: pathlib.Path, plain: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The plain settings of a directory with today's defaults, and what is to be said of it."""
    try:
        full = folder.plain(folder.read_settings(path))
    except RefusedError:
        other = (
            "made by another version of jaxshare, or with entries from outside that are not imported "
            "for a report"
        )
        return plain, f"{other}; the settings are compared as they are written."
    missing = sorted(flatten(full).keys() - folder.flatten(plain).keys())
    new = [key for key in missing if not _irrelevant(key.removeprefix("run."))]
    if not new:
        return full, ""
    names = ", ".join(new)
    before = "made before these settings were there, which are taken at their defaults"
    return full, f"{before}: {names}."


def _irrelevant(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in IRRELEVANT)


def _run(directory: _Directory, records: list[Record]) -> Run:
    """The run that these evaluation records belong to."""
    settings = directory.settings
    unit = "updates" if directory.offline else "env_steps"
    first = records[0]
    name = curves.run_name(first)

    # of evaluations at the same progress the last one
    progress = _column(records, unit)
    last = np.append(np.diff(progress) > 0, True)
    values = {}
    for key in first:
        if key.startswith(EVALUATED) and all(key in record for record in records):
            values[key.removeprefix(EVALUATED)] = _column(records, key)[last]
    return Run(
        path=directory.path,
        seed=int(first["seed"]),
        name="+".join([settings["algo_name"], *settings["modifiers"]]),
        label=directory.label,
        settings=_compared(settings, curves.point_of(first)),
        env=_environment(settings),
        data=str(settings["run"].get("data") or ""),
        total=int(settings["run"][f"total_{unit}"]),
        at_once=directory.count,
        progress=progress[last],
        wall=_column(records, "wall_s")[last],
        values=values,
        played={kind: of[name] for kind, of in directory.played.items() if name in of},
        versions=directory.versions,
    )


def _column(records: list[Record], key: str) -> np.ndarray:
    return np.array([record[key] for record in records], float)


def _compared(plain: dict[str, Any], point: dict[str, Any]) -> dict[str, Any]:
    """Flat settings that a result may depend on; those of a sweep have the value of this run."""
    unused = ("data", "total_env_steps" if plain["run"].get("data") else "total_updates")
    run = flatten(plain["run"])
    flat = {key: x for key, x in run.items() if not _irrelevant(key) and key not in unused}
    flat |= flatten({"algo": plain["algo"], **plain["modifiers"]})
    for name, value in point.items():
        key = f"algo.hparams.{name}"
        flat[key if key in flat else name] = value
    return flat


def _environment(plain: dict[str, Any]) -> dict[str, Any]:
    settings = flatten(plain["env"] or {})
    return {
        "env": plain["env_name"],
        **{key: value for key, value in settings.items() if key not in OF_HOST},
    }

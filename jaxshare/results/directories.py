"""Run directories read: the runs of each, with what they are compared by."""

from __future__ import annotations

import pathlib
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxshare.results import curves
from jaxshare.results.agent_ratios import ratio_shares
from jaxshare.results.arguments import is_run_dir
from jaxshare.results.curves import Record
from jaxshare.results.played import Played, read_played
from jaxshare.results.runs import Run, hashable
from jaxshare.run import folder
from jaxshare.run.loggers import METRICS
from jaxshare.run.metrics import COUNTERS, EVALUATED
from jaxshare.run.saved import SavedRun, open_run
from jaxshare.settings.plain import flatten
from jaxshare.settings.sweeps import num_points
from jaxshare.types import RefusedError

# Settings that change no result, or that tell runs of a group apart. Everything else is compared.
IRRELEVANT = (
    "seed",
    "seeds",
    "run_dir",
    "logger",
    "progress",
    "parallel.strategy",
    "parallel.devices",
    "parallel.data",
    "parallel.processes",
    "parallel.coordinator",
    "parallel.process",
    "checkpoint",
    "resume",
    "eval.num_envs",
)
AS_BEFORE = ("run.parallel.shards",)  # settings whose default is what there was before them
ALONE = ("seed", "run_dir")  # what a run has for itself, and no result depends on
OF_HOST = ("workers", "timeout", "python")  # of environments: how they are run, not what they are
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
    def unit(self) -> str:
        """In what progress of its runs is counted."""
        return "updates" if self.offline else "env_steps"

    @property
    def total(self) -> int:
        """How much of it is planned."""
        return int(self.settings["run"][f"total_{self.unit}"])

    @property
    def count(self) -> int:
        """How many runs its command trains."""
        points = num_points(self.settings.get("sweep", {}), bool(self.settings.get("zipped")))
        return int(self.settings["run"].get("seeds", 1)) * points


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
        saved = open_run(path)
        settings = self._settings(saved)
        try:
            records = saved.records(COUNTERS)
            evaluations = curves.evaluations(records)
        except RefusedError as error:
            raise RefusedError(f"{error} {SKIP}") from error
        if not evaluations:
            raise RefusedError(f"{path} has no evaluation yet. {SKIP}")
        directory = _Directory(path, label, settings, read_played(saved), saved.versions)

        # each of its runs
        shares = ratio_shares(records)
        runs = []
        for name, of_run in evaluations.items():
            runs.append(replace(_run(directory, of_run), ratios=shares.get(name, {})))
        missing = directory.count - len(runs)
        if missing > 0:
            self._remark(
                f"{missing} of {directory.count} runs have no evaluation yet and are left out.",
                path,
            )
        return runs

    def _settings(self, saved: SavedRun) -> dict[str, Any]:
        """The plain settings of a directory; what did not exist then has today's default."""
        plain = saved.config
        run = {key: value for key, value in plain["run"].items() if key not in ALONE}
        kind = hashable({**plain, "run": run})
        if kind not in self._complete:
            self._complete[kind] = _complete(saved)
        settings, remark = self._complete[kind]
        if remark:
            self._remark(remark, saved.run_dir)
        return settings

    def _remark(self, words: str, path: pathlib.Path) -> None:
        self.remarks.setdefault(words, []).append(str(path))


def _not_a_run(path: pathlib.Path) -> str:
    """Why a path is no run directory, and what may be meant."""
    if not path.exists():
        return f"{path} does not exist. Name run directories of jaxshare.train, as in runs/*."
    missing = METRICS if (path / folder.CONFIG).is_file() else folder.CONFIG
    inside = sum(is_run_dir(child) for child in path.iterdir()) if path.is_dir() else 0
    hint = f" It holds {inside} of them: name {path}/*." if inside else ""
    return f"{path} is not a run directory: it has no {missing}.{hint} {SKIP}"


def _complete(saved: SavedRun) -> tuple[dict[str, Any], str]:
    """The plain settings of a directory with today's defaults, and what is to be said of it."""
    plain = saved.config
    try:
        full = saved.completed_config()
    except RefusedError:
        other = "made by another version of jaxshare"
        outside = "with entries from outside that are not imported for a report"
        as_written = "the settings are compared as they are written"
        return plain, f"{other}, or {outside}; {as_written}."

    # what did not exist yet, and may matter
    missing = sorted(flatten(full).keys() - flatten(plain).keys() - {*AS_BEFORE})
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
    first = records[0]

    # which run it is, and what was played with it
    seed_and_point = curves.run_name(first)
    name = "+".join([settings["algo_name"], *settings["modifiers"]])
    played = {}
    for kind, of_kind in directory.played.items():
        if seed_and_point in of_kind:
            played[kind] = of_kind[seed_and_point]

    # of evaluations at the same progress the last one
    progress = _column(records, directory.unit)
    last = np.append(np.diff(progress) > 0, True)
    values = {}
    for key in first:
        if key.startswith(EVALUATED) and all(key in record for record in records):
            values[key.removeprefix(EVALUATED)] = _column(records, key)[last]
    wall = _column(records, "wall_s")[last]
    data = str(settings["run"].get("data") or "")
    compared = _compared(settings, curves.point_of(first))
    env = _environment(settings)
    seed = int(first["seed"])
    return Run(
        path=directory.path,
        seed=seed,
        name=name,
        label=directory.label,
        settings=compared,
        env=env,
        data=data,
        total=directory.total,
        at_once=directory.count,
        progress=progress[last],
        wall=wall,
        values=values,
        played=played,
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

"""What of a plan is done, and how far the rest is."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from jaxshare.results import curves
from jaxshare.run import metrics
from jaxshare.study.job import DATA_KINDS, Job
from jaxshare.types import RefusedError


@dataclass(frozen=True)
class Standing:
    """How far a job is, by one reading of its log; of what is no run, whether its file is there."""

    job: Job
    exists: bool
    records: list[dict[str, Any]]  # of a run

    def progress(self) -> dict[str, float]:
        """How far every seed of a run is, in environment steps or updates."""
        ends: dict[str, float] = {}
        for record in self.records:
            name = curves.run_name(record)
            ends[name] = max(ends.get(name, 0.0), float(record[self.job.unit]))
        return ends

    def is_done(self) -> bool:
        """Whether its result is there: of a run the last evaluation of every seed."""
        if self.job.kind != "train":
            return self.exists
        return self._is_over(self.progress().values()) and self._is_over(self._evaluated())

    def share(self) -> float:
        """How much of a job is done, from 0 to 1; of what is no run all or nothing."""
        if self.job.kind != "train":
            return float(self.exists)
        return min(1.0, sum(self.progress().values()) / max(1, self.job.seeds * self.job.total))

    def _evaluated(self) -> list[float]:
        """Where the last evaluation of every seed was."""
        evaluations = curves.evaluations(self.records)
        return [records[-1][self.job.unit] for records in evaluations.values()]

    def _is_over(self, ends: Collection[float]) -> bool:
        return len(ends) >= self.job.seeds and min(ends) >= self.job.total


def look(job: Job, root: pathlib.Path) -> Standing:
    """How far a job is. Raises RefusedError for a log that cannot be read."""
    out = root / job.out
    if job.kind != "train":
        return Standing(job, out.exists(), [])
    exists = (out / "metrics.jsonl").is_file()
    return Standing(job, exists, metrics.records(out) if exists else [])


def is_done(job: Job, root: pathlib.Path) -> bool:
    """Whether the result of a job is there. Raises as `look` does."""
    return look(job, root).is_done()


# --------------------------------------------------------------------------------------- data sets


def sign(job: Job, jobs: dict[str, Job], root: pathlib.Path) -> None:
    """Write beside a data set, which has no hash in its name, what it was made with."""
    if job.kind in DATA_KINDS and is_done(job, root):
        _signature(job, root).write_text(_origin(job, jobs) + "\n", encoding="utf-8")


def check_signed(jobs: dict[str, Job], root: pathlib.Path) -> None:
    """Raise RefusedError for a data set made with other settings.

    The runs that learned from it would count as done.
    """
    for job in jobs.values():
        path = _signature(job, root)
        if job.kind not in DATA_KINDS or not path.is_file():
            continue
        if path.read_text(encoding="utf-8").strip() != _origin(job, jobs):
            raise RefusedError(
                f"{root / job.out} was made with other settings than the study has now. "
                f"Choose another --runs, or remove it, {path.name} and the runs on it.",
            )


def _signature(job: Job, root: pathlib.Path) -> pathlib.Path:
    return root / f"{job.out}.made_with"


def _origin(job: Job, jobs: dict[str, Job]) -> str:
    """A hash of the settings that a data set was made with."""
    words = [job.kind] if job.kind == "standardise" else []  # as earlier versions signed
    words += job.arguments
    words += [_origin(jobs[name], jobs) for name in job.needs if jobs[name].kind in DATA_KINDS]
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]

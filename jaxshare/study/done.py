"""What of a plan is done, and how far the rest is."""

from __future__ import annotations

import hashlib
import json
import pathlib

from jaxshare.results import curves
from jaxshare.run import metrics
from jaxshare.study.job import DATA_KINDS, Job
from jaxshare.types import RefusedError


def is_done(job: Job, root: pathlib.Path) -> bool:
    """Whether its result is there: of a run the last evaluation of every seed, else the file.

    Raises RefusedError for a log that cannot be read.
    """
    out = root / job.out
    if job.kind != "train":
        return out.exists()
    ends = progress(job, root)
    return len(ends) >= job.seeds and min(ends.values()) >= job.total and _is_evaluated(job, root)


def progress(job: Job, root: pathlib.Path) -> dict[str, float]:
    """How far every seed of a run is, in environment steps or updates."""
    if not (root / job.out / "metrics.jsonl").is_file():
        return {}
    ends: dict[str, float] = {}
    for record in metrics.records(root / job.out):
        name = curves.run_name(record)
        ends[name] = max(ends.get(name, 0.0), float(record[_unit(job)]))
    return ends


def share(job: Job, root: pathlib.Path) -> float:
    """How much of a job is done, from 0 to 1; of what is no run all or nothing."""
    if job.kind != "train":
        return float(is_done(job, root))
    ends = progress(job, root)
    return min(1.0, sum(ends.values()) / max(1, job.seeds * job.total))


def _is_evaluated(job: Job, root: pathlib.Path) -> bool:
    evaluations = curves.evaluations(metrics.records(root / job.out))
    ends = [records[-1][_unit(job)] for records in evaluations.values()]
    return len(ends) >= job.seeds and all(end >= job.total for end in ends)


def _unit(job: Job) -> str:
    return "updates" if job.offline else "env_steps"


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

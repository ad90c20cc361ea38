"""How every job of a study is: done, running, waiting or failed, and how fast."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from jaxshare.study import ledger
from jaxshare.study.done import Standing, look
from jaxshare.study.job import Job

DONE = "done"
RUNNING = "running"
WAITING = "waiting"  # for its turn, in a process that runs the study
FAILED = "failed"
OPEN = "open"  # nobody is at it
LAST = 300  # records of a log that tell how fast a run is


@dataclass(frozen=True)
class JobStatus:
    """One job."""

    state: str
    share: float  # of it that is done, from 0 to 1
    steps_per_s: float | None = None  # environment steps, or updates, of all seeds together
    seconds_left: float | None = None
    attempt: int = 0  # of one that runs
    reason: str = ""  # why it failed


def of_jobs(jobs: Mapping[str, Job], root: pathlib.Path) -> dict[str, JobStatus]:
    """The status of every job, by its name."""
    driver = ledger.driver(root)
    failed = ledger.failures(root, jobs.values())
    return {name: _of_job(job, root, driver, failed.get(name)) for name, job in jobs.items()}


def plain(jobs: Mapping[str, Job], root: pathlib.Path) -> dict[str, Any]:
    """The same as plain values: {"counts": {state: jobs}, "jobs": {name: status}}."""
    by_name = of_jobs(jobs, root)
    counts = dict.fromkeys((DONE, RUNNING, WAITING, FAILED, OPEN), 0)
    for status in by_name.values():
        counts[status.state] += 1
    return {"counts": counts, "jobs": {name: asdict(status) for name, status in by_name.items()}}


def _of_job(
    job: Job, root: pathlib.Path, driver: ledger.Entry | None, reason: str | None
) -> JobStatus:
    standing = look(job, root)
    if standing.is_done():
        return JobStatus(DONE, 1.0)
    part = standing.share()
    if driver is not None and job.name in driver.running:
        speed = _speed(standing)
        left = None
        if speed:
            left = (1 - part) * job.seeds * job.total / speed
        return JobStatus(RUNNING, part, speed, left, driver.running[job.name])
    if reason is not None:
        return JobStatus(FAILED, part, reason=reason)
    is_queued = driver is not None and job.name in driver.waiting
    return JobStatus(WAITING if is_queued else OPEN, part)


def _speed(standing: Standing) -> float | None:
    """Progress a second of all seeds together, from the last records of a training run."""
    records = standing.records[-LAST:]
    if not records:
        return None

    # of one seed, between its first and last record there
    label = {key: records[-1].get(key) for key in records[-1] if key.startswith(("seed", "sweep."))}
    of_seed = [each for each in records if label.items() <= each.items()]
    first = of_seed[0]
    last = of_seed[-1]
    seconds = float(last["wall_s"]) - float(first["wall_s"])
    unit = standing.job.unit
    progress = float(last[unit]) - float(first[unit])
    return standing.job.seeds * progress / seconds if seconds > 0 and progress > 0 else None

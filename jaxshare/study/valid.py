"""What the jobs of a study need, checked before the first is begun."""

from __future__ import annotations

import pathlib

from jaxshare import cli
from jaxshare.study.done import is_done
from jaxshare.study.job import Job
from jaxshare.study.plan import Plan
from jaxshare.types import RefusedError

CHOICES = (*cli.GROUPS, "modifiers")  # settings that say which other settings there are


def check_jobs(plans: dict[str, Plan | None], root: pathlib.Path) -> None:
    """Raise RefusedError for scripts that are not there, and for settings that are refused.

    Of runs that make the same choices and differ in values only the first is looked at; the others
    say so themselves.
    """
    kinds: set[tuple[object, ...]] = set()
    for name, plan in plans.items():
        if plan is None:
            continue

        # scripts
        for job in plan.jobs.values():
            if job.kind == "script" and not pathlib.Path(job.arguments[0]).is_file():
                raise RefusedError(
                    f"{name}: {job.arguments[0]} does not exist: run names a Python file, from the "
                    "folder of the YAML file.",
                )

        # training runs
        for (task, arm), job in plan.each_run():
            if _kind(job) in kinds or is_done(job, root):
                continue
            kinds.add(_kind(job))
            try:
                cli.settings([word.replace("{root}", str(root)) for word in job.arguments])
            except RefusedError as error:
                raise RefusedError(f"{name}: {arm} on {task}: {error}") from error


def _kind(job: Job) -> tuple[object, ...]:
    """What a run chooses, and the names of its settings."""
    settings = job.settings
    chosen = tuple(settings.get(name) for name in CHOICES)
    return (chosen, *sorted(settings))

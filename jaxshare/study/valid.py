"""Settings of the runs of a study, checked before the first run is begun."""

from __future__ import annotations

import pathlib

from jaxshare import cli
from jaxshare.study.done import is_done
from jaxshare.study.job import Job
from jaxshare.study.plan import Plan
from jaxshare.types import RefusedError

CHOICES = (*cli.GROUPS, "modifiers")  # settings that say which other settings there are


def check_settings(plans: dict[str, Plan | None], root: pathlib.Path) -> None:
    """Raise RefusedError, with study, arm and task, for settings that jaxshare.train would refuse.

    Of runs that make the same choices and differ in values only the first is looked at; the others
    say so themselves.
    """
    kinds: set[tuple[object, ...]] = set()
    for name, plan in plans.items():
        if plan is None:
            continue
        for (task, arm), label in plan.cells.items():
            job = plan.jobs[label]
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

"""What a person sees of studies on the console: what is done, and the verdicts."""

from __future__ import annotations

import datetime
import pathlib
from collections.abc import Mapping

from rich.table import Column, Table

from jaxshare.study import cost, status
from jaxshare.study.book import Book
from jaxshare.study.engine import Jobs
from jaxshare.study.figures import Cell, Result, Value
from jaxshare.study.logs import last_line, log_of
from jaxshare.study.page import interval
from jaxshare.study.plan import Plan, together
from jaxshare.terminal import open_console

Plans = dict[str, Plan | None]
COUNTED = (status.RUNNING, status.WAITING, status.FAILED)  # of jobs that are not done


def show_status(
    book: Book,
    plans: Plans,
    root: pathlib.Path,
    costs: cost.Table,
    at_once: int,
) -> None:
    """Studies with their jobs and estimates, and jobs under way or failed.

    A job that several studies share counts for the first of them.
    """
    console = open_console()
    title_column = Column("title", no_wrap=True, overflow="ellipsis", ratio=1)
    table = Table("study", title_column, "jobs", "done", "to do", "core minutes")
    states = status.of_jobs(together(plans), root)
    counted: Jobs = {}
    whole = 0.0
    unknown = 0
    for name, plan in plans.items():
        title = book.studies[name].title
        if plan is None:
            table.add_row(name, title, "–", "–", "–", "not run here")
            continue

        # jobs that no study before has, and what they take
        fresh = {label: job for label, job in plan.jobs.items() if label not in counted}
        counted |= fresh
        open_jobs = [job for label, job in fresh.items() if states[label].state != status.DONE]
        estimates = [cost.seconds(job, costs) for job in open_jobs]
        seconds = sum(estimate for estimate in estimates if estimate is not None)
        whole += seconds
        unknown += estimates.count(None)

        # in words
        rest = f" + {estimates.count(None)} not measured" if None in estimates else ""
        shared = len(plan.jobs) - len(fresh)
        count = f"{len(plan.jobs)}" + (f", {shared} shared" if shared else "")
        by_state = [states[label].state for label in fresh]
        done = str(by_state.count(status.DONE))
        minutes = f"{seconds / 60:.0f}{rest}"
        table.add_row(name, title, count, done, _to_do(by_state), minutes)
    console.print(table)
    begun = {name: states[name] for name in states if _is_shown(states[name])}
    if begun:
        console.print(_begun(begun, root))
    remark = f", and {unknown} jobs that are not measured" if unknown else ""
    hours = whole / 3600
    wall_hours = hours / at_once
    console.print(
        f"{len(counted)} jobs; what is to do takes about {hours:.1f} core hours{remark}: "
        f"{wall_hours:.1f} hours with --jobs {at_once}, if nothing else runs",
    )


def _to_do(states: list[str]) -> str:
    """How many jobs are not done, and how they are if somebody is at them: 5 (2 running)."""
    open_jobs = [state for state in states if state != status.DONE]
    counts = {state: states.count(state) for state in COUNTED}
    parts = [f"{count} {state}" for state, count in counts.items() if count]
    return str(len(open_jobs)) + (f" ({', '.join(parts)})" if parts else "")


def _is_shown(job: status.JobStatus) -> bool:
    return job.state in (status.RUNNING, status.FAILED) or 0 < job.share < 1


def _begun(states: Mapping[str, status.JobStatus], root: pathlib.Path) -> Table:
    """Jobs at work, those that failed, and those that were begun and are not done."""
    table = Table(
        "job", "state", "done", "steps/s", "time left", "why, or the last line of its log"
    )
    for name, job in states.items():
        state = f"{job.state}, attempt {job.attempt}" if job.attempt > 1 else job.state
        speed = f"{job.steps_per_s:,.0f}" if job.steps_per_s else ""
        left = ""
        if job.seconds_left is not None:
            left = str(datetime.timedelta(seconds=round(job.seconds_left)))
        why = job.reason or last_line(log_of(name, root))
        table.add_row(name, state, f"{job.share:.0%}", speed, left, why)
    return table


def _value(cell: Cell) -> Value:
    """The score of an arm on a task."""
    runs = len(cell["scores"])
    return {"value": cell["iqm"], "low": cell["low"], "high": cell["high"], "runs": runs}


def show_verdicts(results: dict[str, Result]) -> None:
    """What was found, beside what a publication says."""
    table = Table("study", "check, or task and arm", "paper", "here", "verdict")
    for name, result in results.items():
        table.add_row(name, result["title"], "", "", result["verdict"])
        for check in result["checks"]:
            note = check.get("reason") or check.get("note") or ""
            verdict = check["verdict"] + (f" ({note})" if note else "")
            table.add_row("", check["says"], str(check["paper"]), interval(check), verdict)
        if not result["checks"]:
            for task, cells in result["cells"].items():
                for arm, cell in cells.items():
                    table.add_row("", f"{task}: {arm}", "", interval(_value(cell)), "")
        if "reason" in result:
            table.add_row("", result["reason"], "", "", "")
    open_console(soft_wrap=False).print(table)

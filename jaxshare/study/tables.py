"""What a person sees of studies on the console: what is done, and the verdicts."""

from __future__ import annotations

import pathlib

from rich.table import Column, Table

from jaxshare.study import cost
from jaxshare.study.book import Book
from jaxshare.study.done import is_done, share
from jaxshare.study.engine import LOGS, Jobs, last_line
from jaxshare.study.figures import Cell, Result, Value
from jaxshare.study.page import interval
from jaxshare.study.plan import Plan
from jaxshare.terminal import open_console

Plans = dict[str, Plan | None]


def show_status(
    book: Book,
    plans: Plans,
    root: pathlib.Path,
    costs: cost.Table,
    at_once: int,
) -> None:
    """Studies with their jobs and estimates, and runs under way.

    A job that several studies share counts for the first of them.
    """
    console = open_console()
    title_column = Column("title", no_wrap=True, overflow="ellipsis", ratio=1)
    table = Table("study", title_column, "jobs", "done", "to do", "core minutes")
    counted: Jobs = {}
    begun: Jobs = {}
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
        open_jobs = {label: job for label, job in fresh.items() if not is_done(job, root)}
        begun |= {label: job for label, job in open_jobs.items() if _log(label, root).is_file()}
        estimates = [cost.seconds(job, costs) for job in open_jobs.values()]
        seconds = sum(estimate for estimate in estimates if estimate is not None)
        whole += seconds
        unknown += estimates.count(None)

        # in words
        rest = f" + {estimates.count(None)} not measured" if None in estimates else ""
        shared = len(plan.jobs) - len(fresh)
        count = f"{len(plan.jobs)}" + (f", {shared} shared" if shared else "")
        done = str(len(fresh) - len(open_jobs))
        minutes = f"{seconds / 60:.0f}{rest}"
        table.add_row(name, title, count, done, str(len(open_jobs)), minutes)
    console.print(table)
    if begun:
        console.print(_begun(begun, root))
    remark = f", and {unknown} jobs that are not measured" if unknown else ""
    hours = whole / 3600
    wall_hours = hours / at_once
    console.print(
        f"{len(counted)} jobs; what is to do takes about {hours:.1f} core hours{remark}: "
        f"{wall_hours:.1f} hours with --jobs {at_once}, if nothing else runs",
    )


def _log(name: str, root: pathlib.Path) -> pathlib.Path:
    return root / LOGS / f"{name}.log"


def _begun(jobs: Jobs, root: pathlib.Path) -> Table:
    """Jobs that were begun and are not done."""
    table = Table("begun", "done", "last line of its log")
    for name, job in jobs.items():
        table.add_row(name, f"{share(job, root):.0%}", last_line(_log(name, root)))
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

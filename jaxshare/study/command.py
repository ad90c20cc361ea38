"""python -m jaxshare.study: run studies, look how far they are, judge them, write their page."""

from __future__ import annotations

import pathlib
import signal
import sys
from typing import Any

from jaxshare import cli
from jaxshare.run import output
from jaxshare.study import book as books
from jaxshare.study import cost, figures, page, plan, tables
from jaxshare.study.done import check_signed, is_done
from jaxshare.study.engine import Jobs, run_all
from jaxshare.study.jobs import Local
from jaxshare.study.judge import describe, judge
from jaxshare.study.machine import machine
from jaxshare.study.measure import measure
from jaxshare.study.options import Options, Places, budget, chosen, parse, places
from jaxshare.types import RefusedError


def main() -> None:
    """Entry point."""
    signal.signal(signal.SIGTERM, _interrupt)
    cli.run_command(lambda: run(parse(sys.argv[1:])))


def _interrupt(signum: int, frame: Any) -> None:
    """SIGTERM as Ctrl-C: all jobs save first."""
    raise KeyboardInterrupt


def run(options: Options) -> None:
    """What is asked for. Raises RefusedError."""
    book = books.read(options.place)
    names = chosen(options.names, list(book.studies))
    budget_name = budget(options, book, names)
    where = places(options, book, budget_name)
    if options.action == "page":
        _write_page(figures.read(where.figures), book, where)
        return

    plans = plan.make_all(book, names, budget_name)
    jobs = plan.together(plans)
    check_signed(jobs, where.root)
    executor = Local(options.jobs, pathlib.Path.cwd())
    if options.action == "status":
        tables.show_status(book, plans, where.root, cost.read(where.costs), options.jobs)
    elif options.dry_run:
        _show_commands(jobs, where.root)
    elif options.measure:
        measure(jobs, where.root, executor, where.costs)
    else:
        output.check_writable(where.figures, "--out")
        output.check_writable(where.page, "--page")
        missing = {}
        if options.action == "run":
            table = cost.read(where.costs)
            missing = run_all(
                jobs,
                where.root,
                executor,
                table,
                lambda ended: cost.note(where.costs, ended),
            )
        for name, job in jobs.items():
            if not is_done(job, where.root):
                missing.setdefault(name, "it has not been run yet")
        _judge(book, plans, where, budget_name, missing)


def _show_commands(jobs: Jobs, root: pathlib.Path) -> None:
    """The commands of what is not done, in their order."""
    waiting = [job for job in jobs.values() if not is_done(job, root)]
    for job in waiting:
        print(job.command_line(str(root)))
    print(f"{len(waiting)} of {len(jobs)} jobs are not done", file=sys.stderr)


def _judge(
    book: books.Book,
    plans: dict[str, plan.Plan | None],
    where: Places,
    budget_name: str,
    missing: dict[str, str],
) -> None:
    """Judge the studies, keep what was found, show it, and write the page."""
    kept = figures.read(where.figures)
    for name, of_study in plans.items():
        study = book.studies[name]
        result = judge(study, of_study, budget_name, where.root, missing)
        old = kept.setdefault(name, {}).get(budget_name, {"checks": [], "cells": {}})
        is_new = figures.count(result) or not result.get("missing")
        result = describe(study, result, machine() if is_new else old.get("machine", ""))
        merged, remark = figures.merged(old, result, of_study)
        if remark:
            print(f"{name}: {remark}")
        kept[name][budget_name] = merged
    kept = figures.ordered(kept, list(book.studies))
    figures.write(kept, where.figures)
    tables.show_verdicts({name: kept[name][budget_name] for name in plans})
    _write_page(kept, book, where)


def _write_page(kept: figures.Figures, book: books.Book, where: Places) -> None:
    if not kept:
        raise RefusedError(
            f"--out {where.figures} holds no figures yet: run some studies first, with "
            f"python -m jaxshare.study run {book.source}.",
        )
    where.page.parent.mkdir(parents=True, exist_ok=True)
    page.write(kept, book, where.page)
    print(f"written: {where.figures}, {where.page}")


if __name__ == "__main__":
    main()

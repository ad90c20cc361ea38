"""python -m jaxshare.study: run studies, look how far they are, judge them, write their page."""

from __future__ import annotations

import json
import pathlib
import signal
import sys
import time
from functools import partial
from types import FrameType

from jaxshare import cli
from jaxshare.run import output
from jaxshare.study import book as books
from jaxshare.study import cost, figures, fitting, ledger, packing, page, plan, status, tables
from jaxshare.study.done import check_signed, is_done
from jaxshare.study.engine import Jobs, Rules, run_all
from jaxshare.study.executors import choose
from jaxshare.study.judge import describe, judge
from jaxshare.study.logs import LOGS
from jaxshare.study.machine import machine
from jaxshare.study.measure import measure
from jaxshare.study.options import Options, Places, budget, chosen, parse, places
from jaxshare.study.valid import check_jobs
from jaxshare.types import RefusedError


def main() -> None:
    """Entry point."""
    signal.signal(signal.SIGTERM, _interrupt)
    cli.run_command(lambda: run(parse(sys.argv[1:])))


def _interrupt(signum: int, frame: FrameType | None) -> None:
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

    # what takes no judgement
    plans = plan.make_all(book, names, budget_name, _most(options, book))
    jobs = plan.together(plans)
    check_signed(jobs, where.root)
    if options.action == "status":
        _show_status(options, book, plans, where)
        return
    if options.action == "cancel":
        _cancel(jobs, where.root)
        return
    if options.dry_run:
        _show_commands(jobs, where.root)
        return

    # run what is missing
    output.check_writable(where.figures, "--out")
    output.check_writable(where.page, "--page")
    failed: dict[str, str] = {}
    if options.action in ("run", "retry"):
        check_jobs(plans, where.root)
        if options.action == "retry":
            ledger.forget(where.root, jobs.values())
        failed = _execute(options, book, jobs, where)
        if options.measure:
            return

    # judge
    missing = dict(failed)
    for name, job in jobs.items():
        if not is_done(job, where.root):
            missing.setdefault(name, "it has not been run yet")
    _judge(book, plans, where, budget_name, missing)
    if failed:
        name, why = next(iter(failed.items()))
        logs = where.root / LOGS
        raise RefusedError(
            f"{len(failed)} of {len(jobs)} jobs have no result. {name}: {why}. What they print "
            f"is in {logs}.",
        )


def _most(options: Options, book: books.Book) -> packing.Most | None:
    """How many runs one program may train; None: all seeds of an arm on a task."""
    if options.pack == "off":
        return None
    if options.pack != "auto":
        return lambda settings: int(options.pack)

    # as many as fit into the memory of a job
    wanted = options.wanted(book.paths.machines)
    num_bytes = wanted.resources.memory_gb * 1e9
    if not num_bytes and wanted.name != "local":
        raise RefusedError(
            f"pack=auto with executor={wanted.name}: say how much memory a job has, as in "
            "memory_gb=16.",
        )
    if not num_bytes:
        num_bytes = fitting.physical_bytes() / (wanted.at_once or choose.room(wanted.resources))
    return fitting.Fitting(num_bytes).most


def _execute(options: Options, book: books.Book, jobs: Jobs, where: Places) -> dict[str, str]:
    """Run what is missing, or measure: {job without result: reason}."""
    declared = book.paths.machines
    machines = options.machines(declared)
    where.root.mkdir(parents=True, exist_ok=True)
    ledger.check_alone(where.root)
    executor = choose.make(options.wanted(declared), where.root, pathlib.Path.cwd())
    signal.signal(signal.SIGTERM, _interrupt)  # again: Ray has a handler of its own
    try:
        if options.measure:
            measure(jobs, where.root, executor, where.costs)
            return {}
        rules = Rules(machines.attempts, machines.stalled_minutes)
        note = partial(cost.note, where.costs)
        return run_all(jobs, where.root, executor, cost.read(where.costs), note, rules)
    finally:
        executor.close()


def _show_status(options: Options, book: books.Book, plans: tables.Plans, where: Places) -> None:
    costs = cost.read(where.costs)
    at_once = options.jobs or choose.room(options.wanted(book.paths.machines).resources)
    if options.json:
        jobs = plan.together(plans)
        print(json.dumps(status.plain(jobs, where.root), indent=1))
        return
    tables.show_status(book, plans, where.root, costs, at_once)


def _cancel(jobs: Jobs, root: pathlib.Path) -> None:
    """Ask the process that runs the study to end its jobs, and wait until it has."""
    driver = ledger.driver(root)
    if driver is None:
        raise RefusedError(f"no process runs the study in {root}: there is nothing to cancel.")
    names = [name for name in jobs if name in driver.running or name in driver.waiting]
    ledger.ask_cancel(root, names)
    print(f"asked process {driver.pid} on {driver.host} to end {len(names)} job(s)", flush=True)
    while ledger.driver(root) is not None and ledger.cancelled(root):
        time.sleep(1.0)
    ledger.answer_cancel(root)


def _show_commands(jobs: Jobs, root: pathlib.Path) -> None:
    """The commands of what is not done, in their order."""
    waiting = [job for job in jobs.values() if not is_done(job, root)]
    for job in waiting:
        print(job.command_line(str(root)))
    print(f"{len(waiting)} of {len(jobs)} jobs are not done", file=sys.stderr)


def _judge(
    book: books.Book,
    plans: tables.Plans,
    where: Places,
    budget_name: str,
    missing: dict[str, str],
) -> None:
    """Judge the studies, keep what was found, show it, and write the page."""
    known = figures.read(where.figures)
    for name, of_study in plans.items():
        study = book.studies[name]
        result = judge(study, of_study, budget_name, where.root, missing)
        old = known.setdefault(name, {}).get(budget_name, {"checks": [], "cells": {}})
        is_new = figures.count(result) or not result.get("missing")
        result = describe(study, result, machine() if is_new else old.get("machine", ""))
        merged, remark = figures.merged(old, result, of_study)
        if remark:
            print(f"{name}: {remark}")
        known[name][budget_name] = merged

    # keep, and show
    known = figures.ordered(known, list(book.studies))
    figures.write(known, where.figures)
    tables.show_verdicts({name: known[name][budget_name] for name in plans})
    _write_page(known, book, where)


def _write_page(known: figures.Figures, book: books.Book, where: Places) -> None:
    if not known:
        raise RefusedError(
            f"--out {where.figures} holds no figures yet: run some studies first, with "
            f"python -m jaxshare.study run {book.source}.",
        )
    where.page.parent.mkdir(parents=True, exist_ok=True)
    page.write(known, book, where.page)
    print(f"written: {where.figures}, {where.page}")


if __name__ == "__main__":
    main()

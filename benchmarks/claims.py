"""The papers' claims that can be tested here: run what is missing, and say what came of it beside the papers' numbers.

    python benchmarks/claims.py --list                        all claims, their runs, and how long they take
    python benchmarks/claims.py differ_hetero --budget small  some claims; without names all of them
    python benchmarks/claims.py --budget small                hours on two cores; Ctrl-C, and the same command goes on
    python benchmarks/claims.py --page                        the page again from the figures kept

The claims are in benchmarks/claims/*.yaml: what they say, where, arms, tasks, budgets, and the checks that decide them.
Runs are kept in --runs (runs/claims), one folder per budget; those that are finished are not made again, and claims
that need the same run share it. Every job is one command in a process of its own, with a time limit. Results go to
benchmarks/results/claims.json, and from there to docs/results.md and docs/results/*.png.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import signal
import sys
from typing import Any

import _claims_cost as cost_of
import _claims_judge as judging
import _claims_page as page
import _claims_plan as planning
import _claims_run as running
from _claims_plan import Job, Plan

from jaxshare import cli
from jaxshare.types import RefusedError

REPOSITORY = pathlib.Path(__file__).parent.parent
RESULTS = pathlib.Path(__file__).parent / "results" / "claims.json"


def main() -> None:
    """Entry point."""
    signal.signal(signal.SIGTERM, _interrupt)
    cli.run_command(lambda: _main(parsed(sys.argv[1:])))


def _interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


def parsed(arguments: list[str]) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="name", help="claims, or beginnings of their names; default: all")
    parser.add_argument("--budget", choices=planning.BUDGETS, default="small", help="default %(default)s")
    parser.add_argument("--list", action="store_true", help="show claims, runs and estimated times, and run nothing")
    parser.add_argument("--dry-run", action="store_true", help="show the commands that would be run")
    parser.add_argument("--page", action="store_true", help="run nothing and judge nothing: only write the page anew")
    parser.add_argument("--judge", action="store_true", help="run nothing: judge what is there")
    parser.add_argument("--measure", action="store_true", help="measure how long kinds of runs take that are not known")
    parser.add_argument("--runs", type=pathlib.Path, default=REPOSITORY / "runs" / "claims", help="where runs are kept")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at a time; default: one per core")
    parser.add_argument(
        "--claims", type=pathlib.Path, default=planning.CLAIMS, help="another YAML file or folder of them"
    )
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="the figures, default %(default)s")
    parser.add_argument("--docs", type=pathlib.Path, default=REPOSITORY / "docs", help="default %(default)s")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        raise RefusedError(f"--jobs {options.jobs} must be at least 1.")
    return options


def _main(options: argparse.Namespace) -> None:
    if options.page:
        _write_page(kept(options.out), options)
        return
    book = planning.read(options.claims)
    names = chosen(options.names, list(book.claims))
    plans = {name: planning.plan(book, name, options.budget) for name in names}
    jobs = together(plans)
    root = options.runs.resolve() / options.budget  # jobs run at the top of the checkout
    planning.check_signed(jobs, root)
    if options.list:
        listing(book, plans, jobs, root, options.jobs)
    elif options.dry_run:
        dry_run(jobs, root)
    elif options.measure:
        cost_of.measure(jobs, root, options.jobs)
    else:
        table = planning.costs()
        reasons = {} if options.judge else running.run_all(jobs, root, options.jobs, table, cost_of.note)
        for name, job in jobs.items():
            if not planning.done(job, root):
                reasons.setdefault(name, "it has not been run yet")
        _judge_all(book, plans, root, reasons, options)


def chosen(given: list[str], known: list[str]) -> list[str]:
    """The claims that are meant. Raises RefusedError for what is no beginning of a name."""
    for word in given:
        if not any(name.startswith(word) for name in known):
            raise RefusedError(f"'{word}' is no claim. Known: {', '.join(known)}.")
    return [name for name in known if not given or any(name.startswith(word) for word in given)]


def together(plans: dict[str, Plan | None]) -> dict[str, Job]:
    """All jobs of several plans, each once; what others wait for comes first, then in the order of the claims."""
    jobs: dict[str, Job] = {}
    for plan in plans.values():
        jobs |= plan.jobs if plan else {}
    awaited = {need for job in jobs.values() for need in job.needs}
    return dict(sorted(jobs.items(), key=lambda item: item[0] not in awaited))


# ------------------------------------------------------------------------------------------------------------- listing


def listing(book: Any, plans: dict[str, Plan | None], jobs: dict[str, Job], root: pathlib.Path, at_once: int) -> None:
    """Claims with their jobs and estimates; a job that several claims share counts for the first of them."""
    from rich.console import Console
    from rich.table import Table

    table, costs, counted = Table("claim", "tests", "jobs", "to do", "core minutes"), planning.costs(), set()
    whole, unknown = 0.0, 0
    for name, plan in plans.items():
        title = book.claims[name]["title"]
        if plan is None:
            table.add_row(name, title, "–", "–", "not run here")
            continue
        own = {n: job for n, job in plan.jobs.items() if n not in counted}
        counted |= set(own)
        open_ones = [job for job in own.values() if not planning.done(job, root)]
        each = [planning.seconds(job, costs) for job in open_ones]
        known = sum(x for x in each if x is not None)
        whole, unknown = whole + known, unknown + each.count(None)
        more = f" + {each.count(None)} not measured" if None in each else ""
        shared = len(plan.jobs) - len(own)
        count = f"{len(plan.jobs)}" + (f", {shared} shared" if shared else "")
        table.add_row(name, title, count, str(len(open_ones)), f"{known / 60:.0f}{more}")
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    rest = f", and {unknown} jobs that are not measured" if unknown else ""
    console.print(
        f"{len(jobs)} jobs; what is to do takes about {whole / 3600:.1f} core hours{rest}: "
        f"{whole / 3600 / at_once:.1f} hours with --jobs {at_once}, if nothing else runs"
    )


def dry_run(jobs: dict[str, Job], root: pathlib.Path) -> None:
    """The commands of what is not done, in their order."""
    open_ones = [job for job in jobs.values() if not planning.done(job, root)]
    for job in open_ones:
        print(job.shown(str(root)))
    print(f"{len(open_ones)} of {len(jobs)} jobs are not done", file=sys.stderr)


# ------------------------------------------------------------------------------------------------------------- results


def kept(path: pathlib.Path) -> dict[str, Any]:
    """The figures of earlier calls. Raises RefusedError if they cannot be read."""
    if not path.is_file():
        return {"claims": {}}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RefusedError(f"--out {path} cannot be read: {error}. Remove it, or name another.") from error


def _judge_all(
    book: Any, plans: dict[str, Plan | None], root: pathlib.Path, reasons: dict[str, str], options: argparse.Namespace
) -> None:
    from _common import machine

    found = kept(options.out)
    for name, plan in plans.items():
        claim = book.claims[name]
        texts = {key: claim[key] for key in page.FIELDS if key in claim}
        result = judging.judge(plan, claim, options.budget, root, reasons)
        old = found["claims"].setdefault(name, {}).get(options.budget, {"checks": []})
        where = machine() if _values(result) or not result.get("missing") else old.get("machine", "")
        if result.get("missing") and _values(old) > _values(result):
            if old.get("commands") == result["commands"]:
                print(f"{name}: kept as it was: {next(iter(result['missing'].values()))}")
                continue
            print(f"{name}: its settings are others than those of the figures kept: only what they do not touch stays")
            result = judging.carried(old, result, plan, claim)
        found["claims"][name][options.budget] = {**texts, "machine": where, **result}
    order = [*book.claims, *(name for name in found["claims"] if name not in book.claims)]
    found["claims"] = {name: found["claims"][name] for name in order if name in found["claims"]}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    new = options.out.with_suffix(".new")
    new.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    new.replace(options.out)
    show({name: found["claims"][name][options.budget] for name in plans})
    _write_page(found, options)


def _values(result: dict[str, Any]) -> int:
    """How many of a claim's checks have been made."""
    return sum(check.get("value") is not None for check in result["checks"])


def _write_page(found: dict[str, Any], options: argparse.Namespace) -> None:
    if not found["claims"]:
        raise RefusedError(f"--out {options.out} holds no figures yet: run some claims first.")
    print(f"written: {options.out}, {page.write(found, options.docs)}")


def show(results: dict[str, Any]) -> None:
    """The table on the console: the reference beside what was found."""
    from rich.console import Console
    from rich.table import Table

    table = Table("claim", "check", "paper", "here", "verdict")
    for name, found in results.items():
        table.add_row(name, found["title"], "", "", found["verdict"])
        for check in found["checks"]:
            note = check.get("reason") or check.get("note") or ""
            verdict = check["verdict"] + (f" ({note})" if note else "")
            table.add_row("", check["says"], str(check["paper"]), page.interval(check), verdict)
        if "reason" in found:
            table.add_row("", found["reason"], "", "", "")
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()

"""The command line of python -m jaxshare.study."""

from __future__ import annotations

import argparse
import os
import pathlib
from dataclasses import dataclass
from typing import NoReturn

from jaxshare import registry
from jaxshare.study.book import Book
from jaxshare.study.language import BUDGETS
from jaxshare.types import RefusedError

ACTIONS = {
    "run": "run what is missing, judge, and write the page; stopped, the same command goes on",
    "status": "what is done, what is to do, and how long that takes; nothing is run",
    "judge": "judge what is there, and write the page",
    "page": "write the page anew from the figures kept",
}
RUN_ONLY = ("dry_run", "measure")  # options of `run`
HELP = """\
Studies: arms x tasks x seeds, and what is claimed of them, from a YAML file (docs/study.md).

  python -m jaxshare.study run climb.yaml                    every study of the file
  python -m jaxshare.study run benchmarks/claims seac_lbf    of all files of a folder one
  python -m jaxshare.study status benchmarks/claims --budget full

"""


@dataclass(frozen=True)
class Options:
    """What is asked for."""

    action: str
    place: pathlib.Path
    names: list[str]
    budget: str | None
    runs: pathlib.Path | None
    jobs: int
    out: pathlib.Path | None
    page: pathlib.Path | None
    dry_run: bool
    measure: bool


@dataclass(frozen=True)
class Places:
    """Where the runs and results of a book are."""

    root: pathlib.Path  # of the runs with the budget
    figures: pathlib.Path
    page: pathlib.Path
    costs: pathlib.Path


class _Parser(argparse.ArgumentParser):
    """Whose errors are one sentence, as those of all commands."""

    def error(self, message: str) -> NoReturn:
        message = message.removesuffix(", name")  # which argparse takes for required
        raise RefusedError(f"{message}. `python -m jaxshare.study --help` shows what there is.")


def parse(arguments: list[str]) -> Options:
    """The options. Raises RefusedError naming option, value and fix."""
    parser = _parser()
    parsed, unknown = parser.parse_known_intermixed_args(arguments)

    # words that there are not
    if parsed.action not in ACTIONS:
        registry.one_of("the first word", parsed.action, ACTIONS)
    known = [name for action in parser._actions for name in action.option_strings]
    for word in unknown:
        near = registry.suggest(word.partition("=")[0], known)
        raise RefusedError(f"'{word}' is no option.{near} Known: {', '.join(known)}.")

    # words that have no effect
    if parsed.jobs < 1:
        raise RefusedError(f"--jobs {parsed.jobs} must be at least 1.")
    if parsed.names and parsed.action == "page":
        raise RefusedError(f"{parsed.names[0]} has no effect with page: it shows all studies.")
    for name in RUN_ONLY:
        if getattr(parsed, name) and parsed.action != "run":
            option = f"--{name.replace('_', '-')}"
            raise RefusedError(f"{option} has no effect with {parsed.action}: say run.")
    return Options(**vars(parsed))


def _parser() -> argparse.ArgumentParser:
    actions = "\n".join(f"  {name:<8}{meaning}" for name, meaning in ACTIONS.items())
    parser = _Parser(
        prog="python -m jaxshare.study",
        description=f"{HELP}{actions}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    # what to do, and with what
    parser.add_argument("action", metavar="|".join(ACTIONS))
    parser.add_argument("place", type=pathlib.Path, metavar="FILE_OR_FOLDER")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="name",
        help="studies, or beginnings of their names; default: all",
    )

    # how, and where to
    parser.add_argument("--budget", choices=BUDGETS, help="default: small, where a study has it")
    parser.add_argument(
        "--runs",
        type=pathlib.Path,
        help="where runs are kept; default: runs/ and the file's name",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count() or 1,
        help="at a time; default: one per core",
    )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        help="what is found, as JSON; default: results.json in --runs",
    )
    parser.add_argument(
        "--page",
        type=pathlib.Path,
        help="the page, in Markdown; default: results.md in --runs",
    )
    parser.add_argument("--dry-run", action="store_true", help="run: only show the commands")
    parser.add_argument(
        "--measure",
        action="store_true",
        help="run: only measure how long kinds of runs take",
    )
    return parser


def chosen(names: list[str], known: list[str]) -> list[str]:
    """The studies that are meant. Raises RefusedError for what is no beginning of a name."""
    for word in names:
        if not any(name.startswith(word) for name in known):
            near = registry.suggest(word, known)
            raise RefusedError(f"'{word}' is no study.{near} Known: {', '.join(known)}.")
    return [name for name in known if not names or name.startswith(tuple(names))]


def budget(options: Options, book: Book, names: list[str]) -> str:
    """The one that is asked for, or the first that a study has."""
    if options.budget:
        return options.budget
    studies = [book.studies[name] for name in names]
    for budget_name in BUDGETS:
        if any(study.budget(budget_name) for study in studies):
            return budget_name
    return BUDGETS[0]


def places(options: Options, book: Book, budget_name: str) -> Places:
    """Where runs and results are: as asked for, or as the file says, or beside the runs."""
    runs = options.runs or pathlib.Path("runs") / book.name
    paths = book.paths
    figures = book.place(paths.figures) if paths.figures else runs / "results.json"
    page = book.place(paths.page) if paths.page else runs / "results.md"
    costs = book.place(paths.costs) if paths.costs else runs / "costs.json"
    return Places(
        root=runs.resolve() / budget_name,  # jobs may run elsewhere
        figures=options.out or figures,
        page=options.page or page,
        costs=costs,
    )

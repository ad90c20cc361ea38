"""The command line of python -m jaxshare.study."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from dataclasses import dataclass
from typing import NoReturn

from jaxshare import registry
from jaxshare.study.book import Book
from jaxshare.study.executors.base import Resources
from jaxshare.study.executors.choose import AUTO, NAMES, Wanted
from jaxshare.study.language import BUDGETS, Machines
from jaxshare.types import RefusedError

MACHINES = ("cpus", "gpus", "memory_gb", "attempts", "stalled_minutes")  # keys of `machines`
ACTIONS = {
    "run": "run what is missing, judge, and write the page; stopped, the same command goes on",
    "status": "what is done, what is to do, and how long that takes; nothing is run",
    "retry": "run, and try again what has failed or was cancelled",
    "cancel": "end the jobs of the process that runs the study: they save first",
    "judge": "judge what is there, and write the page",
    "page": "write the page anew from the figures kept",
}
RUN_ONLY = ("dry_run", "measure")  # options of `run`
PACKS = ("off", "auto")
LEAST = {"jobs": 1, "cpus": 1, "gpus": 0, "memory_gb": 0, "attempts": 1, "stalled_minutes": 0}
SLURM = "slurm."  # how words begin that are settings of Slurm's
HELP = """\
Studies: arms x tasks x seeds, and what is claimed of them, from a YAML file (docs/study.md).

  python -m jaxshare.study run climb.yaml                    every study of the file
  python -m jaxshare.study run benchmarks/claims seac_lbf    of all files of a folder one
  python -m jaxshare.study status benchmarks/claims --budget full
  python -m jaxshare.study run climb.yaml executor=ray address=local cpus=2

Options may be written as words: executor=ray is --executor ray.

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
    json: bool
    executor: str
    address: str
    slurm: dict[str, str]
    cpus: int | None
    gpus: float | None
    memory_gb: float | None
    attempts: int | None
    stalled_minutes: float | None
    pack: str

    def machines(self, declared: Machines) -> Machines:
        """What a job is given: as the file says, or as the command does."""
        values = {name: getattr(self, name) for name in MACHINES}
        chosen = {name: value for name, value in values.items() if value is not None}
        return dataclasses.replace(declared, **chosen)

    def wanted(self, declared: Machines) -> Wanted:
        """The executor that is asked for."""
        machines = self.machines(declared)
        resources = Resources(machines.cpus, machines.gpus, machines.memory_gb)
        return Wanted(self.executor, self.jobs, self.address, self.slurm, resources)


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
    words, slurm = _as_options(arguments)
    parsed, unknown = parser.parse_known_intermixed_args(words)

    # words that there are not
    if parsed.action not in ACTIONS:
        registry.one_of("the first word", parsed.action, ACTIONS)
    known = [name for action in parser._actions for name in action.option_strings]
    for word in unknown:
        near = registry.suggest(word.partition("=")[0], known)
        raise RefusedError(f"'{word}' is no option.{near} Known: {', '.join(known)}.")

    # words that have no effect, or no sense
    for name, least in LEAST.items():
        value = getattr(parsed, name)
        if value is not None and value < least:
            option = f"--{name.replace('_', '-')}"
            raise RefusedError(f"{option} {value:g} must be at least {least:g}.")
    parsed.jobs = parsed.jobs or 0
    _check_executor(parsed, slurm)
    if parsed.pack not in PACKS and not (parsed.pack.isdigit() and int(parsed.pack)):
        raise RefusedError(f"pack={parsed.pack} must be off, auto, or a number of runs, as pack=4.")
    if parsed.names and parsed.action == "page":
        raise RefusedError(f"{parsed.names[0]} has no effect with page: it shows all studies.")
    for name in RUN_ONLY:
        if getattr(parsed, name) and parsed.action not in ("run", "retry"):
            option = f"--{name.replace('_', '-')}"
            raise RefusedError(f"{option} has no effect with {parsed.action}: say run.")
    if parsed.json and parsed.action != "status":
        raise RefusedError(f"--json has no effect with {parsed.action}: say status.")
    return Options(**vars(parsed), slurm=slurm)


def _as_options(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """Words like executor=ray as options; those that begin with slurm. apart."""
    options: list[str] = []
    slurm: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if word.startswith("-") or not equals or "/" in name:
            options.append(word)
        elif name.startswith(SLURM):
            slurm[name.removeprefix(SLURM)] = value
        else:
            options.append(f"--{name.replace('_', '-')}={value}")
    return options, slurm


def _check_executor(parsed: argparse.Namespace, slurm: dict[str, str]) -> None:
    """Raise RefusedError for an executor that there is not, or settings of another one."""
    registry.one_of("executor", parsed.executor, NAMES)
    if slurm and parsed.executor != "slurm":
        name, value = next(iter(slurm.items()))
        raise RefusedError(f"{SLURM}{name}={value} has no effect: add executor=slurm.")
    if parsed.address != AUTO and parsed.executor != "ray":
        raise RefusedError(f"address={parsed.address} has no effect: add executor=ray.")
    if parsed.executor == "slurm" and parsed.gpus and parsed.gpus % 1:
        raise RefusedError(f"gpus={parsed.gpus:g}: Slurm gives whole GPUs: say gpus=1.")


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
        help="at a time; default: as many as the machine has room for, 100 of Slurm's",
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
    _add_machines(parser)
    parser.add_argument("--json", action="store_true", help="status: as JSON")
    parser.add_argument("--dry-run", action="store_true", help="run: only show the commands")
    parser.add_argument(
        "--measure",
        action="store_true",
        help="run: only measure how long kinds of runs take",
    )
    return parser


def _add_machines(parser: argparse.ArgumentParser) -> None:
    """Where jobs run, and what they are given there."""
    # where
    group = parser.add_argument_group("where jobs run (docs/cluster.md)")
    group.add_argument("--executor", default="local", help=f"{', '.join(NAMES)}; default: local")
    group.add_argument(
        "--address",
        default=AUTO,
        help="of Ray: auto, local (this machine), or host:port; default: auto",
    )

    # with what; left out: as the file says
    group.add_argument("--cpus", type=int, help="cores of a job")
    group.add_argument("--gpus", type=float, help="GPUs of a job, or a part of one; default: 0")
    group.add_argument("--memory-gb", type=float, help="memory of a job, where that is counted")
    group.add_argument(
        "--pack",
        default="off",
        help="runs of one program: off (all seeds of an arm), auto (seeds, and arms that differ in "
        "one swept number, as far as they fit into memory), or a number; default: off",
    )
    group.add_argument("--attempts", type=int, help="at a job whose machine is lost; default: 5")
    group.add_argument(
        "--stalled-minutes",
        type=float,
        help="a job that writes nothing for so long is begun again; default: 0, never",
    )


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

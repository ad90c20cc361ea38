"""The studies of a YAML file, or of all in a folder, read and checked."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Container
from dataclasses import dataclass, field, replace

import yaml

from jaxshare import registry
from jaxshare.study.check import TWO_ARMS, Check, Quantity
from jaxshare.study.language import BUDGETS, Budget, DataSet, Paths, Pool, Study
from jaxshare.study.reading import make, one_of
from jaxshare.types import RefusedError

PARTS = {  # keys at the top of a file
    "study": "title, text and places of the page",
    "studies": "studies by name",
    "claims": "studies by name that test what a publication claims",
    "sets": "data sets by name",
    "pools": "pools of policies for data sets, by name",
}
FREE = "x-"  # keys that begin so hold what is used elsewhere by YAML's & and *
CLAIM = ("statement", "source", "reference", "comparable", "because")  # which a claim must have
# of a quantity: one of them, or a score
NUMBERS = ("reached", "steps_to", "series", "decomposition", "json")


@dataclass(frozen=True)
class Book:
    """All studies by name, with the data sets and pools that they speak of."""

    name: str  # of the file or folder
    source: str  # the file or folder, relative to `base`
    folder: pathlib.Path  # where the files stand
    base: pathlib.Path  # where commands are given
    paths: Paths = field(default_factory=Paths)
    studies: dict[str, Study] = field(default_factory=dict)
    sets: dict[str, DataSet] = field(default_factory=dict)
    pools: dict[str, Pool] = field(default_factory=dict)

    def place(self, path: str) -> pathlib.Path:
        """Where a path of the files leads, relative to the folder in which commands are given."""
        return pathlib.Path(os.path.relpath((self.folder / path).resolve(), self.base.resolve()))


def read(place: pathlib.Path, base: pathlib.Path | None = None) -> Book:
    """The book of a YAML file, or of all in a folder. Raises RefusedError naming file, key and fix.

    base: the folder in which commands are given; None: the current one.
    """
    if not place.exists():
        raise RefusedError(
            f"{place} does not exist: name a YAML file of studies, or a folder of them.",
        )

    # where it stands, and what it is called
    folder = place if place.is_dir() else place.parent
    name = place.resolve().name if place.is_dir() else place.stem
    base = base or pathlib.Path.cwd()
    source = os.path.relpath(place.resolve(), base.resolve())
    book = Book(name, source, folder, base)

    # read all files
    files = sorted(place.glob("*.yaml")) if place.is_dir() else [place]
    for path in files:
        book = _with_file(book, path)
    if not book.studies:
        raise RefusedError(f"{place} holds no study: it needs a key 'studies' or 'claims'.")

    # check what they say together
    for study in book.studies.values():
        _check(study, book)
    for set_name, data in book.sets.items():
        _check_set(set_name, data, book)
    return book


def _with_file(book: Book, path: pathlib.Path) -> Book:
    """The book with what a file adds."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise RefusedError(f"{path} cannot be read: {_first(error)}.") from error
    if not isinstance(tree, dict):
        raise RefusedError(f"{path} is no mapping: it needs a key 'studies' or 'claims'.")
    for name in tree:
        if not str(name).startswith(FREE) and name not in PARTS:
            near = registry.suggest(str(name), PARTS)
            raise RefusedError(f"{path}: '{name}' is no key here.{near} Known: {', '.join(PARTS)}.")
    for kind in PARTS:
        if not isinstance(tree.get(kind) or {}, dict):
            raise RefusedError(f"{path}: {kind} must be a mapping from names.")

    # studies, data sets and pools, each name once
    for kind in ("studies", "claims"):
        for name, entry in (tree.get(kind) or {}).items():
            where = _new(path, name, book.studies)
            book.studies[name] = make(Study, entry, where, name=name, is_claim=kind == "claims")
    for name, entry in (tree.get("sets") or {}).items():
        book.sets[name] = make(DataSet, entry, _new(path, name, book.sets))
    for name, entry in (tree.get("pools") or {}).items():
        book.pools[name] = make(Pool, entry, _new(path, name, book.pools))

    if "study" not in tree:
        return book
    if book.paths != Paths():
        raise RefusedError(f"{path}: 'study' stands in another file of the folder already.")
    return replace(book, paths=make(Paths, tree["study"], f"{path}: study"))


def _first(error: Exception) -> str:
    """An error in one line, with its place in the file."""
    place = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem} in line {place.line + 1}, column {place.column + 1}" if place else problem


def _new(path: pathlib.Path, name: object, known: Container[str]) -> str:
    """Where an entry stands, in words; its name is a text, and new."""
    if not isinstance(name, str):
        raise RefusedError(f"{path}: the name {name} is no text: put it in quotes.")
    if not re.fullmatch(r"[\w-]+", name):
        raise RefusedError(f"{path}: the name '{name}' must be of letters, digits, _ and - only.")
    if name in known:
        raise RefusedError(f"{path}: {name} is defined twice: choose another name.")
    return f"{path.name}: {name}"


# ----------------------------------------------------------------------------------------- checking


def _check(study: Study, book: Book) -> None:
    """Raise RefusedError for what does not fit together."""
    name = study.name
    if study.instead:
        one_of(name, "instead", study.instead, book.studies)
    if study.is_claim:
        missing = [key for key in CLAIM if not getattr(study, key)]
        if missing:
            raise RefusedError(f"{name}: a claim must have {', '.join(missing)}; a study need not.")

    # what is run
    if study.not_run:
        return
    _check_size(study)
    for check in study.checks:
        _check_check(check, study)
    for budget in (study.budget(budget) for budget in BUDGETS):
        if budget is not None:
            _check_budget(budget, study)
    for task in study.values:
        one_of(f"{name}.values", "task", task, study.tasks)


def _check_set(name: str, data: DataSet, book: Book) -> None:
    """It comes from a pool, or from a set that does."""
    ways = [bool(data.pool), bool(data.standardised), bool(data.exchanged)]
    if sum(ways) != 1:
        raise RefusedError(
            f"sets.{name}: say pool and composition, or standardised, or exchanged.",
        )
    if data.pool:
        one_of(f"sets.{name}", "pool", data.pool, book.pools)
        if not data.composition:
            raise RefusedError(f"sets.{name}: it has no composition, such as low.")
    else:
        originals = [other for other, entry in book.sets.items() if entry.pool]
        way = "standardised" if data.standardised else "exchanged"
        one_of(f"sets.{name}", way, getattr(data, way), originals)


def _check_size(study: Study) -> None:
    """It has something to run, and a claim something to decide."""
    remedy = "Say not_run with the reason if it cannot be run."
    needed = ("checks", *BUDGETS) if study.is_claim else ()
    for key in needed:
        if not getattr(study, key):
            raise RefusedError(f"{study.name}: it has no {key}. {remedy}")
    if not any(getattr(study, budget) for budget in BUDGETS):
        raise RefusedError(f"{study.name}: it has no budget: say small or full. {remedy}")
    if bool(study.arms) != bool(study.tasks) or not (study.arms or study.jobs):
        raise RefusedError(
            f"{study.name}: it needs arms and tasks, or jobs: there is nothing to run.",
        )


def _check_check(check: Check, study: Study) -> None:
    name = study.name
    for arm in check.arms:
        one_of(name, "arm", arm, study.arms)
    for task in check.tasks:
        one_of(name, "task", task, study.tasks)
    if check.quantity.json is not None:
        one_of(name, "json", check.quantity.json, study.jobs)
    if isinstance(check.scale, dict):
        for task in check.scale:
            one_of(name, "scale", task, study.tasks)
    _check_quantity(check.quantity, name)

    # as many arms as the rule compares, and its bound
    wanted = 2 if check.compare in TWO_ARMS else 0 if check.quantity.json is not None else 1
    if len(check.arms) != wanted:
        raise RefusedError(
            f"{name}: compare={check.compare} of arms={check.arms}: two arms for greater and "
            "equal, one for the other rules, none with json.",
        )
    bound = "margin" if check.compare in TWO_ARMS else "threshold"
    other = "threshold" if check.compare in TWO_ARMS else "margin"
    if check.compare != "greater" and getattr(check, bound) is None:
        raise RefusedError(
            f"{name}: a check with compare={check.compare} must have says and {bound}.",
        )
    if getattr(check, other) is not None:
        raise RefusedError(f"{name}: compare={check.compare} has no {other}: say {bound}.")


def _check_quantity(quantity: Quantity, name: str) -> None:
    chosen = [key for key in NUMBERS if getattr(quantity, key) is not None]
    if len(chosen) > 1:
        raise RefusedError(f"{name}: quantity has {' and '.join(chosen)}: name one of them.")


def _check_budget(budget: Budget, study: Study) -> None:
    budget_name = next(name for name in BUDGETS if getattr(study, name) is budget)
    where = study.name
    for task in [*budget.tasks, *budget.only]:
        one_of(where, f"{budget_name}.tasks", task, study.tasks)
    for arm, settings in budget.arms.items():
        one_of(where, f"{budget_name}.arms", arm, study.arms)
        for task, value in settings.items():
            if isinstance(value, dict):
                one_of(where, f"{budget_name}.arms.{arm}", task, study.tasks)
    for arms in budget.only.values():
        for arm in arms:
            one_of(where, f"{budget_name}.only", arm, study.arms)

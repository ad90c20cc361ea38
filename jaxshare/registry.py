"""The file name is the registry: every module of algos/, envs/ or modifiers/ with `Config` and `make` is an entry."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Iterable
from functools import cache
from types import ModuleType

from jaxshare.types import RefusedError

KINDS = {"algo": "jaxshare.algos", "env": "jaxshare.envs", "modifiers": "jaxshare.modifiers"}


@cache
def modules(kind: str) -> dict[str, ModuleType]:
    """All entries of a kind ("algo", "env", "modifiers") by name. Heavy packages are imported by their `make` only."""
    package = importlib.import_module(KINDS[kind])
    names = [m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")]
    found = {name: importlib.import_module(f"{package.__name__}.{name}") for name in sorted(names)}
    return {name: module for name, module in found.items() if hasattr(module, "Config") and hasattr(module, "make")}


def get(kind: str, name: str) -> ModuleType:
    """The module of one entry. Raises RefusedError with the nearest names if there is none."""
    known = modules(kind)
    one_of(kind, name, known)
    return known[name]


def lacking(module: ModuleType) -> str | None:
    """How to install what an environment needs and has not, or None if it can be used here."""
    for package in getattr(module, "PACKAGES", ()):
        try:
            found = importlib.util.find_spec(package)
        except ModuleNotFoundError:  # of a parent package, or the parent is no package
            found = None
        if found is None:
            return module.INSTALL
    return None


def one_of(key: str, value: str, known: Iterable[str]) -> None:
    """Raise RefusedError naming key, value and what is nearest, unless the value is among the known ones."""
    names = list(known)
    if value not in names:
        raise RefusedError(f"{key}={value} is not known.{suggest(value, names)} Known: {', '.join(names)}.")


def without_version(package: str, scenario: str, task: str, version: str) -> None:
    """Raise RefusedError for a scenario whose task, the middle of a Gymnasium id, names another module or version."""
    if not re.fullmatch(r"[\w-]+", task):
        raise RefusedError(
            f"env.scenario={scenario} is no id of {package}: write it without a module, as in "
            f"env.scenario={re.sub(r'[^A-Za-z0-9_-]', '', task.rpartition(':')[2]) or '…'}."
        )
    other = re.search(r"-v\d+$", task)
    if other:
        raise RefusedError(
            f"env.scenario={scenario} names version {other[0][2:]}, but what is played here is {version} of {package}: "
            f"env.scenario={task.removesuffix(other[0])}."
        )


def suggest(name: str, known: object) -> str:
    """' Did you mean a or b?' for the names nearest to `name`, or ''."""
    near = difflib.get_close_matches(name, [str(k) for k in known], n=3, cutoff=0.5)  # type: ignore[attr-defined]
    return f" Did you mean {' or '.join(near)}?" if near else ""

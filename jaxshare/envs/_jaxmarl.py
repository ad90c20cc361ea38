"""The one door to jaxmarl: a silent first import of what is needed only.

Also the settings that its code needs when it is traced.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from types import ModuleType
from typing import ParamSpec, TypeVar

import jax

from jaxshare.types import RefusedError

P = ParamSpec("P")
R = TypeVar("R")


def import_jaxmarl(submodule: str) -> ModuleType:
    """`jaxmarl.environments.<submodule>`, and of the rest of jaxmarl what that imports itself."""
    return _imported(f"jaxmarl.environments.{submodule}", _bare_parents())


def import_registration() -> ModuleType:
    """`jaxmarl.registration`. Costs seconds the first time: it imports all of jaxmarl's games."""
    return _imported("jaxmarl.registration", nullcontext())


def _imported(name: str, parents: AbstractContextManager[None]) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    try:
        with quiet(), parents, jax.numpy_rank_promotion("allow"):
            return importlib.import_module(name)
    except ImportError as error:
        raise RefusedError(
            f"This environment needs jaxmarl, which cannot be imported ({error}). Remedy: pip "
            "install jaxmarl==0.2.0"
        ) from error


def lenient(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, traced with implicit rank promotion: jaxmarl subtracts [2] from [N, 2]."""

    @wraps(function)
    def traced(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.numpy_rank_promotion("allow"):
            return function(*args, **kwargs)

    return traced


@contextmanager
def _bare_parents() -> Iterator[None]:
    """Stand-ins for the packages above the environments, whose import would run all their modules.

    They know where their parts are and run no code. They are gone afterwards, so that whoever
    imports jaxmarl itself later gets all of it, with the parts that were imported here.
    """
    stand_ins: list[str] = []
    path: Sequence[str] | None = None
    try:
        for name in ("jaxmarl", "jaxmarl.environments"):
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            if spec is None:
                break  # not installed: the import says so
            if name not in sys.modules:
                sys.modules[name] = importlib.util.module_from_spec(spec)
                stand_ins.append(name)
            path = spec.submodule_search_locations
        yield
    finally:
        for name in stand_ins:
            sys.modules.pop(name, None)


@contextmanager
def quiet() -> Iterator[None]:
    """Undoes what the import does to the process.

    It prints, warns, and (with brax present) replaces sys.stdout.
    """
    show = builtins.print
    stdout = sys.stdout
    stderr = sys.stderr
    builtins.print = _nothing
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        builtins.print = show
        sys.stdout = stdout
        sys.stderr = stderr


def _nothing(*args: object, **kwargs: object) -> None:
    """In place of `print`."""

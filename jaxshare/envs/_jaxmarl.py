"""The one door to jaxmarl: a silent first import of what is needed only, and the trace-time settings its code needs."""

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
    """`jaxmarl.registration`. Costs seconds the first time: it imports every environment of jaxmarl."""
    return _imported("jaxmarl.registration", nullcontext())


def _imported(name: str, parents: AbstractContextManager[None]) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    try:
        with _quiet(), parents, jax.numpy_rank_promotion("allow"):
            return importlib.import_module(name)
    except ImportError as error:
        raise RefusedError(
            f"This environment needs jaxmarl, which cannot be imported ({error}). Remedy: pip install jaxmarl==0.2.0"
        ) from error


def lenient(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, traced with implicit rank promotion allowed: jaxmarl subtracts [2] from [N, 2] throughout."""

    @wraps(function)
    def traced(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.numpy_rank_promotion("allow"):
            return function(*args, **kwargs)

    return traced


@contextmanager
def _bare_parents() -> Iterator[None]:
    """Stand-ins for the packages above the environments, which on their own import run all environments' modules.

    They know where their parts are and run no code. They are gone afterwards, so that whoever imports jaxmarl itself
    later gets all of it, with the parts that were imported here.
    """
    made: list[str] = []
    path: Sequence[str] | None = None
    try:
        for name in ("jaxmarl", "jaxmarl.environments"):
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            if spec is None:
                break  # not installed: the import says so
            if name not in sys.modules:
                sys.modules[name] = importlib.util.module_from_spec(spec)
                made.append(name)
            path = spec.submodule_search_locations
        yield
    finally:
        for name in made:
            sys.modules.pop(name, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Undoes what the import does to the process: it prints, warns, and (with brax present) replaces sys.stdout."""
    show, stdout, stderr = builtins.print, sys.stdout, sys.stderr
    builtins.print = lambda *args, **kwargs: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        builtins.print, sys.stdout, sys.stderr = show, stdout, stderr

"""The one door to jaxmarl: a silent first import, and the trace-time settings its code needs."""

from __future__ import annotations

import builtins
import importlib
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import ModuleType
from typing import ParamSpec, TypeVar

import jax

from jaxshare.types import RefusedError

P = ParamSpec("P")
R = TypeVar("R")


def import_jaxmarl(submodule: str) -> ModuleType:
    """`jaxmarl.environments.<submodule>`. Costs seconds the first time: any part of jaxmarl imports the whole of it."""
    name = f"jaxmarl.environments.{submodule}"
    if name in sys.modules:
        return sys.modules[name]
    try:
        with _quiet(), jax.numpy_rank_promotion("allow"):
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

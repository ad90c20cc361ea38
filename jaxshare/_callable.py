"""Modules that are commands have the names of functions of the Python API, as `jaxshare.train`.

`python -m jaxshare.train` runs the module. Once something has imported it, the package's attribute
is the module; so the module can be called, too.
"""

from __future__ import annotations

import importlib
import sys
import types


def make_callable(name: str, place: str) -> None:
    """Let a module of the package be called as the function of its name.

    name: the module's. place: the module that has the function.
    """
    if name == "__main__":
        return
    function = name.rpartition(".")[2]

    class Command(types.ModuleType):
        """A module that is a function, too."""

        def __call__(self, *args: object, **kwargs: object) -> object:
            return getattr(importlib.import_module(place), function)(*args, **kwargs)

    sys.modules[name].__class__ = Command

"""Classes of hosted environments, by where they are."""

import importlib
import importlib.util
import os

HOSTED = os.path.dirname(os.path.abspath(__file__))


def load(target):
    """'file.py:Class' or 'package.module:attribute' -> the object."""
    where, _, name = target.rpartition(":")
    if where.endswith(".py"):
        thing = _file(where)
    else:
        thing = importlib.import_module(where)
    for part in name.split("."):
        thing = getattr(thing, part)
    return thing


def _file(path):
    """The module of a file: one of this package, or one that stands alone."""
    name = os.path.basename(path)[:-3]
    if os.path.dirname(os.path.abspath(path)) == HOSTED:
        return importlib.import_module("." + name, __package__)
    spec = importlib.util.spec_from_file_location(name + "_hosted", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

"""Entries by dotted path (`my_pkg.my_algo`) or file (`path/to/game.py`), at the user's word.

Nothing here asks whose word it is. The command line's arguments come here directly; what a file
names comes here through `jaxshare.trust` only.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import os
import pathlib
import re
import sys
from types import ModuleType
from typing import Any

from jaxshare import registry
from jaxshare.plugins import installed
from jaxshare.plugins.entries import FILE, MODULE, Entry, Origin, checked, imported, in_words, keep
from jaxshare.types import RefusedError

DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def is_reference(text: str) -> bool:
    """Whether it is a dotted path or names a file, and so no name of an entry."""
    return is_file(text) or DOTTED.fullmatch(text) is not None


def is_file(text: str) -> bool:
    """Whether it names a file rather than a module."""
    return text.endswith(".py") or "/" in text or os.sep in text


def short_name(reference: str) -> str:
    """The name of the entry: the file's without its ending, or the last part of a dotted path."""
    return pathlib.Path(reference).stem if is_file(reference) else reference.rpartition(".")[2]


def load(kind: str, reference: str, folder: pathlib.Path | None = None) -> Entry:
    """Import what a reference names and know it by its short name.

    folder: where relative paths of files start; the current folder if None.
    Raises RefusedError in one sentence if that fails, or if the short name is one of ours.
    """
    about = f"{kind}={reference}"
    name = short_name(reference)
    if _is_offered(kind, name, reference):
        return installed.load(kind, name)
    if is_file(reference):
        thing, origin = _from_file(kind, name, file_of(reference, folder), about)
    else:
        thing, origin = _from_module(reference, about)

    # a module of ours under its long name is what it is
    if registry.modules(kind).get(name) is thing:
        return Entry(kind, name, thing)
    check_free(kind, name, about)
    return keep(Entry(kind, name, checked(kind, name, thing, about), origin))


def _is_offered(kind: str, name: str, reference: str) -> bool:
    """Whether it is what an installed package offers by this very name."""
    if name in registry.modules(kind):
        return False
    of_name = installed.offers(kind).get(name, ())
    return any(offer.point.value == reference for offer in of_name)


def check_free(kind: str, name: str, about: str) -> None:
    """Raise RefusedError if jaxshare or an installed package has this name already."""
    remedy = "rename the file or module, and with it the entry"
    if name in registry.modules(kind):
        raise RefusedError(
            f"{about} would be called {name}, as jaxshare's own {kind}={name} is: {remedy}."
        )
    if name in installed.offers(kind):
        packages = " and ".join(offer.package for offer in installed.offers(kind)[name])
        raise RefusedError(
            f"{about} would be called {name}, as {kind}={name} of the installed package "
            f"{packages} is: {remedy}."
        )


def file_of(reference: str, folder: pathlib.Path | None = None) -> pathlib.Path:
    """The absolute path of a file that is referred to."""
    path = pathlib.Path(os.path.expanduser(reference))
    return pathlib.Path(os.path.abspath((folder or pathlib.Path()) / path))


def target(reference: str, folder: pathlib.Path | None = None) -> str:
    """What two spellings of one reference have in common."""
    return str(file_of(reference, folder)) if is_file(reference) else reference


# ------------------------------------------------------------------------------------------ modules


def _from_module(reference: str, about: str) -> tuple[object, Origin]:
    try:
        thing = _imported(reference)
    except (Exception, SystemExit) as error:  # whatever their code does
        raise RefusedError(
            f"{about} cannot be imported ({in_words(error)}): name a module, or something in "
            f"one, that can be."
        ) from error
    package, version = _distribution(reference)
    return thing, Origin(MODULE, module=reference, package=package, version=version)


def _imported(reference: str) -> object:
    """The module of this path, or what a module has under the last part of it."""
    parent, _, last = reference.rpartition(".")
    try:
        return importlib.import_module(reference)
    except ModuleNotFoundError as error:
        # the error may come from an import within the module
        if error.name != reference:
            raise
        module = importlib.import_module(parent)
        if not hasattr(module, last):
            raise
        return getattr(module, last)


def _distribution(reference: str) -> tuple[str, str]:
    """Name and version of the installed package that a module belongs to, or empty texts."""
    names = importlib.metadata.packages_distributions().get(reference.partition(".")[0], [])
    if len(names) != 1:
        return "", ""
    return names[0], importlib.metadata.version(names[0])


# -------------------------------------------------------------------------------------------- files


def _from_file(kind: str, name: str, path: pathlib.Path, about: str) -> tuple[Any, Origin]:
    try:
        source = path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        example = f"{kind}=path/to/my_{kind.rstrip('s')}.py"
        raise RefusedError(
            f"{about} cannot be read ({path}: {reason}): name a Python file, as in {example}, or "
            "a module by its dotted path."
        ) from error
    origin = Origin(FILE, file=str(path), sha256=hashlib.sha256(source).hexdigest())
    known = imported(kind).get(name)
    if known is not None and known.origin == origin:
        return known.module, origin
    return _executed(path, source, about), origin


def _executed(path: pathlib.Path, source: bytes, about: str) -> ModuleType:
    """The module that these bytes of a file make; files beside it can be imported by it."""
    mark = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    module = ModuleType(f"jaxshare_file_{path.stem}_{mark}")
    module.__file__ = str(path)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    before = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module  # dataclasses look there for the module of a class
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        sys.modules.pop(module.__name__)
        if before is not None:
            sys.modules[module.__name__] = before
        raise RefusedError(
            f"{about} cannot be imported ({in_words(error)}): correct it."
        ) from error
    return module

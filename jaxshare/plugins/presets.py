"""Presets from outside: folders of YAML files of installed packages, or registered; single files.

A preset may name entries by dotted path or file as a command line does. What an installed package's
preset names comes with the package. What a preset *file* names is run only if the command line
names it too, or an installed package offers it.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from jaxshare import registry
from jaxshare.plugins import installed, options, references
from jaxshare.plugins.entries import FILE, NAME, Entry, Origin, imported, keep
from jaxshare.settings.hydra import config_dir
from jaxshare.types import RefusedError

SUFFIXES = (".yaml", ".yml")
CHOICE = re.compile(r"(?:override\s+)?/?(algo|env)")  # a key of `defaults`
LISTS = ("modifiers", "logger")


@dataclass(frozen=True)
class Code:
    """What a preset names by dotted path or file."""

    kind: str
    reference: str
    folder: pathlib.Path  # where its relative paths start

    @property
    def target(self) -> tuple[str, str]:
        """What it is, however it is written."""
        return self.kind, references.target(self.reference, self.folder)


_files: set[str] = set()  # names of the presets that are files of the command line


def of_ours() -> list[str]:
    """First parts of the names of jaxshare's own presets, which no other package's can have."""
    return sorted({path.stem for path in (config_dir() / "preset").iterdir()})


def is_ours(name: str) -> bool:
    """Whether jaxshare ships a preset, or a folder of them, of this name."""
    folder = config_dir() / "preset"
    return (folder / name).is_dir() or (folder / f"{name}.yaml").is_file()


def is_file(text: str) -> bool:
    """Whether the command line names a file of settings rather than a preset."""
    return text.endswith(SUFFIXES)


def folders() -> dict[str, pathlib.Path]:
    """Folders of presets, and single files, by the first part of their names; no broken ones."""
    places: dict[str, pathlib.Path] = {}
    for name in installed.offers("preset"):
        if is_ours(name):
            continue
        try:
            places[name] = installed.load("preset", name).module
        except RefusedError:
            continue
    return {**places, **{name: entry.module for name, entry in imported("preset").items()}}


def names() -> list[str]:
    """Names of all presets from outside, as 'their/name', but for files of the command line."""
    listed = []
    for first, place in folders().items():
        # files of the command line are no names to choose from
        if first in _files:
            continue
        if place.is_file():
            listed.append(first)
            continue
        paths = [path for suffix in SUFFIXES for path in place.rglob(f"*{suffix}")]
        inner = [path.relative_to(place).with_suffix("").as_posix() for path in paths]
        listed += [f"{first}/{name}" for name in inner]
    return sorted(listed)


def choose(name: str) -> bool:
    """Make a preset from outside a choice of hydra's; False if there is none of this name.

    Raises RefusedError if it cannot be read, or names what cannot be imported.
    """
    first, _, rest = name.partition("/")
    if is_ours(first):
        return False
    if first in installed.offers("preset"):
        installed.load("preset", first)
    entry = imported("preset").get(first)
    if entry is None:
        return False
    path = _path(entry.module, rest)
    if path is None:
        return False
    options.offer_preset(name, _understood(options.read_yaml(path), path.parent))
    return True


def _path(place: pathlib.Path, rest: str) -> pathlib.Path | None:
    if place.is_file():
        return None if rest else place
    for suffix in SUFFIXES:
        path = place / f"{rest}{suffix}"
        if path.is_file() and place.resolve() in path.resolve().parents:
            return path
    return None


def choose_file(text: str, named: Collection[tuple[str, str]] | None = None) -> str:
    """Make a file of settings a choice of hydra's: its name, that of the file.

    named: what the command line names itself, as (kind, target); None if that was asked before.
    Raises RefusedError if it cannot be read, or names code that nobody else names.
    """
    path = references.file_of(text)
    name = path.stem
    if not NAME.fullmatch(name):
        raise RefusedError(
            f"preset={text} would be called {name!r}: rename the file to letters, digits and _."
        )
    if (is_ours(name) or name in folders()) and name not in _files:
        raise RefusedError(
            f"preset={text} would be called {name}, as another preset is: rename the file."
        )
    # what it may do at all, then whose word there is for code
    tree = options.read_yaml(path)
    _check_file(text, tree)
    codes = _codes(tree, path.parent) if named is not None else []
    others = [code for code in codes if code.target not in (named or ())]
    unknown = [code for code in others if not installed.provides(code.reference)]
    if unknown:
        arguments = " ".join(_argument(code) for code in unknown)
        raise RefusedError(
            f"preset={text} names code that would run here. If you know it, repeat it on the "
            f"command line: {arguments}."
        )
    _files.add(name)
    keep(Entry("preset", name, path, Origin(FILE, file=str(path))))
    options.offer_preset(name, _understood(tree, path.parent))
    return name


def files() -> list[str]:
    """Names of the files of settings that the command line names."""
    return sorted(_files)


def _check_file(text: str, tree: dict[str, Any]) -> None:
    """Raise RefusedError if a file sets more than jaxshare's settings: hydra's start anything."""
    entries = tree.get("defaults") or []
    known = [entry for entry, _, _ in _choices(tree)]

    # entries that choose neither an algorithm nor an environment, and nothing besides
    strange = []
    for entry in entries:
        if entry != "_self_" and (entry not in known or len(entry) != 1):
            strange.append(entry)

    if "hydra" in tree or strange:
        what = "sets hydra's own settings"
        if "hydra" not in tree:
            what = f"has {strange[0]!r} among its defaults"
        raise RefusedError(
            f"preset={text} {what}: a file may hold settings of jaxshare.train, and choose by "
            f"defaults, as in "
            "'- override /algo: qmix', an algorithm and an environment."
        )


def _argument(code: Code) -> str:
    value = code.target[1]
    return f"{code.kind}=[{value}]" if code.kind in LISTS else f"{code.kind}={value}"


# ---------------------------------------------------------------------------------------- contents


def _choices(tree: dict[str, Any]) -> list[tuple[dict[str, Any], str, str]]:
    """(entry of `defaults`, its key, kind) of each choice of an algorithm or environment."""
    entries = [entry for entry in tree.get("defaults") or () if isinstance(entry, dict)]
    chosen = []
    for entry in entries:
        for key, value in entry.items():
            match = CHOICE.fullmatch(str(key))
            if match and isinstance(value, str):
                chosen.append((entry, key, match[1]))
    return chosen


def _lists(tree: dict[str, Any]) -> dict[str, list[str]]:
    """The names in `modifiers` and `logger`."""
    lists = {}
    for kind in LISTS:
        value = tree.get(kind)
        values = [value] if isinstance(value, str) else value
        if isinstance(values, list):
            lists[kind] = [str(item) for item in values]
    return lists


def _codes(tree: dict[str, Any], folder: pathlib.Path) -> list[Code]:
    """What the settings name by dotted path or file."""
    named = [(kind, entry[key]) for entry, key, kind in _choices(tree)]
    named += [(kind, name) for kind, names in _lists(tree).items() for name in names]
    return [Code(kind, text, folder) for kind, text in named if references.is_reference(text)]


def _understood(tree: dict[str, Any], folder: pathlib.Path) -> dict[str, Any]:
    """The settings with short names in place of references; all that they name is imported."""
    for entry, key, kind in _choices(tree):
        entry[key] = named_entry(kind, entry[key], folder)
    for kind, values in _lists(tree).items():
        tree[kind] = [named_entry(kind, value, folder) for value in values]
    return tree


def named_entry(kind: str, text: str, folder: pathlib.Path | None = None) -> str:
    """The name of the entry that a text names, by name, dotted path or file.

    It is imported if it is from outside.
    """
    if references.is_reference(text):
        return references.load(kind, text, folder).name
    if text not in registry.modules(kind) and text in installed.offers(kind):
        installed.load(kind, text)
    return text


def with_packages() -> list[str]:
    """Presets of installed packages, each with its package."""
    known = names()  # which knows their packages from then on
    packages = {
        first: entry.origin.words() for first, entry in imported("preset").items() if entry.origin
    }
    return [f"{name} ({packages[name.partition('/')[0]]})" for name in known]

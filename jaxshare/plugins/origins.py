"""What a run directory says of entries from outside, and finding them again.

config.yaml holds under `origins`, by kind and name, where each came from: package and version, dotted
path, or file with its hash. Jaxshare's own entries are not in it. A later command imports an entry by
what is written there only if the user's word or an installed package is behind it: see `find_again`.
"""

from __future__ import annotations

import dataclasses
import pathlib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxshare import registry
from jaxshare.plugins import installed, references
from jaxshare.plugins.entries import FILE, INSTALLED, MODULE, PYTHON, Origin, imported
from jaxshare.types import RefusedError

KEY = "origins"  # of config.yaml
LONGEST = 400  # characters of a file's text that a message repeats


@dataclass(frozen=True)
class Used:
    """An entry from outside that a run directory names."""

    kind: str
    name: str
    origin: Origin

    def label(self) -> str:
        """As the command line of training names it."""
        value = f"[{self.name}]" if self.kind == "modifiers" else self.name
        return f"{self.kind}={value}"

    def reference(self) -> str:
        """The dotted path or file that it was; "" for others."""
        return {MODULE: self.origin.module, FILE: self.origin.file}.get(self.origin.how, "")


# ---------------------------------------------------------------------------------------- writing


def record(names: dict[str, list[str]]) -> dict[str, Any]:
    """What config.yaml holds besides settings: {} if all of these entries are jaxshare's own.

    names: of the entries of a run, by kind.
    """
    origins: dict[str, dict[str, dict[str, str]]] = {}
    for kind, of_kind in names.items():
        for name in of_kind:
            origin = registry.entry(kind, name).origin
            if origin is not None:
                origins.setdefault(kind, {})[name] = origin.plain()
    return {KEY: origins} if origins else {}


def names_of(settings: Any) -> dict[str, list[str]]:
    """The names of a run's entries, by kind. settings: a `Settings` record."""
    return {
        "algo": [settings.algo_name],
        "env": [settings.env_name],
        "modifiers": list(settings.modifiers),
        "logger": list(settings.run.logger),
    }


# ---------------------------------------------------------------------------------------- reading


def used(tree: dict[str, Any]) -> list[Used]:
    """Entries from outside that the plain settings of a run directory need to be read, loggers not among them."""
    names = {
        "algo": [tree["algo_name"]],
        "env": [tree["env_name"]],
        "modifiers": list(tree.get("modifiers") or ()),
    }
    origins = tree.get(KEY) or {}
    fields = {field.name for field in dataclasses.fields(Origin)}
    found = []
    for kind, of_kind in names.items():
        for name in of_kind:
            values = origins.get(kind, {}).get(name)
            if values is not None and name not in registry.modules(kind):
                known = {key: value for key, value in values.items() if key in fields}
                found.append(Used(kind, name, Origin(**{"how": "", **known})))
    return found


def find_again(tree: dict[str, Any], file: pathlib.Path, named: Sequence[str], trust: bool) -> None:
    """Import the entries from outside that a run directory needs, so that `registry.get` knows them.

    tree: the plain settings. file: where they stand. named: dotted paths and files of the command line.
    trust: whether the user trusts the directory, whatever it names.
    Raises RefusedError that says what was used then, and how to name it or to allow it.
    """
    needed = used(tree)
    _import_named(needed, file, named)
    unknown = [each for each in needed if not _is_known(each)]
    refused = [
        each for each in unknown if each.reference() and not trust and not _is_installed(each)
    ]
    if refused:
        raise _not_allowed(file, refused)
    for each in needed:
        if each in unknown:
            _import(each, file)
        _compare(each, file, trust)


def arguments(names: dict[str, list[str]]) -> str:
    """What a later command needs behind its run_dir to import these entries again; "" if nothing."""
    needed = []
    for kind in ("algo", "env", "modifiers"):
        for name in names[kind]:
            origin = registry.entry(kind, name).origin
            each = Used(kind, name, origin) if origin else None
            if each and each.reference() and not _is_installed(each):
                needed.append(each.reference())
    return f" {shlex.quote(_argument(needed))}" if needed else ""


def _argument(values: list[str]) -> str:
    return f"plugins=[{','.join(values)}]"


def _import_named(needed: list[Used], file: pathlib.Path, named: Sequence[str]) -> None:
    """Import what the command line names, each as the entry of that name that the directory needs."""
    for reference in named:
        name = references.short_name(reference)
        matching = [each for each in needed if each.name == name]
        if not references.is_reference(reference) or not matching:
            what = (
                ", ".join(f"{each.name} ({_shown(each.origin.words())})" for each in needed)
                or "none"
            )
            raise RefusedError(
                f"plugins=[{reference}] is nothing that {file} needs: leave it out. From outside it needs: {what}."
            )
        for each in matching:
            references.load(each.kind, reference)


def _is_known(each: Used) -> bool:
    return each.name in imported(each.kind)


def _is_installed(each: Used) -> bool:
    """Whether an installed package offers it as an entry, so that the file's word is not needed."""
    return each.origin.how == MODULE and installed.provides(each.origin.module)


def _not_allowed(file: pathlib.Path, refused: list[Used]) -> RefusedError:
    ways = ["say trust=true"]
    values = [each.reference() for each in refused]
    if all(len(value) <= LONGEST and value.isprintable() for value in values):
        ways.insert(0, f"repeat it on the command line ({shlex.quote(_argument(values))})")
    what = ", ".join(f"{_shown(each.label())} ({_shown(each.origin.words())})" for each in refused)
    return RefusedError(
        f"{file} names code that would run here: {what}. If you know it, {' or '.join(ways)}."
    )


def _import(each: Used, file: pathlib.Path) -> None:
    """Import one entry by what is written of it. Raises RefusedError that says what was used then."""
    was = f"{file}: {_shown(each.label())} was {_shown(each.origin.words())}"
    elsewhere = "name where it is now, as in"
    if each.origin.how == INSTALLED:
        if each.name not in installed.offers(each.kind):
            raise RefusedError(f"{was}, which is not installed here: install it, if you know it.")
        registry.entry(each.kind, each.name)
    elif each.origin.how == MODULE:
        try:
            references.load(each.kind, each.origin.module)
        except RefusedError as error:
            raise RefusedError(
                f"{was}: {error} Or {elsewhere} plugins=[my_pkg.{each.name}]."
            ) from error
    elif each.origin.how == FILE:
        if not pathlib.Path(each.origin.file).is_file():
            raise RefusedError(
                f"{was} (sha256 {_shown(each.origin.sha256)[:12]}…), which is not there: {elsewhere} "
                f"plugins=[path/to/{pathlib.Path(each.origin.file).name}]."
            )
        references.load(each.kind, each.origin.file)
    elif each.origin.how == PYTHON:
        raise RefusedError(
            f"{was}, by jaxshare.register: do the same in Python before you load the run there; for commands put it "
            f"into a file or module called {each.name}, and name that, as in plugins=[path/to/{each.name}.py]."
        )
    else:
        raise RefusedError(
            f"{file}: origins.{each.kind}.{each.name} does not say from where it was."
        )


def _compare(each: Used, file: pathlib.Path, trust: bool) -> None:
    """Refuse other code than the run had, as far as that is recorded; a note about another version of a package."""
    was = each.origin
    now = registry.entry(each.kind, each.name).origin
    assert now is not None
    if was.sha256 and now.sha256 and was.sha256 != now.sha256 and not trust:
        raise RefusedError(
            f"{_shown(each.label())}: {now.file} has changed since the run in {file.parent} used it (sha256 then "
            f"{_shown(was.sha256)[:12]}…, now {now.sha256[:12]}…). Put back what it was; or, if the change does not "
            f"matter, say trust=true, or delete that sha256 from {file}."
        )
    if was.package and now.package and was.package != now.package:
        raise RefusedError(
            f"{_shown(each.label())} was of the package {_shown(was.package)}, and here {now.package} offers it: "
            f"install {_shown(was.package)} in its place, if you know it."
        )
    if was.version != now.version and was.package:
        versions = f"{_shown(was.version)} then, {now.version or 'unknown'} now"
        print(
            f"note: {_shown(each.label())} of the package {was.package}: version {versions}.",
            file=sys.stderr,
        )


def _shown(text: str) -> str:
    """A text of somebody's file, as far as it can be shown."""
    return text if len(text) <= LONGEST and text.isprintable() else f"{ascii(text)[:LONGEST]}…"


# --------------------------------------------------------------------------------------- going on


def changes(tree: dict[str, Any], names: dict[str, list[str]]) -> list[str]:
    """In what a run directory's entries differ from those of a command that would go on with it, in words.

    tree: the directory's plain settings. names: of the command's entries, by kind.
    """
    then = {
        "algo": [tree["algo_name"]],
        "env": [tree["env_name"]],
        "modifiers": list(tree.get("modifiers") or ()),
    }
    words = [
        f"{kind} was {', '.join(of_kind) or 'none'}, now {', '.join(names[kind]) or 'none'}"
        for kind, of_kind in then.items()
        if of_kind != names[kind]
    ]
    if words:
        return words
    origins = {(each.kind, each.name): each.origin for each in used(tree)}
    for kind in then:
        for name in names[kind]:
            now = registry.entry(kind, name).origin
            was = origins.get((kind, name))
            if now is not None and was is not None and not _is_same(was, now):
                words.append(f"{kind}={name} was {_described(was)}, now {_described(now)}")
    return words


def _is_same(was: Origin, now: Origin) -> bool:
    """Whether it is the same code as far as that is recorded; a file may lie elsewhere, a package be updated."""
    if was.how != now.how:
        return False
    if was.how == FILE:
        return was.sha256 in ("", now.sha256)
    return was.how == PYTHON or (was.module, was.package) == (now.module, now.package)


def _described(origin: Origin) -> str:
    mark = f" with sha256 {_shown(origin.sha256)[:12]}…" if origin.sha256 else ""
    return f"{_shown(origin.words())}{mark}"

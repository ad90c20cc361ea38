"""Finding the entries from outside that a run directory names, so that it can be evaluated.

What only the directory says is imported if the user's word or an installed package is behind it.
"""

from __future__ import annotations

import pathlib
import re
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from jaxshare import registry
from jaxshare.plugins import installed, origins, references
from jaxshare.plugins.entries import FILE, INSTALLED, MODULE, PYTHON, imported
from jaxshare.plugins.origins import LONGEST, Used, shown
from jaxshare.types import RefusedError

PLAIN = re.compile(r"[\w./-]+", re.ASCII)  # what can be repeated on the command line without quotes


def find_again(tree: dict[str, Any], file: pathlib.Path, named: Sequence[str], trust: bool) -> None:
    """Import the entries from outside that a run directory needs, for `registry.get` to know them.

    tree: the plain settings. file: where they stand.
    named: dotted paths and files of the command line.
    trust: whether the user trusts the directory, whatever it names.
    Raises RefusedError that says what was used then, and how to name it or to allow it.
    """
    needed = origins.used(tree)
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
    """What a later command needs behind its run_dir to import these entries; "" if nothing."""
    needed = []
    for kind in ("algo", "env", "modifiers"):
        for name in names[kind]:
            origin = registry.entry(kind, name).origin
            each = Used(kind, name, origin) if origin else None
            if each and each.reference() and not _is_installed(each):
                needed.append(each.reference())
    if not needed:
        return ""
    return f" {_argument(needed) or 'trust=true'}"


def _argument(references: list[str]) -> str:
    """The argument that repeats them, as a shell takes it; "" if they cannot be shown in full."""
    if not all(
        PLAIN.fullmatch(reference) and len(reference) <= LONGEST for reference in references
    ):
        return ""
    return shlex.quote(f"plugins=[{','.join(references)}]")


def _import_named(needed: list[Used], file: pathlib.Path, named: Sequence[str]) -> None:
    """Import what the command line names, as the entries of these names that are needed."""
    for reference in named:
        name = references.short_name(reference)
        matching = [each for each in needed if each.name == name]
        if not references.is_reference(reference) or not matching:
            needs = [f"{each.name} ({shown(each.origin.words())})" for each in needed]
            raise RefusedError(
                f"plugins=[{reference}] is nothing that {file} needs: leave it out. From outside "
                f"jaxshare it needs: {', '.join(needs) or 'nothing'}."
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
    argument = _argument([each.reference() for each in refused])
    if argument:
        ways.insert(0, f"repeat it on the command line ({argument})")
    entries = []
    for each in refused:
        entries.append(f"{shown(each.label())} ({shown(each.origin.words())})")
    what = ", ".join(entries)
    return RefusedError(
        f"{file} names code that would run here: {what}. If you know it, {' or '.join(ways)}."
    )


def _import(each: Used, file: pathlib.Path) -> None:
    """Import an entry by what is written of it. Raises RefusedError with what was used then."""
    was = f"{file}: {shown(each.label())} was {shown(each.origin.words())}"
    elsewhere = "name where it is now, as in"

    # each kind of origin has a message of its own for what is gone
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
        path = pathlib.Path(each.origin.file)
        if not path.is_file():
            checksum = shown(each.origin.sha256)[:12]
            raise RefusedError(
                f"{was} (sha256 {checksum}…), which is not there: {elsewhere} "
                f"plugins=[path/to/{path.name}]."
            )
        references.load(each.kind, each.origin.file)
    elif each.origin.how == PYTHON:
        raise RefusedError(
            f"{was}, by jaxshare.register: do the same in Python before you load the run there; "
            f"for commands put it "
            f"into a file or module called {each.name}, and name that, as in "
            f"plugins=[path/to/{each.name}.py]."
        )
    elif each.name not in installed.offers(each.kind):
        raise RefusedError(
            f"{file}: {shown(each.label())} is none of jaxshare's own, and the file does not say "
            f"where "
            f"it came from: {elsewhere} plugins=[my_pkg.{shown(each.name)}]."
        )


def _compare(each: Used, file: pathlib.Path, trust: bool) -> None:
    """Refuse other code than the run had, as far as that is recorded.

    Of another version of a package there is a note.
    """
    was = each.origin
    now = registry.entry(each.kind, each.name).origin
    assert now is not None

    # the very file, unless the user trusts it
    if was.sha256 and now.sha256 and was.sha256 != now.sha256 and not trust:
        checksums = f"sha256 then {shown(was.sha256)[:12]}…, now {now.sha256[:12]}…"
        raise RefusedError(
            f"{shown(each.label())}: {now.file} has changed since the run in {file.parent} used "
            f"it ({checksums}). Put back what it was; or, if the change does not matter, say "
            f"trust=true, or delete that sha256 from {file}."
        )
    if was.package and now.package and was.package != now.package:
        package = shown(was.package)
        raise RefusedError(
            f"{shown(each.label())} was of the package {package}, and here {now.package} offers "
            f"it: install {package} in its place, if you know it."
        )
    if was.version != now.version and was.package:
        versions = f"{shown(was.version)} then, {now.version or 'unknown'} now"
        print(
            f"note: {shown(each.label())} of the package {was.package}: version {versions}.",
            file=sys.stderr,
        )

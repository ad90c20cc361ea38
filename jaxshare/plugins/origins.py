"""What a run directory says of entries from outside.

config.yaml holds under `origins`, by kind and name, where each came from: package and version,
dotted path, or file with its hash. Jaxshare's own entries are not in it. Nothing here imports
anything.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxshare import registry
from jaxshare.plugins.entries import FILE, MODULE, PYTHON, Origin

if TYPE_CHECKING:
    from jaxshare.settings.records import Settings

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


def names_of(settings: Settings) -> dict[str, list[str]]:
    """The names of a run's entries, by kind."""
    return {
        "algo": [settings.algo_name],
        "env": [settings.env_name],
        "modifiers": list(settings.modifiers),
        "logger": list(settings.run.logger),
    }


# ---------------------------------------------------------------------------------------- reading


def names_in(tree: dict[str, Any]) -> dict[str, list[str]]:
    """The names of the entries that plain settings need to be read, by kind."""
    return {
        "algo": [tree["algo_name"]],
        "env": [tree["env_name"]],
        "modifiers": list(tree.get("modifiers") or ()),
    }


def used(tree: dict[str, Any]) -> list[Used]:
    """The entries from outside among them. One of which nothing is written has an empty origin."""
    origins = tree.get(KEY) or {}
    fields = {field.name for field in dataclasses.fields(Origin)}
    entries = []
    for kind, names in names_in(tree).items():
        for name in names:
            if name not in registry.modules(kind):
                written = origins.get(kind, {}).get(name, {})
                values = {key: value for key, value in written.items() if key in fields}
                entries.append(Used(kind, name, Origin(**{"how": "", **values})))
    return entries


def shown(text: str) -> str:
    """A text of somebody's file, as far as it can be shown."""
    return text if len(text) <= LONGEST and text.isprintable() else f"{ascii(text)[:LONGEST]}…"


# --------------------------------------------------------------------------------------- going on


def changes(tree: dict[str, Any], names: dict[str, list[str]]) -> list[str]:
    """In what entries differ between a run directory and a command that goes on with it, in words.

    Only where the directory has some from outside; the names of others are settings like all.
    tree: the directory's plain settings. names: of the command's entries, by kind.
    """
    outside = [entry for entry in used(tree) if entry.origin.how]
    if not outside:
        return []
    words = []
    for kind, then in names_in(tree).items():
        now_named = names[kind]
        if then != now_named:
            before = ", ".join(then) or "none"
            after = ", ".join(now_named) or "none"
            words.append(f"{kind} was {before}, now {after}")
    if words:
        return words

    # the same names, perhaps of other code
    for entry in outside:
        now = registry.entry(entry.kind, entry.name).origin
        if now is not None and not _is_same(entry.origin, now):
            words.append(f"{entry.label()} was {_described(entry.origin)}, now {_described(now)}")
    return words


def _is_same(was: Origin, now: Origin) -> bool:
    """Whether it is the same code, as far as that is recorded.

    A file may lie elsewhere, and a package be updated.
    """
    if was.how != now.how:
        return False
    if was.how == FILE:
        return was.sha256 in ("", now.sha256)
    return was.how == PYTHON or (was.module, was.package) == (now.module, now.package)


def _described(origin: Origin) -> str:
    mark = f" with sha256 {shown(origin.sha256)[:12]}…" if origin.sha256 else ""
    return f"{shown(origin.words())}{mark}"

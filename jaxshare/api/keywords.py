"""Keyword arguments into `key=value` arguments of the command line.

Its checks and messages then hold here too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from jaxshare import registry, spelling
from jaxshare.types import RefusedError

SPECIAL = re.compile(r"""['"\\\\,$={}\[\]()]""")  # what hydra reads more into than text


def arguments(
    keywords: Mapping[str, Any], known: Iterable[str], owners: Iterable[str]
) -> list[str]:
    """`key=value` for each keyword.

    known: all keys that there are, groups included, such as "eval" and "eval.every".
    owners: what may stand before a short name, such as "env" (scenario is then env.scenario).
    A mapping stands for the settings of a group: eval={"every": 1000}.
    Raises RefusedError for a name that is none, or that several owners have.
    """
    known = set(known)
    lines = []
    for name, value in keywords.items():
        key = full_key(name, known, owners)
        lines.extend(_lines(key, value, known))
    return lines


def full_key(name: str, known: set[str], owners: Iterable[str]) -> str:
    """The key of the command line that a keyword stands for."""
    parts = name.split(".")
    if parts[0] == "sweep" or "kwargs" in parts[1:] or name in known:
        return name
    keys = [f"{owner}.{name}" for owner in owners if f"{owner}.{name}" in known]
    if len(keys) > 1:
        raise RefusedError(
            f"{name} is a setting of several: say which, as in settings={{{keys[0]!r}: …}} or "
            f"settings={{{keys[1]!r}: …}}."
        )
    if not keys:
        near = registry.suggest(name, sorted(known))
        raise RefusedError(f"{name}=… is not a setting.{near}")
    return keys[0]


def _lines(key: str, value: object, known: set[str]) -> list[str]:
    if not isinstance(value, Mapping) or key.rpartition(".")[2] == "kwargs":
        return [f"{key}={_argument(key, value)}"]
    lines = []
    for name, inner in value.items():
        inner_key = f"{key}.{name}"
        if key.split(".")[0] != "sweep" and inner_key not in known:
            near = registry.suggest(inner_key, sorted(known))
            raise RefusedError(f"{inner_key}=… is not a setting.{near}")
        lines.extend(_lines(inner_key, inner, known))
    return lines


def _argument(key: str, value: object) -> str:
    """A value behind `key=`: text as it stands, in quotes where hydra would read more into it."""
    value = _plain(value)
    if not isinstance(value, str):
        return spelling.in_grammar(value)
    kind = spelling.training_kinds().get(key, spelling.Kind())
    is_special = bool(SPECIAL.search(value)) or value.lower() in spelling.KEYWORDS
    return spelling.quoted(value) if kind.text and is_special else value


def _plain(value: object) -> object:
    """Paths as text, numbers and arrays of numpy or JAX as Python has them; so in lists, too.

    Raises RefusedError for keys of mappings that hydra cannot read.
    """
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, Mapping):
        return {_key(name): _plain(inner) for name, inner in value.items()}
    return value


def _key(name: object) -> str:
    if not spelling.PLAIN_KEY.fullmatch(str(name)):
        raise RefusedError(
            f"the key {name!r} of a mapping cannot be written as a setting: use letters, digits, "
            "dots, minus signs and underscores."
        )
    return str(name)


def check_known(call: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise RefusedError for a keyword of a call that is no setting of it, with the nearest ones.

    call: the function and what stands before its settings, such as "make_env('lbf'".
    """
    known = list(known)
    for name in names:
        if name not in known:
            hint = registry.suggest(name, known)
            listed = ", ".join(known) or "none"
            raise RefusedError(
                f"{call}, {name}=…): {name} is not a setting of it.{hint} Known: {listed}."
            )

"""Keyword arguments into `key=value` arguments of the command line, whose checks and messages then hold here too."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from jaxshare import registry, spelling
from jaxshare.types import RefusedError

SPECIAL = re.compile(r"""['"\\\\,$={}\[\]()]""")  # what hydra reads more into than text
KEYWORDS = ("null", "true", "false", "nan", "inf")  # what hydra reads as something else than text


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


def _lines(key: str, value: Any, known: set[str]) -> list[str]:
    is_group = isinstance(value, Mapping) and key.rpartition(".")[2] != "kwargs"
    if not is_group:
        return [f"{key}={_argument(key, value)}"]
    lines = []
    for name, inner in value.items():
        inner_key = f"{key}.{name}"
        if key.split(".")[0] != "sweep" and inner_key not in known:
            near = registry.suggest(inner_key, sorted(known))
            raise RefusedError(f"{inner_key}=… is not a setting.{near}")
        lines.extend(_lines(inner_key, inner, known))
    return lines


def _argument(key: str, value: Any) -> str:
    """A value behind `key=`: text as it stands, in quotes where hydra would read more into it."""
    value = _plain(value)
    if not isinstance(value, str):
        return spelled(value)
    kind = spelling.training_kinds().get(key, spelling.Kind())
    is_special = bool(SPECIAL.search(value)) or value.lower() in KEYWORDS
    return spelling.quoted(value) if kind.text and is_special else value


def spelled(value: Any) -> str:
    """A value in hydra's grammar; text in quotes, unless it is plainly a name.

    Raises RefusedError for keys of mappings that hydra cannot read.
    """
    value = _plain(value)
    if isinstance(value, Mapping):
        pairs = [f"{_key(name)}:{spelled(inner)}" for name, inner in value.items()]
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(spelled(inner) for inner in value) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        is_name = value.isidentifier() and value.lower() not in KEYWORDS
        return value if is_name else spelling.quoted(value)
    return str(value)


def _plain(value: Any) -> Any:
    """Paths as text, and numbers and arrays of numpy or JAX as Python has them."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.tolist() if hasattr(value, "tolist") else value


def _key(name: Any) -> str:
    if not re.fullmatch(r"[\w.-]+", str(name), re.ASCII):
        raise RefusedError(
            f"the key {name!r} of a mapping cannot be written as a setting: use letters, digits, "
            "dots, minus signs and underscores."
        )
    return str(name)

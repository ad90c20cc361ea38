"""Keyword arguments into `key=value` arguments of the command line, whose checks and messages then hold here too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jaxshare import registry, spelling
from jaxshare.types import RefusedError

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
    free = name.split(".")[0] == "sweep" or "kwargs" in name.split(".")
    if free or name in known:
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
        return [f"{key}={spelled(value, outermost=True)}"]
    lines = []
    for name, inner in value.items():
        inner_key = f"{key}.{name}"
        if key.split(".")[0] != "sweep" and inner_key not in known:
            near = registry.suggest(inner_key, sorted(known))
            raise RefusedError(f"{inner_key}=… is not a setting.{near}")
        lines.extend(_lines(inner_key, inner, known))
    return lines


def spelled(value: Any, outermost: bool = False) -> str:
    """A value as the command line takes it: text as it stands, quoted inside of lists."""
    if isinstance(value, Mapping):
        pairs = [f"{spelled(name)}:{spelled(inner)}" for name, inner in value.items()]
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(spelled(inner) for inner in value) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and not outermost:
        is_name = value.isidentifier() and value.lower() not in KEYWORDS
        return value if is_name else spelling.quoted(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a number of numpy or JAX
        return spelled(value.item(), outermost)
    return str(value)

"""Settings as rows of text, as `--help` and the page of all settings have them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from jaxshare.settings.fields import COUNT, STEPS, UNITS, Setting, declared
from jaxshare.settings.ranges import Range

TECHNICAL = (COUNT, STEPS, UNITS)  # ends that a machine sets, which nobody needs to read
MOST_NAMES = 8  # of choices in a line


@dataclass(frozen=True)
class Row:
    """One setting: its key on the command line, its value, and what it says of itself."""

    key: str
    value: object
    setting: Setting

    @property
    def text(self) -> str:
        """The value as it is written on the command line."""
        return value_text(self.value)


def value_text(value: object) -> str:
    """A value as the command line has it: true, null, [a,b], {a:b}."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(value_text(entry) for entry in value)}]"
    if isinstance(value, dict):
        pairs = [f"{key}:{value_text(entry)}" for key, entry in value.items()]
        return "{" + ",".join(pairs) + "}"
    return str(value)


def rows(config: type, prefix: str = "", inner: bool = True) -> Iterator[Row]:
    """The settings of a class with their defaults; those of records in it as well, if `inner`.

    prefix: what stands before their names on the command line, such as "algo.".
    """
    defaults = config()
    settings = declared(config)
    for field in dataclasses.fields(config):
        value = getattr(defaults, field.name)
        if not dataclasses.is_dataclass(value):
            yield Row(f"{prefix}{field.name}", value, settings[field.name])
        elif inner:
            yield from rows(type(value), f"{prefix}{field.name}.")


def range_text(allowed: Range | None, most_names: int | None = MOST_NAMES) -> str:
    """What a setting may be, in short: `a|b`, `>=0`, `(0, 1]`, or '' where nothing is to be said.

    most_names: how many choices are written out, None for all.
    """
    if allowed is None:
        return ""
    if allowed.choices:
        names = [str(choice) for choice in allowed.choices]
        if most_names is not None and len(names) > most_names:
            names = [*names[:most_names], "…"]
        return "|".join(names)

    # ends, round brackets for open ones
    is_open_below = allowed.above is not None
    is_open_above = allowed.below is not None
    low = allowed.above if is_open_below else allowed.least
    high = allowed.below if is_open_above else allowed.most
    if high is None or high in TECHNICAL:
        return "" if low is None else f"{'>' if is_open_below else '>='}{low:g}"
    if low is None:
        return f"{'<' if is_open_above else '<='}{high:g}"
    return f"{'(' if is_open_below else '['}{low:g}, {high:g}{')' if is_open_above else ']'}"

"""Plain values of a YAML file made into records: every complaint names file, key, value and remedy.

A record is a frozen dataclass whose fields say with `key` what a file may write there:

    seeds: int = key("runs of every arm on every task", whole(least=1), 1)

A kind is a function from a plain value and the place where it stands to the value of the field.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from jaxshare import registry
from jaxshare.types import RefusedError

Kind = Callable[[Any, str], Any]
T = TypeVar("T")


def key(
    meaning: str,
    kind: Callable[[Any, str], T],
    default: object = dataclasses.MISSING,
    name: str = "",
) -> T:
    """A field of a record: what its key means, what it takes, and its name in the file (its own).

    A default that is a list or a dictionary is made anew for every record.
    """
    metadata = {"meaning": meaning, "kind": kind, "name": name}
    if isinstance(default, list | dict):
        empty = type(default)
        return cast(T, dataclasses.field(default_factory=empty, metadata=metadata))
    return cast(T, dataclasses.field(default=default, metadata=metadata))


def keys(record: type) -> dict[str, dataclasses.Field[Any]]:
    """The fields of a record that a file may write, by the names that they have there."""
    declared = [field for field in dataclasses.fields(record) if "kind" in field.metadata]
    return {field.metadata["name"] or field.name: field for field in declared}


def is_needed(field: dataclasses.Field[Any]) -> bool:
    """Whether a key must be there."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def one_of(where: str, name: str, value: object, known: Iterable[object]) -> None:
    """Raise RefusedError naming place, key, value and what is near, unless the value is known."""
    names = [str(each) for each in known]
    if value not in names:
        near = registry.suggest(str(value), names)
        raise RefusedError(f"{where}: {name}={value} is not one of {', '.join(names)}.{near}")


def make(record_type: type[T], tree: object, where: str, **others: object) -> T:
    """A record from a plain mapping. others: fields that no file writes. Raises RefusedError."""
    mapping = checked_mapping(tree, where)
    fields = keys(record_type)

    # keys that there are not, and that must be there
    for name in mapping:
        if name not in fields:
            near = registry.suggest(name, fields)
            raise RefusedError(
                f"{where}: '{name}' is no key here.{near} Known: {', '.join(fields)}.",
            )
    missing = [name for name, field in fields.items() if is_needed(field) and name not in mapping]
    if missing:
        meanings = [f"{name} ({fields[name].metadata['meaning']})" for name in missing]
        raise RefusedError(f"{where}: {' and '.join(meanings)} must be there.")

    # the values
    values: dict[str, Any] = {**others}
    for name, value in mapping.items():
        field = fields[name]
        values[field.name] = field.metadata["kind"](value, f"{where}.{name}")
    return record_type(**values)


def checked_mapping(value: object, where: str) -> dict[str, Any]:
    """The value, if it is a mapping from texts. Raises RefusedError."""
    if not isinstance(value, dict):
        raise RefusedError(f"{where}={value} must be a mapping, as in {{key: value}}.")
    for name in value:
        if not isinstance(name, str):
            raise RefusedError(f"{where}: the key {name} is no text: put it in quotes.")
    return value

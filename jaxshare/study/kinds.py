"""What a key of the YAML file takes: functions from a plain value and its place to a value."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, TypeVar

from jaxshare.study.reading import Kind, checked_mapping, make, one_of
from jaxshare.types import RefusedError

T = TypeVar("T")


def anything(value: object, where: str) -> object:
    """Any value."""
    return value


def text(value: object, where: str) -> str:
    """A text."""
    if not isinstance(value, str):
        raise RefusedError(f"{where}={value} must be a text: put it in quotes.")
    return value


def flag(value: object, where: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise RefusedError(f"{where}={value} must be true or false.")
    return value


def number(value: object, where: str) -> float:
    """A number; texts like 1e-3, which YAML takes for a text, as well."""
    with suppress(ValueError):
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            return float(value)
    raise RefusedError(f"{where}={value} must be a number.")


def whole(least: int) -> Kind:
    """A whole number that is large enough."""

    def read(value: object, where: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise RefusedError(f"{where}={value} must be a whole number of at least {least}.")
        return value

    return read


def choice(*names: str) -> Kind:
    """One of some texts."""

    def read(value: object, where: str) -> str:
        place, _, name = where.rpartition(".")
        one_of(place, name, value, names)
        return str(value)

    return read


def listing(kind: Kind) -> Kind:
    """A list of values of one kind."""

    def read(value: object, where: str) -> list[Any]:
        if not isinstance(value, list):
            raise RefusedError(f"{where}={value} must be a list: put it in brackets, [{value}].")
        return [kind(item, f"{where}[{number}]") for number, item in enumerate(value)]

    return read


def mapping(kind: Kind) -> Kind:
    """A mapping from names to values of one kind."""

    def read(value: object, where: str) -> dict[str, Any]:
        items = checked_mapping(value, where).items()
        return {name: kind(item, f"{where}.{name}") for name, item in items}

    return read


def either(first: type, kind: Kind, otherwise: Kind) -> Kind:
    """Of values of one type the one kind, of all others the other."""

    def read(value: object, where: str) -> object:
        return kind(value, where) if isinstance(value, first) else otherwise(value, where)

    return read


def settings(value: object, where: str) -> dict[str, str]:
    """Settings of jaxshare.train, a list of key=value in which lists may stand: later ones win."""
    if not isinstance(value, list):
        raise RefusedError(
            f"{where}={value} must be a list of settings, as in [algo=qmix, seed=1].",
        )
    merged: dict[str, str] = {}
    for item in value:
        if isinstance(item, list):
            merged |= settings(item, where)
            continue
        name, equals, rest = str(item).partition("=")
        if not equals:
            raise RefusedError(f"{where}: '{item}' is not understood: write settings key=value.")
        merged[name] = rest
    return merged


def record(record_type: type[T]) -> Kind:
    """The kind of a mapping with the keys of a record."""

    def read(value: object, where: str) -> T:
        return make(record_type, value, where)

    return read

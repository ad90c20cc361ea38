"""The values of a sweep, out of the plain tree of `sweep.*` settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeGuard

from jaxshare.types import RefusedError


def sweep_of(tree: Mapping[object, object], prefix: str = "") -> dict[str, list[float]]:
    """The values of each scalar that is swept, by its name: {"lr": […], "differ.alpha": […]}.

    tree: as `sweep.*` nests them, {"lr": […], "differ": {"alpha": […]}}.
    prefix: of all names in it.
    Raises RefusedError.
    """
    sweep: dict[str, list[float]] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            sweep |= sweep_of(value, f"{name}.")
        else:
            sweep[name] = _numbers(name, value)
    return sweep


def _numbers(name: str, value: object) -> list[float]:
    """The values of one scalar, of which there is at least one, and none twice."""
    entries = value if isinstance(value, list) else [value]
    numbers = [float(entry) for entry in entries if _is_number(entry)]
    if not entries or len(numbers) < len(entries):
        example = "as in sweep.lr=[1e-4,5e-4]"
        raise RefusedError(f"sweep.{name}={value} must be a list of numbers, {example}.")
    if len({*numbers}) != len(numbers):
        raise RefusedError(f"sweep.{name}={value} names a value twice: give each value once.")
    return numbers


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)

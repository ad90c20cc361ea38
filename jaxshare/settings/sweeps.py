"""The values of a sweep, out of the plain tree of `sweep.*` settings.

A sweep is a grid: every combination of its values is a point. With `sweep.zip=true` it is a list
of points instead: the first values of all, the second ones, and so on.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import TypeGuard

from jaxshare.types import RefusedError

ZIP = "zip"  # the key below `sweep` that is no scalar


def is_zipped(tree: Mapping[object, object]) -> bool:
    """Whether `sweep.zip` is true in the plain tree of `sweep.*`. Raises RefusedError."""
    value = tree.get(ZIP, False)
    if not isinstance(value, bool):
        raise RefusedError(f"sweep.zip={value} must be true or false.")
    if value and len(tree) == 1:
        raise RefusedError("sweep.zip=true has no effect alone: add a list, as in sweep.lr=[0.1].")
    return value


def points_of(sweep: Mapping[str, list[float]], zipped: bool) -> list[dict[str, float]]:
    """All points of a sweep; [{}] without one."""
    points: list[dict[str, float]] = [{}]
    if zipped:
        columns = zip(*sweep.values(), strict=True)
        return [dict(zip(sweep, values, strict=True)) for values in columns]
    for name, values in sweep.items():
        points = [{**point, name: value} for point in points for value in values]
    return points


def num_points(sweep: Mapping[str, list[float]], zipped: bool) -> int:
    """How many points a sweep has, 1 without one; a large grid is only counted."""
    lengths = [len(values) for values in sweep.values()]
    return lengths[0] if zipped and lengths else math.prod(lengths)


def sweep_of(tree: Mapping[object, object]) -> dict[str, list[float]]:
    """The values of each scalar that is swept, by its name: {"lr": […], "differ.alpha": […]}.

    tree: as `sweep.*` nests them, {"lr": […], "differ": {"alpha": […]}}, perhaps with "zip".
    Raises RefusedError.
    """
    sweep = _lists({key: value for key, value in tree.items() if key != ZIP})
    if is_zipped(tree):
        check_zipped(sweep)
        return sweep
    for name, numbers in sweep.items():
        if len({*numbers}) != len(numbers):
            raise RefusedError(f"sweep.{name}={numbers} names a value twice: give each value once.")
    return sweep


def check_zipped(sweep: Mapping[str, list[float]]) -> None:
    """Raise RefusedError unless all lists are as long as the first, and no point comes twice."""
    first = next(iter(sweep))
    for name, numbers in sweep.items():
        if len(numbers) != len(sweep[first]):
            raise RefusedError(
                f"sweep.{name} has {len(numbers)} value(s) and sweep.{first} {len(sweep[first])}: "
                "with sweep.zip=true each point takes one of every list. Make them equally long, "
                "or leave zip out for every combination."
            )
    times = Counter(zip(*sweep.values(), strict=True))
    for point, count in times.items():
        if count > 1:
            words = ", ".join(f"{name}={x}" for name, x in zip(sweep, point, strict=True))
            raise RefusedError(f"sweep.zip=true has the point {words} twice: give it once.")


def _lists(tree: Mapping[object, object], prefix: str = "") -> dict[str, list[float]]:
    """The values of each scalar by its name; prefix: of all names in the tree."""
    sweep: dict[str, list[float]] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            sweep |= _lists(value, f"{name}.")
        else:
            sweep[name] = _numbers(name, value)
    return sweep


def _numbers(name: str, value: object) -> list[float]:
    """The values of one scalar, of which there is at least one."""
    entries = value if isinstance(value, list) else [value]
    numbers = [float(entry) for entry in entries if _is_number(entry)]
    if not entries or len(numbers) < len(entries):
        example = "as in sweep.lr=[1e-4,5e-4]"
        raise RefusedError(f"sweep.{name}={value} must be a list of numbers, {example}.")
    return numbers


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)

"""Which runs of a study are trained by one program: seeds, and arms that differ in a swept number.

A program is compiled once for all of its runs, and on an accelerator they are trained side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from jaxshare import registry
from jaxshare.settings.fields import swept_values
from jaxshare.study.language import Settings

HPARAMS = "algo.hparams."
SWEEP = "sweep."
Place = tuple[str, str]  # task, arm
Point = tuple[tuple[str, float], ...]  # name and value of what is swept
Most = Callable[[Settings], int]  # how many runs of these settings one program may train


@dataclass(frozen=True)
class Piece:
    """Where runs of an arm on a task are: a training job, or one point of its sweep."""

    job: str
    point: Point = ()


@dataclass(frozen=True)
class Pack:
    """The settings of one job, and the arms on tasks whose runs it trains."""

    settings: Settings
    runs: int
    points: Mapping[Place, Point] = field(default_factory=dict)


def alone(cells: Mapping[Place, Settings]) -> list[Pack]:
    """A job for every arm on every task, with all of its seeds."""
    return [Pack(settings, _seeds(settings), {place: ()}) for place, settings in cells.items()]


def pack(cells: Mapping[Place, Settings], most: Most) -> list[Pack]:
    """As few jobs as there can be with so many runs each."""
    packs: list[Pack] = []
    left = dict(cells)

    # arms that differ in one swept number, the largest groups first
    for (name, _), places in _groups(cells):
        values = {place: left[place][name] for place in places if place in left}
        if len(set(values.values())) < 2:
            continue
        rest = {key: value for key, value in left[next(iter(values))].items() if key != name}
        at_once = most(rest) // _seeds(rest)
        if at_once < 2:
            continue
        packs += _swept(rest, name, values, at_once)
        for place in values:
            del left[place]

    # the others by themselves
    for place, settings in left.items():
        packs += _by_seeds(settings, place, most(settings))
    return packs


def _groups(
    cells: Mapping[Place, Settings],
) -> list[tuple[tuple[str, tuple[tuple[str, str], ...]], list[Place]]]:
    """[((what is swept, all other settings), places)], the largest first."""
    groups: dict[tuple[str, tuple[tuple[str, str], ...]], list[Place]] = {}
    for place, settings in cells.items():
        for name in swept_names(settings):
            rest = tuple(sorted(pair for pair in settings.items() if pair[0] != name))
            groups.setdefault((name, rest), []).append(place)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


def swept_names(settings: Settings) -> list[str]:
    """Settings that a sweep may have, and whose value is one number."""
    names = []
    for name, value in settings.items():
        with suppress(ValueError):
            float(value)
            if name.startswith(HPARAMS) or _is_swept(name):
                names.append(name)
    return names


def _is_swept(name: str) -> bool:
    """Whether it is a number of a modifier that a sweep may have."""
    owner, _, key = name.partition(".")
    if owner not in registry.names("modifiers"):
        return False
    return key in swept_values(registry.get("modifiers", owner).Config())


def _swept(rest: Settings, name: str, values: Mapping[Place, str], at_once: int) -> Iterator[Pack]:
    """Jobs with a sweep of these values, some at a time."""
    short = name.removeprefix(HPARAMS)
    distinct = list(dict.fromkeys(values.values()))
    for first in range(0, len(distinct), at_once):
        chosen = distinct[first : first + at_once]
        points: dict[Place, Point] = {}
        for place, value in values.items():
            if value in chosen:
                points[place] = ((short, float(value)),)
        if len(chosen) == 1:  # the last by itself needs no sweep
            alone_there = dict.fromkeys(points, ())
            yield Pack({**rest, name: chosen[0]}, _seeds(rest), alone_there)
        else:
            settings = {**rest, f"{SWEEP}{short}": f"[{','.join(chosen)}]"}
            yield Pack(settings, _seeds(rest) * len(chosen), points)


def _by_seeds(settings: Settings, place: Place, most: int) -> Iterator[Pack]:
    """Jobs with some of the seeds each."""
    seeds = _seeds(settings)
    if seeds <= most:
        yield Pack(settings, seeds, {place: ()})
        return
    first = int(settings.get("seed", "0"))
    for begin in range(0, seeds, most):
        count = min(most, seeds - begin)
        part = {**settings, "seeds": str(count), "seed": str(first + begin)}
        yield Pack(part, count, {place: ()})


def _seeds(settings: Settings) -> int:
    return int(settings.get("seeds", "1"))

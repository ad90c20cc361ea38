"""One walk over settings, and over values of a sweep, against the ranges that fields declare."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from jaxshare.registry import suggest
from jaxshare.settings.fields import COUNT, UNITS, ranges
from jaxshare.settings.ranges import Range
from jaxshare.settings.sweeps import check_zipped, num_points
from jaxshare.types import RefusedError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from jaxshare.settings.records import EntryConfig, RunConfig, Settings

RUNS = UNITS  # of one command; each is a row of every array


def check_record(record: DataclassInstance, prefix: str = "") -> None:
    """Check all fields of a dataclass, and of those in it. Raises RefusedError.

    prefix: what stands before the names of its fields on the command line, such as 'algo.'.
    """
    declared = ranges(type(record))
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            check_record(value, f"{prefix}{field.name}.")
        elif field.name in declared:
            check_value(f"{prefix}{field.name}", value, declared[field.name])


def check_value(key: str, value: object, allowed: Range) -> None:
    """Check one value, or each entry of a list of choices. Raises RefusedError."""
    entries = value if isinstance(value, list | tuple) and allowed.choices else [value]
    for entry in entries:
        problem = allowed.problem(entry)
        if problem:
            near = suggest(entry, allowed.choices) if isinstance(entry, str) else ""
            note = f" {allowed.note}" if allowed.note else ""
            raise RefusedError(f"{key}={entry} {problem}.{near}{note}")


def check_all(settings: Settings) -> None:
    """Check all settings of a run and its sweep. Raises RefusedError with key, value and remedy."""
    check_record(settings.run)
    _check_run(settings.run)
    check_record(settings.algo, "algo.")
    check_record(settings.env, "env.")
    for name, config in settings.modifiers.items():
        check_record(config, f"{name}.")
    _check_number_of_runs(settings)
    check_sweep(settings)


def _check_run(run: RunConfig) -> None:
    """What several settings of a run must be together."""
    # what is counted
    last_seed = run.seed + run.seeds
    if last_seed > COUNT:
        what = f"seed+seeds={last_seed} is too large"
        raise RefusedError(f"{what}: it is counted in 32 bits, so {COUNT} at most.")

    # who computes it
    processes = run.parallel.processes
    if run.parallel.data % processes:
        raise RefusedError(
            f"parallel.processes={processes} share the devices of each run, which are "
            f"parallel.data={run.parallel.data}: use parallel.data={processes} or a multiple of "
            "it. Seeds are better runs of their own, without parallel.processes."
        )

    # what is kept
    capacity = run.replay.capacity
    if run.num_envs > capacity:
        raise RefusedError(
            f"num_envs={run.num_envs} is larger than replay.capacity={capacity}: one collect would "
            f"overwrite itself. Use num_envs={capacity} or replay.capacity={run.num_envs} at least."
        )


def check_sweep(settings: Settings) -> None:
    """Check what a sweep varies, as if each of its points stood on a command line of its own.

    Raises RefusedError with key, value and range. A name that is no scalar here is left to
    whoever knows the algorithm with its modifiers.
    """
    if settings.zipped:
        check_zipped(settings.sweep)
    for key, values in settings.sweep.items():
        owner, _, name = key.rpartition(".")
        allowed = ranges(type(_owner(settings, owner))).get(name)
        if allowed is not None:
            for value in values:
                check_value(f"sweep.{key}", value, allowed)

    # what two settings must be together is asked when their record is made
    for point in settings.points():
        try:
            _at(settings, point)
        except RefusedError as refusal:
            names = ", ".join(f"sweep.{key}={value}" for key, value in point.items())
            raise RefusedError(f"{names}: {refusal}") from refusal


def _check_number_of_runs(settings: Settings) -> None:
    points = num_points(settings.sweep, settings.zipped)
    seeds = settings.run.seeds
    if points * seeds > RUNS:
        raise RefusedError(
            f"seeds={seeds} with {points} point(s) of a sweep are {points * seeds} runs: "
            f"{RUNS} at most. Use fewer seeds, or sweep fewer values."
        )


def _owner(settings: Settings, owner: str) -> EntryConfig:
    """The record of a swept scalar: of 'lr' the algorithm's, of 'differ.alpha' the modifier's."""
    return settings.modifiers.get(owner) if owner else getattr(settings.algo, "hparams", None)


def _at(settings: Settings, point: dict[str, float]) -> None:
    """Make the records of a point of a sweep; raises RefusedError if they do not go together."""
    owners: dict[str, dict[str, float]] = {}
    for key, value in point.items():
        owner, _, name = key.rpartition(".")
        record = _owner(settings, owner)
        if record is not None and name in {field.name for field in dataclasses.fields(record)}:
            owners.setdefault(owner, {})[name] = value
    for owner, values in owners.items():
        record = dataclasses.replace(_owner(settings, owner), **values)
        if not owner:
            dataclasses.replace(settings.algo, hparams=record)

"""Reading what a run directory holds: bounded in size, and checked by kind.

A file may come from another person, have been edited by hand, or have been damaged on the way; none
of these may end in a traceback, nor in a value of the wrong kind that is noticed hours later. Every
complaint names file and key.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml
from yaml.nodes import Node

from jaxshare.types import RefusedError

MOST_BYTES = 16 * 2**20  # ours: of a JSON file; evaluations of a hundred runs have 50 kB
MOST_YAML_BYTES = 2**19  # ours: of settings, which have 3 kB and a custom game's payoffs
SHOWN = 60  # characters of a wrong value in a message

Content: TypeAlias = Any  # of a JSON or YAML file, which is of the kind that was asked for
AnyKind: TypeAlias = "Kind | ListOf | Record | OrNull | None"  # None: anything


@dataclass(frozen=True)
class Kind:
    """A plain value."""

    words: str
    types: tuple[type, ...]


@dataclass(frozen=True)
class ListOf:
    """A list of values of one kind."""

    item: AnyKind
    length: int | None = None


@dataclass(frozen=True)
class Record:
    """A mapping from texts to values."""

    required: Mapping[str, AnyKind] = field(default_factory=dict)  # keys that must be there
    optional: Mapping[str, AnyKind] = field(default_factory=dict)  # keys that may be
    others: AnyKind = None  # of all other keys


@dataclass(frozen=True)
class OrNull:
    """Null, or a value of a kind."""

    kind: AnyKind


TEXT = Kind("a text", (str,))
WHOLE = Kind("a whole number", (int, float))
NUMBER = Kind("a number", (int, float))
TEXT_OR_WHOLE = Kind("a text or a whole number", (str, int))
ANY = None

EVAL = Record(optional={"every": WHOLE, "episodes": WHOLE, "seed": WHOLE, "policy": TEXT})
RUN = Record(
    optional={
        "seed": WHOLE,
        "seeds": WHOLE,
        "total_env_steps": WHOLE,
        "total_updates": WHOLE,
        "data": OrNull(TEXT),
        "run_dir": OrNull(TEXT),
        "eval": EVAL,
    }
)
ORIGIN = Record(others=TEXT)
CONFIG = Record(
    required={"run": RUN, "algo": Record(), "algo_name": TEXT, "env_name": TEXT},
    optional={
        "env": OrNull(Record()),
        "modifiers": Record(others=Record()),
        "sweep": Record(others=ListOf(NUMBER)),
        "origins": Record(others=Record(others=ORIGIN)),
    },
)
VERSIONS = Record(others=TEXT)
SCORES = Record(required={"seed": WHOLE}, others=NUMBER)
PLAYED: dict[str, AnyKind] = {"checkpoint": TEXT_OR_WHOLE, "runs": ListOf(SCORES)}
EVALUATION = Record(
    required=PLAYED,
    optional={
        "episodes": OrNull(WHOLE),
        "policy": OrNull(TEXT),
        "eval_seed": OrNull(WHOLE),
        "mean": Record(others=NUMBER),
        "final": Record(required=PLAYED),
    },
)


def checkpoint_meta(runs: int) -> Record:
    """What a checkpoint of so many runs says of itself, as far as a run that goes on reads it."""
    per_run = ListOf(WHOLE, runs)
    return Record(
        optional={
            "wall_s": NUMBER,
            "metrics_bytes": WHOLE,
            "filled": WHOLE,
            "total_env_steps": WHOLE,
            "env_steps": per_run,
            "evaluated": per_run,
        }
    )


def fault(value: object, kind: AnyKind, key: str = "") -> str | None:
    """What is wrong with a value, in words that name the key, or None."""
    if kind is None:
        return None
    if isinstance(kind, OrNull):
        return None if value is None else fault(value, kind.kind, key)
    if isinstance(kind, Kind):
        return None if _fits(value, kind) else _wrong(value, kind.words, key)
    if isinstance(kind, ListOf):
        return _fault_of_list(value, kind, key)
    return _fault_of_record(value, kind, key)


def _fits(value: object, kind: Kind) -> bool:
    if not isinstance(value, kind.types) or isinstance(value, bool):
        return False
    if isinstance(value, int):
        return abs(value) < 2**63
    return not (kind is WHOLE and isinstance(value, float)) or value.is_integer()


def _fault_of_list(value: object, kind: ListOf, key: str) -> str | None:
    if not isinstance(value, list):
        return _wrong(value, "a list", key)
    if kind.length is not None and len(value) != kind.length:
        return f"{key} has {len(value)} entries instead of {kind.length}"
    for index, item in enumerate(value):
        problem = fault(item, kind.item, f"{key}[{index}]")
        if problem:
            return problem
    return None


def _fault_of_record(value: object, kind: Record, key: str) -> str | None:
    if not isinstance(value, dict):
        return _wrong(value, "a set of keys with values", key)

    # what must be there
    missing = sorted(kind.required.keys() - value.keys())
    if missing:
        return f"{missing[0]!r} is missing" + (f" in {key}" if key else "")

    # what is there
    for name, item in value.items():
        if not isinstance(name, str):
            return _wrong(name, "a text, as keys are", key)
        item_kind = kind.required.get(name, kind.optional.get(name, kind.others))
        problem = fault(item, item_kind, f"{key}.{name}" if key else name)
        if problem:
            return problem
    return None


def _wrong(value: object, words: str, key: str) -> str:
    text = "null" if value is None else repr(value)
    text = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
    return f"{key or 'its content'} is {text}, which is not {words}"


# ------------------------------------------------------------------------------------------ files


def read_text(path: pathlib.Path, most: int = MOST_BYTES) -> str:
    """The text of a file.

    Raises RefusedError if it is none, is too large, or is not UTF-8; OSError.
    """
    if path.exists() and not path.is_file():
        raise RefusedError(f"{path} cannot be read: it is no file.")
    with open(path, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise RefusedError(
            f"{path} cannot be read: it has more than {most // 1024:,} KiB, which no run writes."
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RefusedError(f"{path} cannot be read: byte {error.start} is not UTF-8.") from error


def read_json(path: pathlib.Path, kind: AnyKind, remedy: str) -> Content:
    """What a JSON file holds, of this kind. remedy: a sentence. Raises RefusedError; OSError."""
    text = read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{path} cannot be read: {first_line(error)}. {remedy}") from error
    return checked(value, kind, path, remedy)


def read_yaml(path: pathlib.Path, kind: AnyKind, remedy: str) -> Content:
    """What a YAML file holds, of this kind. Raises RefusedError; OSError."""
    text = read_text(path, MOST_YAML_BYTES)
    try:
        value = yaml.load(text, Loader=_PlainLoader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise RefusedError(f"{path} cannot be read: {line}{error.problem}. {remedy}") from error
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        raise RefusedError(f"{path} cannot be read: {first_line(error)}. {remedy}") from error
    return checked(value, kind, path, remedy)


def checked(value: Content, kind: AnyKind, where: pathlib.Path, remedy: str) -> Content:
    """The value, if it is of this kind. Raises RefusedError naming file, key and value."""
    problem = fault(value, kind)
    if problem:
        raise RefusedError(f"{where} cannot be used: {problem}. {remedy}")
    return value


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases, by which a file of 2 kB can stand for gigabytes. No run writes any."""

    def compose_node(self, parent: Node | None, index: object) -> Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.YAMLError(f"line {mark.line + 1} has an alias (*), which no run writes")
        return super().compose_node(parent, index)


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its name, without a full stop."""
    text = str(error).strip()
    line = text.splitlines()[0] if text else type(error).__name__
    return line.rstrip(".")[:200]

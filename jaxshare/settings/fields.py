"""Fields of settings: each says once what it is, where its default comes from, and what it may be.

A setting is declared where its class first names it:

    lr: float = swept(5e-4, least=0, help="learning rate of the actors", source="code: PyMARL")
    hidden_dim: int = size(64, help="width of the network", source="code: PyMARL")
    share_params: str = static("all", choices=("all", "none"), help="whose parameters agents share")

`swept` marks a scalar that `sweep.<name>=[...]` may vary between runs of one program; everything
else is static, and nothing but `swept` decides which numbers are inputs of the program.
A subclass that changes the default alone keeps all else, `lr: float = default(1e-4, "code: SEQL")`.
From this one declaration come the refusal of a value (`validate`), the same refusal for sweeps,
the line in `--help` and the row in docs/settings.md (`help`, `page`).
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias, TypedDict, TypeVar, Unpack, cast

from jaxshare.settings.ranges import Range

FreeText: TypeAlias = Any  # of `free_text`: a text, or a list of them

COUNT = 2**31 - 2**24  # room for the last iteration of a 32-bit count
UNITS = 2**16  # of a layer: its weights alone fill 17 GB
STEPS = 10**6  # of an episode

T = TypeVar("T")
Steps = TypeVar("Steps", int, int | None)
Path = TypeVar("Path", str, str | None)


# --------------------------------------------------------------------------------- declarations


@dataclass(frozen=True)
class Setting:
    """What a field says of itself, besides its type and default.

    help: one plain clause; source: where the default comes from, as "paper: QMIX section 4",
    "code: PyMARL" or "ours: why", several with semicolons; allowed: what it may be, None for true
    or false, for free text and for records; is_swept: whether runs of one program may differ in it;
    is_path: whether it names a file or folder, or a program; before: what runs had that were begun
    when there was no such setting, so that they go on as they began; None: the default.
    """

    help: str
    source: str = ""
    allowed: Range | None = None
    is_swept: bool = False
    is_path: bool = False
    before: Any = None


@dataclass(frozen=True)
class Default:
    """What a subclass says of a field with another default; without help that stays as it was."""

    source: str
    help: str = ""


class Ends(TypedDict, total=False):
    """How far a number may go; see `Range`."""

    least: float
    most: float
    above: float
    below: float
    infinite: bool


def static(
    default: T,
    *,
    help: str = "",
    source: str = "",
    choices: tuple[Any, ...] = (),
    note: str = "",
    **ends: Unpack[Ends],
) -> T:
    """A field of a dataclass that shapes the program: all runs of a command have the same.

    default: its value, None where the type allows it; help, source: see `Setting`;
    choices, note, ends (least, most, above, below): see `Range`.
    """
    return _field(default, Setting(help, source, Range(choices=choices, note=note, **ends)))


def swept(
    default: float, *, help: str = "", source: str = "", note: str = "", **ends: Unpack[Ends]
) -> float:
    """A field that is a scalar input of the program, which `sweep.<name>=[...]` may vary."""
    return _field(default, Setting(help, source, Range(note=note, **ends), is_swept=True))


def added_later(field: T, before: T) -> T:
    """The field with what runs had that were begun when there was no such setting."""
    described: dataclasses.Field[T] = cast(dataclasses.Field[T], field)
    setting = dataclasses.replace(described.metadata["setting"], before=before)
    return _field(cast(T, described.default), setting)


def size(default: int, *, help: str = "", source: str = "") -> int:
    """A field that is the number of units of a layer."""
    return static(default, least=1, most=UNITS, help=help, source=source)


def time_limit(
    default: Steps,
    *,
    help: str = "most steps of an episode",
    source: str = "",
) -> Steps:
    """A field that is the most steps of an episode."""
    return static(default, least=1, most=STEPS, help=help, source=source)


def flag(default: bool, *, help: str = "", source: str = "") -> bool:
    """A static field that is true or false."""
    return _field(default, Setting(help, source))


def free_text(default: T, *, help: str = "", source: str = "") -> T:
    """A static field of text that no list of names holds, or that only its entry can check."""
    return _field(default, Setting(help, source))


def file_path(default: Path, *, help: str = "", source: str = "") -> Path:
    """A static field that names a file or folder, or a program; ~ is the home folder in it."""
    return _field(default, Setting(help, source, is_path=True))


def text_list(*, help: str) -> list[str]:
    """A static field that is a list of texts, empty at first."""
    return dataclasses.field(default_factory=list, metadata={"setting": Setting(help)})


def free_table(*, help: str) -> dict[str, Any]:
    """A static field that is a dict with keys of any names, empty at first."""
    return dataclasses.field(default_factory=dict, metadata={"setting": Setting(help)})


def nested(config: type[T], *, help: str = "") -> T:
    """A field that is a record of further settings; without help a subclass's, of another class."""
    setting = Setting(help) if help else Default("")
    return dataclasses.field(default_factory=config, metadata={"setting": setting})


def default(value: T, source: str, *, help: str = "") -> T:
    """A field that a base declares, with another default and its source, and perhaps other help."""
    return dataclasses.field(default=value, metadata={"setting": Default(source, help)})


def _field(default: T, setting: Setting) -> T:
    return dataclasses.field(default=default, metadata={"setting": setting})


# ------------------------------------------------------------------------------------ questions


@cache
def declared(config: type) -> Mapping[str, Setting]:
    """What each field of a class of settings says of itself, by name; the nearest class decides.

    A default that a class changes without a word has no source. Other classes have no settings.
    """
    if not dataclasses.is_dataclass(config):
        return {}

    # from the farthest base on, so that the nearest class has the last word
    settings: dict[str, Setting] = {}
    for base in reversed(config.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        annotations = inspect.get_annotations(base)
        for field in dataclasses.fields(base):
            if field.name not in annotations:
                continue
            before = settings.get(field.name, Setting(""))
            declaration = field.metadata.get("setting", Default(""))
            if isinstance(declaration, Default):
                help = declaration.help or before.help
                declaration = dataclasses.replace(before, source=declaration.source, help=help)
            settings[field.name] = declaration
    return {field.name: settings[field.name] for field in dataclasses.fields(config)}


def ranges(config: type) -> dict[str, Range]:
    """The declared range of each field that has one."""
    return {name: setting.allowed for name, setting in declared(config).items() if setting.allowed}


def befores(config: type, prefix: str = "") -> dict[str, Any]:
    """What runs had before there was a setting, by its dotted name, of settings that say it."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        setting = declared(config)[field.name]
        if setting.before is not None:
            values[prefix + field.name] = setting.before
        record = field.default_factory
        if isinstance(record, type) and dataclasses.is_dataclass(record):
            values |= befores(record, f"{prefix}{field.name}.")
    return values


def swept_values(record: object) -> dict[str, float]:
    """The scalars of a record of settings that a sweep may vary, by name."""
    config: type = type(record)
    names = [name for name, setting in declared(config).items() if setting.is_swept]
    return {name: getattr(record, name) for name in names}

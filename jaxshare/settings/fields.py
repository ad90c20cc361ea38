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
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from numbers import Real
from typing import Any

COUNT = 2**31 - 2**24  # room for the last iteration of a 32-bit count
UNITS = 2**16  # of a layer: its weights alone fill 17 GB
STEPS = 10**6  # of an episode
LARGEST_INTEGER = 2**31 - 1
SMALLEST_NORMAL = 2.0**-126  # devices take what is nearer to zero for zero


@dataclass(frozen=True)
class Range:
    """What a setting may be. Numbers must be finite in 32 bits besides, as devices compute in them.

    least, most: the closed ends, None for none; above, below: the open ones; choices: all there is, instead of ends;
    note: a sentence that follows what was wrong, such as a remedy;
    infinite: whether inf is a value as well, as of a bound that is none.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] = ()
    note: str = ""
    infinite: bool = False

    def problem(self, value: Any) -> str:
        """What is wrong with a value, as 'must be at least 1', or ''. None is the type's business, not the range's."""
        if value is None:
            return ""
        if self.choices:
            names = ", ".join(str(choice) for choice in self.choices)
            return "" if value in self.choices else f"is not one of {names}"
        if not isinstance(value, Real):
            return ""
        if isinstance(value, int):
            return "" if self._holds(value) and abs(value) <= LARGEST_INTEGER else f"must {self._ends(whole=True)}"
        if self.infinite and value == math.inf:
            return ""
        rounded = in_32_bits(float(value))
        if not math.isfinite(rounded):
            ends = self._ends()
            number = "inf, or finite in 32 bits," if self.infinite else "finite in 32 bits"
            return f"must be {number}{'' if ends == 'be finite' else f' and must {ends}'}"
        if not self._holds(float(value)):
            return f"must {self._ends()}"
        return "" if self._holds(rounded) else f"is {rounded:g} in 32 bits, but must {self._ends()}"

    def _holds(self, value: float) -> bool:
        return not (
            (self.least is not None and value < self.least)
            or (self.most is not None and value > self.most)
            or (self.above is not None and value <= self.above)
            or (self.below is not None and value >= self.below)
        )

    def _ends(self, whole: bool = False) -> str:
        """The ends in words, after 'must'. An end at zero alone has words of its own where numbers are not whole."""
        low = self.least if self.above is None else self.above
        high = self.most if self.below is None else self.below
        if whole and high is None:
            high = LARGEST_INTEGER
        if low is None and high is None:
            return "be finite"
        if (self.above is None) != (self.below is None) and low is not None and high is not None:
            left = "[" if self.above is None else "("
            right = "]" if self.below is None else ")"
            return f"be in {left}{low:.10g}, {high:.10g}{right}"
        if not whole and (low, high) == (0, 1):
            return f"be between 0 and 1{'' if self.above is None else ', and neither of them'}"
        if low == 0 and high is None:
            return "not be negative" if self.above is None else "be positive"
        words = []
        if low is not None:
            words.append(f"{'at least' if self.above is None else 'above'} {low:.10g}")
        if high is not None:
            words.append(f"{'at most' if self.below is None else 'below'} {high:.10g}")
        return f"be {' and '.join(words)}"


def in_32_bits(value: float) -> float:
    """A number as a device has it: inf where 32 bits cannot hold it, 0 where it is too near to zero."""
    try:
        rounded = struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)
    return 0.0 if abs(rounded) < SMALLEST_NORMAL else rounded


# --------------------------------------------------------------------------------- declarations


@dataclass(frozen=True)
class Setting:
    """What a field says of itself, besides its type and default.

    help: one plain clause; source: where the default comes from, as "paper: QMIX section 4",
    "code: PyMARL" or "ours: why", several with semicolons; allowed: what it may be, None for true
    or false, for free text and for records; is_swept: whether runs of one program may differ in it;
    is_path: whether it names a file or folder, or a program.
    """

    help: str
    source: str = ""
    allowed: Range | None = None
    is_swept: bool = False
    is_path: bool = False


@dataclass(frozen=True)
class Default:
    """What a subclass says of a field with another default; without help that stays as it was."""

    source: str
    help: str = ""


def static(
    default: Any,
    *,
    help: str = "",
    source: str = "",
    choices: tuple[Any, ...] = (),
    note: str = "",
    **ends: Any,
) -> Any:
    """A field of a dataclass that shapes the program: all runs of a command have the same.

    default: its value, None where the type allows it; help, source: see `Setting`;
    choices, note, ends (least, most, above, below): see `Range`.
    """
    return _field(default, Setting(help, source, Range(choices=choices, note=note, **ends)))


def swept(default: float, *, help: str = "", source: str = "", note: str = "", **ends: Any) -> Any:
    """A field of a dataclass that is a scalar input of the program, which `sweep.<name>=[...]` may vary."""
    return _field(default, Setting(help, source, Range(note=note, **ends), is_swept=True))


def size(default: int, *, help: str = "", source: str = "") -> Any:
    """A field that is the number of units of a layer."""
    return static(default, least=1, most=UNITS, help=help, source=source)


def time_limit(
    default: int | None,
    *,
    help: str = "most steps of an episode",
    source: str = "",
) -> Any:
    """A field that is the most steps of an episode."""
    return static(default, least=1, most=STEPS, help=help, source=source)


def flag(default: bool, *, help: str = "", source: str = "") -> Any:
    """A static field that is true or false."""
    return _field(default, Setting(help, source))


def free_text(default: Any, *, help: str = "", source: str = "") -> Any:
    """A static field of text that no list of names holds, or that only an entry itself can check."""
    return _field(default, Setting(help, source))


def file_path(default: str | None, *, help: str = "", source: str = "") -> Any:
    """A static field that names a file or folder, or a program; ~ is the home folder in it."""
    return _field(default, Setting(help, source, is_path=True))


def text_list(*, help: str) -> Any:
    """A static field that is a list of texts, empty at first."""
    return dataclasses.field(default_factory=list, metadata={"setting": Setting(help)})


def free_table(*, help: str) -> Any:
    """A static field that is a dict with keys of any names, empty at first."""
    return dataclasses.field(default_factory=dict, metadata={"setting": Setting(help)})


def nested(config: type, *, help: str = "") -> Any:
    """A field that is a record of further settings; without help a subclass's, of another class."""
    setting = Setting(help) if help else Default("")
    return dataclasses.field(default_factory=config, metadata={"setting": setting})


def default(value: Any, source: str, *, help: str = "") -> Any:
    """A field that a base declares, with another default and its source, and perhaps other help."""
    return dataclasses.field(default=value, metadata={"setting": Default(source, help)})


def _field(default: Any, setting: Setting) -> Any:
    return dataclasses.field(default=default, metadata={"setting": setting})


# ------------------------------------------------------------------------------------ questions


@cache
def declared(config: type) -> Mapping[str, Setting]:
    """What each field of a class of settings says of itself, by name; the nearest class decides.

    A default that a class changes without a word has no source.
    """
    settings: dict[str, Setting] = {}
    for base in reversed(config.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        fields = {field.name: field for field in dataclasses.fields(base)}
        for name in fields.keys() & inspect.get_annotations(base).keys():
            declaration = fields[name].metadata.get("setting", Default(""))
            before = settings.get(name, Setting(""))
            if isinstance(declaration, Default):
                settings[name] = dataclasses.replace(
                    before, source=declaration.source, help=declaration.help or before.help
                )
            else:
                settings[name] = declaration
    return settings


def ranges(config: type) -> dict[str, Range]:
    """The declared range of each field that has one."""
    return {name: setting.allowed for name, setting in declared(config).items() if setting.allowed}


def swept_values(record: Any) -> dict[str, float]:
    """The scalars of a record of settings that a sweep may vary, by name."""
    config: type = type(record)
    names = [name for name, setting in declared(config).items() if setting.is_swept]
    return {name: getattr(record, name) for name in names}

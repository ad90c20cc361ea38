"""Fields of settings that say which values they take: the range of a number, the vocabulary of a name.

A setting is declared once, where its class first names it:

    lr: float = swept(5e-4, least=0)  # of the actors
    hidden_dim: int = size(64)
    share_params: str = static("all", choices=("all", "type", "none"))

A subclass that changes the default alone, `lr: float = 1e-4`, keeps the range. `swept` marks a scalar that
`sweep.<name>=[...]` may vary between runs of one program; everything else is static. `validate` checks the values.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import struct
from dataclasses import dataclass
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
    note: a sentence that follows what was wrong, such as a remedy; swept: whether runs of one program may differ in it;
    infinite: whether inf is a value as well, as of a bound that is none.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] = ()
    note: str = ""
    swept: bool = False
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


# ------------------------------------------------------------------------------------------------------- declarations


def static(default: Any, *, choices: tuple[Any, ...] = (), note: str = "", **ends: Any) -> Any:
    """A field of a dataclass that shapes the program: all runs of a command have the same.

    default: its value, None where the type allows it; choices, note, ends (least, most, above, below): see `Range`.
    """
    return _field(default, Range(choices=choices, note=note, **ends))


def swept(default: float, *, note: str = "", **ends: Any) -> Any:
    """A field of a dataclass that is a scalar input of the program, which `sweep.<name>=[...]` may vary."""
    return _field(default, Range(note=note, swept=True, **ends))


def size(default: int) -> Any:
    """A field that is the number of units of a layer."""
    return static(default, least=1, most=UNITS)


def time_limit(default: int | None) -> Any:
    """A field that is the most steps of an episode."""
    return static(default, least=1, most=STEPS)


def _field(default: Any, allowed: Range) -> Any:
    return dataclasses.field(default=default, metadata={"range": allowed})


# ---------------------------------------------------------------------------------------------------------- questions


def ranges(config: type) -> dict[str, Range]:
    """The declared range of each field that has one; the nearest class that declares one decides."""
    declared: dict[str, Range] = {}
    for base in reversed(config.__mro__):
        if dataclasses.is_dataclass(base):
            fields = {field.name: field for field in dataclasses.fields(base)}
            named_here = fields.keys() & inspect.get_annotations(base).keys()
            declared |= {
                name: fields[name].metadata["range"] for name in named_here if "range" in fields[name].metadata
            }
    return declared


def swept_values(record: Any) -> dict[str, float]:
    """The scalars of a record of settings that a sweep may vary, by name."""
    return {name: getattr(record, name) for name, allowed in ranges(type(record)).items() if allowed.swept}

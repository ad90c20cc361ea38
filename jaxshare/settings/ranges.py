"""What a number may be, and what a name may be, in words that a refusal uses."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from numbers import Real
from typing import Any

LARGEST_INTEGER = 2**31 - 1
SMALLEST_NORMAL = 2.0**-126  # devices take what is nearer to zero for zero


@dataclass(frozen=True)
class Range:
    """What a setting may be. Numbers must be finite in 32 bits besides, as devices compute in them.

    least, most: the closed ends, None for none; above, below: the open ones;
    choices: all there is, instead of ends;
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

    def problem(self, value: object) -> str:
        """What is wrong with a value, as 'must be at least 1', or ''.

        None is the type's business, not the range's.
        """
        if value is None:
            return ""
        if self.choices:
            names = ", ".join(str(choice) for choice in self.choices)
            return "" if value in self.choices else f"is not one of {names}"
        if isinstance(value, int):
            fits = self._holds(value) and abs(value) <= LARGEST_INTEGER
            return "" if fits else f"must {self._ends(whole=True)}"
        return self._problem_of_real(float(value)) if isinstance(value, Real) else ""

    def _problem_of_real(self, value: float) -> str:
        if self.infinite and value == math.inf:
            return ""
        ends = self._ends()

        # beyond what 32 bits hold
        rounded = in_32_bits(value)
        if not math.isfinite(rounded):
            number = "inf, or finite in 32 bits," if self.infinite else "finite in 32 bits"
            rest = "" if ends == "be finite" else f" and must {ends}"
            return f"must be {number}{rest}"

        # beyond the ends, perhaps only as it is rounded
        if not self._holds(value):
            return f"must {ends}"
        return "" if self._holds(rounded) else f"is {rounded:g} in 32 bits, but must {ends}"

    def _holds(self, value: float) -> bool:
        """Whether a value is not beyond one of the ends."""
        if self.least is not None and value < self.least:
            return False
        if self.most is not None and value > self.most:
            return False
        if self.above is not None and value <= self.above:
            return False
        return not (self.below is not None and value >= self.below)

    def _ends(self, whole: bool = False) -> str:
        """The ends in words, after 'must'.

        An end at zero alone has words of its own where numbers are not whole.
        """
        low = self.least if self.above is None else self.above
        high = self.most if self.below is None else self.below
        if whole and high is None:
            high = LARGEST_INTEGER
        if low is None and high is None:
            return "be finite"

        # one open end and one closed one
        if (self.above is None) != (self.below is None) and low is not None and high is not None:
            left = "[" if self.above is None else "("
            right = "]" if self.below is None else ")"
            return f"be in {left}{low:.10g}, {high:.10g}{right}"

        # ends that have words of their own
        if not whole and (low, high) == (0, 1):
            return f"be between 0 and 1{'' if self.above is None else ', and neither of them'}"
        if low == 0 and high is None:
            return "not be negative" if self.above is None else "be positive"

        # all others
        words = []
        if low is not None:
            words.append(f"{'at least' if self.above is None else 'above'} {low:.10g}")
        if high is not None:
            words.append(f"{'at most' if self.below is None else 'below'} {high:.10g}")
        return f"be {' and '.join(words)}"


def in_32_bits(value: float) -> float:
    """A number as a device has it: inf beyond 32 bits, 0 where it is too near to zero."""
    try:
        rounded = struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)
    return 0.0 if abs(rounded) < SMALLEST_NORMAL else rounded

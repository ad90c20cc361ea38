"""What is searched: ranges and lists, each held to the range that its setting declares.

log(1e-4,1e-2)     between two numbers, evenly on a logarithmic scale
uniform(0.9,0.99)  between two numbers; whole ones where the setting is whole
[a,b,c]            one of these
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TypeAlias

from jaxshare.settings.records import Settings
from jaxshare.settings.validate import check_value
from jaxshare.tune.keys import Place, place_of
from jaxshare.types import RefusedError

Value: TypeAlias = bool | int | float | str
RANGE = re.compile(r"(uniform|log)\(([^,]+),([^,]+)\)")
EXAMPLES = "log(1e-4,1e-2), uniform(0.9,0.99) or [0.1,0.2]"
WORDS = {"true": True, "false": False}


@dataclass(frozen=True)
class Parameter:
    """A setting that is searched: between two ends, or one of several choices."""

    place: Place
    text: str  # as it was asked for
    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False

    @property
    def key(self) -> str:
        """Its name, as in search.KEY."""
        return self.place.key

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are proposed."""
        return isinstance(self.place.value, int)

    @property
    def ends(self) -> tuple[Value, ...]:
        """The outermost values, or all choices."""
        return self.choices or (self.low, self.high)


def parameter(key: str, text: str, settings: Settings) -> Parameter:
    """What `search.KEY=TEXT` asks for. Raises RefusedError naming key, value and fix."""
    place = place_of(key, text, settings)
    what = f"search.{key}={text}"
    compact = text.replace(" ", "")
    match = RANGE.fullmatch(compact)
    if match:
        low = _number(what, match[2], place)
        high = _number(what, match[3], place)
        if not low < high:
            raise RefusedError(f"{what}: the first number must be below the second.")
        if match[1] == "log" and low <= 0:
            raise RefusedError(f"{what}: a logarithm needs positive numbers. Use uniform(…).")
        searched = Parameter(place, text, low=low, high=high, is_log=match[1] == "log")
    elif compact.startswith("[") and compact.endswith("]"):
        words = [word.strip().strip("'\"") for word in text.strip()[1:-1].split(",")]
        choices = tuple(_value(what, word, place) for word in words)
        if len(set(choices)) < len(choices):
            raise RefusedError(f"{what} names a value twice: give each value once.")
        searched = Parameter(place, text, choices=choices)
    else:
        raise RefusedError(f"{what} must be a range or a list: {EXAMPLES}.")

    # the setting's own range
    for value in searched.ends:
        if place.allowed is not None:
            check_value(f"search.{key}", value, place.allowed)
    return searched


def _value(what: str, word: str, place: Place) -> Value:
    """One choice, of the setting's type."""
    if isinstance(place.value, bool):
        if word not in WORDS:
            raise RefusedError(f"{what}: {word} is neither true nor false.")
        return WORDS[word]
    return word if isinstance(place.value, str) else _number(what, word, place)


def _number(what: str, word: str, place: Place) -> float:
    """A number, whole where the setting is."""
    if isinstance(place.value, bool | str):
        raise RefusedError(f"{what}: the setting is no number. Give a list of values.")
    try:
        number = Decimal(word)  # exact, so that 1e2 is a whole number
    except InvalidOperation as error:
        raise RefusedError(
            f"{what}: {word or 'nothing'} is no number, as in {EXAMPLES}."
        ) from error
    if not math.isfinite(number):
        raise RefusedError(f"{what}: {word} must be finite.")
    if not isinstance(place.value, int):
        return float(number)
    if number != number.to_integral_value():
        raise RefusedError(f"{what}: {word} must be a whole number.")
    return int(number)

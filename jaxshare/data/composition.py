"""Who acts in a data set: a level for every agent, and shares of such teams.

Source: Tian et al. 2023 (SIT), appendices C.2 and C.3. A composition names one level per agent, r,
m or e, in the order of the agents: "reree". Components are joined by "+", each with a share before
it or all with equal ones: "rrr + rrm", "99.5% rrrrr + 0.5% mmmmm". "r*10" is ten times r; spaces
between letters mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import NoReturn

from jaxshare.data.records import LEVELS
from jaxshare.types import RefusedError

LETTERS = "rme"
MOST_AGENTS = 1000  # ours: a longer "r*..." is a slip of the keyboard


@dataclass(frozen=True)
class Component:
    """One kind of episode."""

    share: Fraction  # of the episodes
    levels: tuple[int, ...]  # one per agent: index into LEVELS

    def __str__(self) -> str:
        return "".join(LETTERS[level] for level in self.levels)


@dataclass(frozen=True)
class Composition:
    """Kinds of episodes whose shares add up to 1."""

    components: tuple[Component, ...]

    @property
    def num_agents(self) -> int:
        """N."""
        return len(self.components[0].levels)

    def counts(self, episodes: int) -> tuple[int, ...]:
        """How many of a number of episodes each component gets.

        The nearest whole numbers that add up to it, by largest remainders; the earlier component
        goes first where they are equal.
        """
        exact = [component.share * episodes for component in self.components]
        counts = [int(x) for x in exact]
        by_remainder = sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])
        for i in by_remainder[: episodes - sum(counts)]:
            counts[i] += 1
        return tuple(counts)

    def __str__(self) -> str:
        equal = all(component.share == self.components[0].share for component in self.components)
        return " + ".join(str(c) if equal else f"{_percent(c.share)}% {c}" for c in self.components)


def describe(composition: Composition) -> str:
    """A composition in words, for cards and messages."""
    parts = []
    for component in composition.components:
        levels = sorted(set(component.levels))
        counts = [f"{component.levels.count(level)} {LEVELS[level]}" for level in levels]
        parts.append(f"{_percent(component.share)}%: {', '.join(counts)}")
    return "; ".join(parts)


def _percent(share: Fraction) -> str:
    """A share in per cent, exact if it has few decimals."""
    return f"{float(share * 100):.10g}"


# ----------------------------------------------------------------------------------------- reading


def parse(text: str, num_agents: int | None = None) -> Composition:
    """A composition from its string, for `num_agents` agents.

    Raises RefusedError that points at what is wrong.
    """
    # components, one after the other
    parser = _Parser(text)
    parsed = [parser.component()]
    while not parser.at_end():
        if parser.peek() != "+":
            parser.fail("is neither a level (r random, m medium, e expert) nor '+'")
        parser.at += 1
        parsed.append(parser.component())

    # which go together
    first = parsed[0]
    agents = len(first.levels)
    for part in parsed:
        if len(part.levels) != agents:
            sizes = f"begins {len(part.levels)} levels, but the first component has {agents}"
            parser.fail(sizes, part.begin)
        if (part.share is None) != (first.share is None):
            what = "begins a component with a share beside one without: give all shares or none"
            parser.fail(what, part.begin)
    if num_agents is not None and agents != num_agents:
        raise RefusedError(
            f"composition={text} is for {agents} agents, the environment has {num_agents}."
        )

    # and are the whole
    equal = Fraction(1, len(parsed))
    shares = [equal if part.share is None else part.share for part in parsed]
    if sum(shares) != 1:
        percent = _percent(sum(shares, Fraction(0)))
        raise RefusedError(f"composition={text}: the shares add up to {percent}%, not 100%.")
    pairs = zip(shares, parsed, strict=True)
    return Composition(tuple(Component(share, part.levels) for share, part in pairs))


@dataclass(frozen=True)
class _Parsed:
    """A component as it is written."""

    begin: int  # its first character
    share: Fraction | None
    levels: tuple[int, ...]


class _Parser:
    """Reads a composition from left to right; `at` is the next character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def fail(self, what: str, at: int | None = None) -> NoReturn:
        """Raise RefusedError with a caret below a character, by default the next one."""
        at = self.at if at is None else at
        character = f"'{self.text[at]}'" if at < len(self.text) else "the end"
        caret = f"  {self.text}\n  {' ' * at}^"
        raise RefusedError(
            f"composition={self.text}: {character} (character {at + 1}) {what}.\n{caret}\n"
            "Write levels in the order of the agents, as in rrr + rrm, 99.5% rrrrr + 0.5% mmmmm or "
            "r*10 + m*10."
        )

    def at_end(self) -> bool:
        """Whether only spaces are left."""
        return not self.peek()

    def peek(self) -> str:
        """The next character that is no space, or ''."""
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1
        return self.text[self.at : self.at + 1]

    def number(self, allowed: str) -> str:
        """The characters from here on that belong to a number."""
        begin = self.at
        while self.text[self.at : self.at + 1] and self.text[self.at] in allowed:
            self.at += 1
        return self.text[begin : self.at]

    def component(self) -> _Parsed:
        """A share, if there is one, and levels."""
        share = None
        self.peek()
        begin = self.at
        if self.peek() and self.peek() in "0123456789.":
            share = self.share()

        # letters, perhaps with "*" and a number
        levels: list[int] = []
        while self.peek() and self.peek() in LETTERS:
            level = LETTERS.index(self.peek())
            self.at += 1
            levels += [level] * (self.times() if self.peek() == "*" else 1)
        if not levels:
            self.fail("stands where a level was expected (r random, m medium, e expert)")
        return _Parsed(begin, share, tuple(levels))

    def share(self) -> Fraction:
        """A percentage."""
        begin = self.at
        digits = self.number("0123456789.")
        if self.peek() != "%":
            self.fail("stands where the % of a share was expected")
        self.at += 1
        try:
            share = Fraction(digits) / 100
        except ValueError:
            self.fail(f"begins {digits}, which is no number", begin)
        if not 0 < share <= 1:
            self.fail(f"begins {digits}%, which is not above 0% and at most 100%", begin)
        return share

    def times(self) -> int:
        """The number behind a '*'."""
        self.at += 1
        self.peek()
        begin = self.at
        digits = self.number("0123456789")
        if not digits:
            self.fail("stands where a whole number was expected")
        if not 1 <= int(digits[:9]) <= MOST_AGENTS or len(digits) > 9:
            self.fail(f"begins {digits}, which is not from 1 to {MOST_AGENTS} agents", begin)
        return int(digits)

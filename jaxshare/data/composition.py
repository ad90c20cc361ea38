"""Who acts in a data set: pools of policies by their return, compositions per agent, and those of SIT's tables.

Source: Tian et al. 2023 (SIT), appendices C.2 and C.3. With R_lo the return of a random policy, R_hi of the best one
and W = R_hi - R_lo, checkpoints belong to pools by their return R:

    random: R < c_1,   medium: c_1 <= R < c_2,   expert: c_2 <= R                               (tables 4-6)
    c_1 = R_lo + 0.3 W, c_2 = R_lo + 0.7 W   in SMAC and MPE;  c_1 = R_lo + W/3, c_2 = R_lo + 2W/3   in MAMuJoCo

    quality = (mean return - R_lo) / W; the paper's low sets lie in [.04, .28], its medium ones in [.35, .61]

paper: prints the cuts only; the two rules reproduce them to 0.02. ours: the rule is to be used on returns measured in
the environments that exist here; a return on a cut belongs to the better pool.

A composition names one level per agent, r, m or e, in the order of the agents: "reree". Components are joined by "+",
each with a share before it or all with equal ones: "rrr + rrm", "99.5% rrrrr + 0.5% mmmmm". "r*10" is ten times r;
spaces between letters mean nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NoReturn

import numpy as np

from jaxshare.data.records import LEVELS, Array
from jaxshare.registry import one_of
from jaxshare.types import RefusedError

LETTERS = "rme"
RULES = {  # paper: SIT tables 4-6
    "30/40/30": (Fraction(3, 10), Fraction(7, 10)),
    "thirds": (Fraction(1, 3), Fraction(2, 3)),
}
WINDOWS = {
    "low": (0.04, 0.28),
    "medium": (0.35, 0.61),
}  # paper: SIT tables 7-9, normalised and rounded outwards
MOST_AGENTS = 1000  # ours: a longer "r*..." is a slip of the keyboard


# ---------------------------------------------------------------------------------------------------------------- pools


@dataclass(frozen=True)
class Pools:
    """Returns between which policies lie, and where the pools are cut."""

    low: float  # of a random policy
    high: float  # of the best policy
    cuts: tuple[float, float]  # random | medium | expert

    def level(self, returns: Sequence[float] | Array) -> Array:
        """Level of each return, i8 of the same shape: an index into LEVELS."""
        return np.searchsorted(np.asarray(self.cuts), np.asarray(returns), side="right").astype(
            np.int8
        )

    def quality(self, returns: float) -> float:
        """Normalised score (R - R_lo) / W."""
        return quality(returns, self.low, self.high)


def thresholds(low: float, high: float, rule: str = "30/40/30") -> Pools:
    """Pools between two returns by a rule. Raises RefusedError unless low < high."""
    one_of("rule", rule, RULES)
    _ordered(low, high)
    first, second = (low + float(share) * (high - low) for share in RULES[rule])
    return Pools(low, high, (first, second))


def rule_of(environment: str) -> str:
    """The rule that the paper follows in an environment."""
    return "thirds" if environment == "mamujoco" else "30/40/30"


def quality(returns: float, low: float, high: float) -> float:
    """Normalised score of a mean return: 0 like a random policy, 1 like the best. Raises unless low < high."""
    _ordered(low, high)
    return (returns - low) / (high - low)


def within(kind: str, score: float) -> bool:
    """Whether a normalised quality lies in the window of the paper's "low" or "medium" data sets, ends included."""
    one_of("quality", kind, WINDOWS)
    low, high = WINDOWS[kind]
    return low <= score <= high


def _ordered(low: float, high: float) -> None:
    if not low < high:  # also where one is nan
        raise RefusedError(
            f"The best return, {high}, is not above that of a random policy, {low}. Train it "
            "longer."
        )


# --------------------------------------------------------------------------------------------------------- compositions


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
        """How many of a number of episodes each component gets: the nearest whole numbers that add up to it.

        Largest remainders; the earlier component goes first where they are equal.
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


def parse(text: str, num_agents: int | None = None) -> Composition:
    """A composition from its string, for `num_agents` agents. Raises RefusedError that points at what is wrong."""
    parser = _Parser(text)
    parsed = [parser.component()]
    while not parser.at_end():
        if parser.peek() != "+":
            parser.fail("is neither a level (r random, m medium, e expert) nor '+'")
        parser.at += 1
        parsed.append(parser.component())
    first = parsed[0]
    for begin, share, levels in parsed:
        if len(levels) != len(first[2]):
            parser.fail(
                f"begins {len(levels)} levels, but the first component has {len(first[2])}", begin
            )
        if (share is None) != (first[1] is None):
            parser.fail(
                "begins a component with a share beside one without: give all shares or none", begin
            )
    if num_agents is not None and len(first[2]) != num_agents:
        raise RefusedError(
            f"composition={text} is for {len(first[2])} agents, the environment has {num_agents}."
        )
    shares = [Fraction(1, len(parsed)) if share is None else share for _, share, _ in parsed]
    if sum(shares) != 1:
        raise RefusedError(
            f"composition={text}: the shares add up to {_percent(sum(shares, Fraction(0)))}%, not "
            "100%."
        )
    return Composition(
        tuple(
            Component(share, levels) for share, (_, _, levels) in zip(shares, parsed, strict=True)
        )
    )


class _Parser:
    """Reads a composition from left to right; `at` is the next character."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def fail(self, what: str, at: int | None = None) -> NoReturn:
        """Raise RefusedError with a caret below a character, by default the next one."""
        at = self.at if at is None else at
        shown = f"'{self.text[at]}'" if at < len(self.text) else "the end"
        raise RefusedError(
            f"composition={self.text}: {shown} (character {at + 1}) {what}.\n  {self.text}\n  {' ' * at}^\n"
            "Write levels in the order of the agents, as in rrr + rrm, 99.5% rrrrr + 0.5% mmmmm or r*10 + m*10."
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

    def component(self) -> tuple[int, Fraction | None, tuple[int, ...]]:
        """(first character, share or None, levels)."""
        share = None
        self.peek()
        begin = self.at
        if self.peek() and self.peek() in "0123456789.":
            share = self.share()
        levels: list[int] = []
        while self.peek() and self.peek() in LETTERS:
            level = LETTERS.index(self.peek())
            self.at += 1
            levels += [level] * (self.times() if self.peek() == "*" else 1)
        if not levels:
            self.fail("stands where a level was expected (r random, m medium, e expert)")
        return begin, share, tuple(levels)

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


def _percent(share: Fraction) -> str:
    """A share in per cent, exact if it has few decimals."""
    return f"{float(share * 100):.10g}"


# ------------------------------------------------------------------------------------------------------ those of SIT


@dataclass(frozen=True)
class Preset:
    """A data set of the paper."""

    composition: str
    confidence: str  # high: clear in the text; inferred: from the text against the table; low, wrong: see the note
    average: float | None = None  # the paper's mean return
    note: str = ""


PAPER_POOLS = {  # paper: SIT tables 4-6, as printed
    ("mpe", "CN_3ls3l"): Pools(-174.41, -37.32, (-133.28, -78.44)),
    ("mpe", "CN_4ls4l"): Pools(-288.89, -40.81, (-214.47, -115.24)),
    ("mpe", "PP_3p1p"): Pools(-306.57, -54.96, (-231.08, -130.44)),
    ("mamujoco", "HalfCheetah_2l"): Pools(-203.47, 198.70, (-69.42, 64.63)),
    ("mamujoco", "Walker_2l"): Pools(-74.51, 231.09, (27.35, 129.21)),
} | {
    ("smax", name): Pools(0.0, 20.0, (6.0, 14.0))
    for name in ("2s_vs_1sc", "3s_vs_5z", "2s3z", "8m", "1c3s5z", "10m_vs_11m")
}

UNCERTAIN = "The table's letters are uncertain in our copy of the paper."
MEDIUM_HALF = "A team of medium policies alone returns 6 or more, so the printed half of it hardly fits the average."
PRESETS: dict[tuple[str, str], dict[str, Preset]] = {  # paper: SIT tables 7-9; 10000 episodes each
    ("smax", "2s_vs_1sc"): {"low": Preset("rr + rm", "high", 2.84), "medium": Preset("re", "high", 9.86)},
    ("smax", "3s_vs_5z"): {"low": Preset("rrr + rrm", "high", 2.94), "medium": Preset("rre", "high", 7.06)},
    ("smax", "2s3z"): {
        "low": Preset(
            "rrrrr + rmrmm", "inferred", 3.24,
            "Table 7 prints mmmmm as the second half, the text reree + rmrmm. The text's first "
            "half is the whole medium set, which alone returns 7.04; figure 3 has the first "
            "stalker and zealot random throughout.",
        ),
        "medium": Preset("reree", "high", 7.04),
        "extreme": Preset("99.5% rrrrr + 0.5% mmmmm", "high"),
        "balanced_random": Preset("rrrrr", "high", note="Figure 4c; one data set for each level."),
        "balanced_medium": Preset("mmmmm", "high", note="Figure 4c; one data set for each level."),
        "balanced_expert": Preset("eeeee", "high", note="Figure 4c; one data set for each level."),
    },
    ("smax", "8m"): {
        "low": Preset("r*8 + m*8", "low", 3.10, MEDIUM_HALF),
        "medium": Preset("r e*7", "low", 9.85, UNCERTAIN),
    },
    ("smax", "1c3s5z"): {
        "low": Preset("r*9 + m*9", "low", 5.56, UNCERTAIN),
        "medium": Preset("e rre rrrre", "low", 10.31, UNCERTAIN),
    },
    ("smax", "10m_vs_11m"): {
        "low": Preset("r*10 + m*10", "low", 3.82, MEDIUM_HALF),
        "medium": Preset(
            "e*10", "wrong", 9.23,
            "A team of experts alone returns 14 or more, so some agents must have been random: "
            "vary their number until the quality lies in its window.",
        ),
    },
    ("mpe", "CN_3ls3l"): {"low": Preset("rrr + rrm", "high", -157.70), "medium": Preset("rme", "high", -107.46)},
    ("mpe", "CN_4ls4l"): {"low": Preset("rrrr + rrrm", "high", -278.40), "medium": Preset("rree", "high", -166.26)},
    ("mpe", "PP_3p1p"): {"low": Preset("rrr + rrm", "high", -249.58), "medium": Preset("rme", "high", -155.46)},
    ("mamujoco", "HalfCheetah_2l"): {
        "low": Preset("rm", "inferred", -110.52, "Our copy of table 9 prints m and l; Walker_2l has rm."),
        "medium": Preset("re", "high", 41.79),
    },
    ("mamujoco", "Walker_2l"): {"low": Preset("rm", "high", -21.67), "medium": Preset("re", "high", 71.68)},
}  # fmt: skip


def preset(environment: str, scenario: str, name: str) -> Preset:
    """A data set of the paper by environment, scenario and name. Raises RefusedError with those that there are."""
    tasks = [task for kind, task in PRESETS if kind == environment]
    if not tasks:
        kinds = ", ".join(sorted({kind for kind, _ in PRESETS}))
        raise RefusedError(
            f"env={environment}: the paper has no data set for it, only for {kinds}. Write a "
            "composition."
        )
    one_of("env.scenario", scenario, tasks)
    one_of("composition", name, PRESETS[environment, scenario])
    return PRESETS[environment, scenario][name]


def describe(composition: Composition) -> str:
    """A composition in words, for cards and messages."""
    parts = [
        f"{_percent(c.share)}%: "
        + ", ".join(f"{c.levels.count(i)} {LEVELS[i]}" for i in sorted(set(c.levels)))
        for c in composition.components
    ]
    return "; ".join(parts)

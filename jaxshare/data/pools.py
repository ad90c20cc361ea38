"""Pools of policies by their return, and the quality of a data set.

Source: Tian et al. 2023 (SIT), appendices C.2 and C.3. With R_lo the return of a random policy,
R_hi of the best one and W = R_hi - R_lo, checkpoints belong to pools by their return R:

    random: R < c_1,   medium: c_1 <= R < c_2,   expert: c_2 <= R               (tables 4-6)
    c_1 = R_lo + 0.3 W, c_2 = R_lo + 0.7 W      in SMAC and MPE
    c_1 = R_lo + W/3,   c_2 = R_lo + 2W/3       in MAMuJoCo

    quality = (mean return - R_lo) / W

The paper's low sets lie in [.04, .28], its medium ones in [.35, .61].

paper: prints the cuts only; the two rules reproduce them to 0.02. ours: the rule is to be used on
returns measured in the environments that exist here; a return on a cut belongs to the better pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from jaxshare.data.records import Array
from jaxshare.registry import one_of
from jaxshare.types import RefusedError

RULES = {  # paper: SIT tables 4-6
    "30/40/30": (Fraction(3, 10), Fraction(7, 10)),
    "thirds": (Fraction(1, 3), Fraction(2, 3)),
}
WINDOWS = {  # paper: SIT tables 7-9, normalised and rounded outwards
    "low": (0.04, 0.28),
    "medium": (0.35, 0.61),
}


@dataclass(frozen=True)
class Pools:
    """Returns between which policies lie, and where the pools are cut."""

    low: float  # of a random policy
    high: float  # of the best policy
    cuts: tuple[float, float]  # random | medium | expert

    def level(self, returns: Sequence[float] | Array) -> Array:
        """Level of each return, an index into LEVELS.

        returns: [...], of any shape.
        Returns [...] i8.
        """
        levels = np.searchsorted(np.asarray(self.cuts), np.asarray(returns), side="right")
        return levels.astype(np.int8)

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
    """Normalised score of a mean return: 0 like a random policy, 1 like the best.

    Raises RefusedError unless low < high.
    """
    _ordered(low, high)
    return (returns - low) / (high - low)


def within(kind: str, score: float) -> bool:
    """Whether a quality lies in the window of the paper's "low" or "medium" sets, ends included."""
    one_of("quality", kind, WINDOWS)
    low, high = WINDOWS[kind]
    return low <= score <= high


def _ordered(low: float, high: float) -> None:
    if not low < high:  # also where one is nan
        raise RefusedError(
            f"The best return, {high}, is not above that of a random policy, {low}. Train it "
            "longer."
        )

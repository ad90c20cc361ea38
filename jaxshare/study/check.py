"""Checks of a study: what is compared, and the rule that decides; part of `language`."""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.results.statistics import AGGREGATES
from jaxshare.study import kinds
from jaxshare.study.reading import key

TWO_ARMS = ("greater", "equal")
COMPARE = (*TWO_ARMS, "at_least", "above", "at_most")
SCORES = ("final", "curve")


@dataclass(frozen=True)
class Series:
    """A logged number over the later part of a run."""

    name: str = key("the number, as metrics.jsonl calls it", kinds.text)
    since: float = key("from which share of the run on", kinds.number, 0.5, name="from")
    against: str | None = key(
        "what it is set against: `begin` (its first twentieth), `peak`, or another logged number",
        kinds.text,
        None,
    )
    by: str = key("`ratio` or `difference` to that", kinds.choice("ratio", "difference"), "ratio")
    plus: list[str] = key(
        "other logged numbers that are added to it", kinds.listing(kinds.text), []
    )


@dataclass(frozen=True)
class Steps:
    """How long a run takes until it is good enough."""

    level: float = key("the level of the evaluated metric that must be reached", kinds.number)
    as_power: bool = key(
        "the logarithm to base 2 instead, so that a difference of 1 is twice the steps",
        kinds.flag,
        False,
    )


@dataclass(frozen=True)
class Quantity:
    """What a check compares, one number for each seed. Nothing said: the study's score."""

    score: str | None = key(
        "`final` or `curve`, in the place of the study's",
        kinds.choice(*SCORES),
        None,
    )
    metric: str | None = key("an evaluated metric, in the place of the study's", kinds.text, None)
    last: int | None = key("as in the study", kinds.whole(1), None)
    reached: float | None = key(
        "1 for a seed whose last return is this number, else 0",
        kinds.number,
        None,
    )
    steps_to: Steps | None = key("steps until evaluations reach a level", kinds.record(Steps), None)
    series: Series | None = key("a logged number", kinds.record(Series), None)
    decomposition: str | None = key(
        "a number of SIT's decomposition.json, such as `auroc_reward.pairs`",
        kinds.text,
        None,
    )
    json: str | None = key("a step of the study, whose result holds the numbers", kinds.text, None)
    path: list[str] = key("the keys that lead to them there", kinds.listing(kinds.anything), [])
    near: object = key(
        "count their largest distance from these values instead", kinds.anything, None
    )


@dataclass(frozen=True)
class Check:
    """Something that is either so or not, and the rule that decides."""

    says: str = key("what is compared, in words", kinds.text)
    compare: str = key(
        "the rule: `greater`, `equal` (of two arms), `at_least`, `above`, `at_most` (of one)",
        kinds.choice(*COMPARE),
    )
    arms: list[str] = key(
        "the two arms, first minus second, or the one",
        kinds.listing(kinds.text),
        [],
    )
    tasks: list[str] = key("on these tasks; left out: on all", kinds.listing(kinds.text), [])
    margin: float | None = key(
        "of `greater` (0) and `equal`: the bound of the difference",
        kinds.number,
        None,
    )
    threshold: float | None = key("of the other rules: the bound of the value", kinds.number, None)
    statistic: str = key("over seeds: " + ", ".join(f"`{name}`" for name in AGGREGATES),
                         kinds.choice(*AGGREGATES), "iqm")  # fmt: skip
    scale: float | dict[str, float] = key(
        "scores are divided by it: a number, or one for each task",
        kinds.either(dict, kinds.mapping(kinds.number), kinds.number),
        1.0,
    )
    quantity: Quantity = key(
        "what is compared, if not the study's score",
        kinds.record(Quantity),
        Quantity(),
    )
    paper: str = key("what a publication says", kinds.text, "")
    decides: bool = key("false: shown, but without a say in the verdict", kinds.flag, True)

    @property
    def bound(self) -> float:
        """The margin or the threshold."""
        bound = self.margin if self.margin is not None else self.threshold
        return 0.0 if bound is None else bound

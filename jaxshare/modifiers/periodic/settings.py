"""What may be set of A-PPS, RS-PPS and PP-PPS."""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.ops import pps
from jaxshare.settings.fields import COUNT, FreeText, free_text, static, swept
from jaxshare.settings.validate import check_record
from jaxshare.types import RefusedError


@dataclass(frozen=True)
class PeriodicConfig:
    """When and what is averaged."""

    period: int = static(
        300,
        least=1,
        most=COUNT,
        help="updates between averages",
        source="paper: PPS Table 1",
    )
    share: FreeText = free_text(
        "all",
        help="what is averaged: all, head, body (all else), or names, as [embed,gru.*_kernel]",
        source="paper: PPS",
    )
    networks: FreeText = free_text(
        "all",
        help="which networks are averaged: all, or names, as [actor] of [actor,critic]",
        source="ours",
    )
    within: str = static(
        "team",
        choices=("team", "type"),
        help="who averages among themselves: the team, or agents of one type",
        source="paper: PPS; ours: type",
    )
    init: str = static(
        "common",
        choices=("common", "average", "own"),
        help="first parameters: one draw for all (common), the average of draws, or each its own",
        source="ours: common; code: PPS has average (A-, RS-) and own (PP-)",
    )
    moments: str = static(
        "keep",
        choices=("keep", "average", "reset"),
        help="the optimiser's moments of the shared tensors",
        source="code: PPS; ours: average, reset",
    )
    targets: str = static(
        "keep",
        choices=("keep", "aggregate"),
        help="the target networks: as they are, or averaged too",
        source="code: PPS; ours: aggregate",
    )

    def __post_init__(self) -> None:
        for key, known in (
            ("share", "all, head, body, or names of modules"),
            ("networks", "all, or names of networks"),
        ):
            value = getattr(self, key)
            object.__setattr__(self, key, value if isinstance(value, str) else tuple(value))
            if not value or not all(isinstance(part, str) for part in value):
                self._refuse(key, f"must be {known}")
        check_record(self, f"{_name(self)}.")

    def _refuse(self, key: str, reason: str) -> None:
        raise RefusedError(f"{_name(self)}.{key}={getattr(self, key)} {reason}.")


@dataclass(frozen=True)
class ScoredConfig(PeriodicConfig):
    """What RS-PPS and PP-PPS add: who counts for more."""

    score: str = static(
        "auto",
        choices=("auto", "own", "solo", "individual"),
        help="scores: own reward, return alone (solo), or share of it; auto: own if there is one",
        source="paper: PPS has own; its code solo; ours: individual",
    )
    rule: str = static(
        "shifted_ratio",
        choices=pps.RULES,
        help="weights from scores; ratio stops at scores below 0",
        source="ours: shifted_ratio; paper: PPS has ratio; its code softmax",
    )
    temperature: float = swept(
        1.0, above=0, help="temperature of the weights; only with rule=softmax", source="code: PPS"
    )
    buffer: int = static(
        96,
        least=1,
        most=COUNT,
        help="episodes, or pieces of streams, that score=own is the mean of",
        source="paper: PPS Table 1",
    )
    solo_episodes: int = static(
        10, least=1, most=COUNT, help="episodes of each agent, with score=solo", source="code: PPS"
    )
    solo_id: str = static(
        "agent",
        choices=("agent", "network"),
        help="the index read in solo episodes: each agent's, or of the agent whose network it is",
        source="code: PPS; ours: network",
    )

    def __post_init__(self) -> None:
        if self.score == "team":
            self._refuse(
                "score",
                "gives all agents the same score, so that the weighted mean is the plain one: use "
                "modifiers=[a_pps], or a score that tells agents apart (own, solo, individual)",
            )
        super().__post_init__()


def _name(config: PeriodicConfig) -> str:
    """The modifier whose settings these are."""
    return type(config).__module__.rsplit(".", 1)[-1]

"""Settings of the multi-robot warehouse."""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.settings.fields import STEPS, flag, free_text, static, time_limit

REWARDS = ("individual", "sum")
REWARD_TYPES = ("individual", "global", "two-stage")


@dataclass(frozen=True)
class Config:
    """Settings of the warehouse."""

    scenario: str = free_text(
        "tiny-2ag",
        help="also small, medium, large, any number of agents, -easy, -hard",
        source="paper: SEAC's smallest",
    )
    max_steps: int = time_limit(500, source="code: rware")
    reward: str = static(
        "individual",
        choices=REWARDS,
        help="who delivers is paid, or every agent receives the sum over the team",
        source="code: rware",
    )
    reward_type: str | None = static(
        None,
        choices=REWARD_TYPES,
        help="what is paid for; null: individual, or what the scenario's name says",
        source="code: rware",
    )
    sensor_range: int | None = static(
        None,
        least=1,
        most=15,
        help="how far agents see; null: 1, or what the scenario's name says",
        source="code: rware",
    )
    normalised_coordinates: bool = flag(
        False,
        help="own column and row as numbers from 0 to 1",
        source="code: rware",
    )
    max_inactivity_steps: int | None = static(
        None,
        least=1,
        most=STEPS,
        note="null is off.",
        help="end after so many steps without a delivery; null: off",
        source="code: rware",
    )

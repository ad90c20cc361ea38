"""Robots, and how their joints are shared out."""

from __future__ import annotations

import re
from typing import NamedTuple

from jaxshare.registry import suggest
from jaxshare.types import RefusedError

PARTS = {
    "HalfCheetah": ("2x3", "6x1"),
    "Walker2d": ("2x3",),
    "Hopper": ("3x1",),
    "Ant": ("4x2", "2x4", "2x4d"),
    "Humanoid": ("9|8",),
    "HumanoidStandup": ("9|8",),
    "ManySegmentSwimmer": ("10x2",),  # and any other "agents x segments"
    "ManySegmentAnt": ("2x3",),  # and any other "agents x segments"
    "Swimmer": ("2x1",),
    "Reacher": ("2x1",),
    "Pusher": ("3p",),
}
SPELLINGS = {  # code: FACMAC's names
    "manyagent_swimmer": "ManySegmentSwimmer",
    "manyagent_ant": "ManySegmentAnt",
}
SIT = {"HalfCheetah_2l": "HalfCheetah-2x3", "Walker_2l": "Walker2d-2x3"}  # paper: SIT
SIT_STEPS = 200  # paper: SIT
SCENARIOS = (  # of the papers
    "HalfCheetah-2x3",
    "HalfCheetah-6x1",
    "Walker2d-2x3",
    "Hopper-3x1",
    "Ant-4x2",
    "Humanoid-9|8",
    "ManySegmentSwimmer-10x2",
    "ManySegmentAnt-2x3",
    "Swimmer-2x1",
    "Reacher-2x1",
    *SIT,
)


class Task(NamedTuple):
    """What a scenario says."""

    robot: str
    parts: str
    max_steps: int | None  # the time limit, if it is not the package's


def parse(scenario: str) -> Task:
    """A scenario in its parts, however it is spelled. Raises RefusedError if it is unknown."""
    name = re.sub(r"-v\d+(?=-)", "", SIT.get(scenario, scenario))
    robot, _, parts = name.partition("-")
    robot = SPELLINGS.get(robot, robot)
    if robot == "CoupledHalfCheetah":
        raise RefusedError(
            f"env.scenario={scenario} cannot be run: gymnasium-robotics 1.4.2 fails to make it "
            "(IndexError: invalid index to scalar variable). Use HalfCheetah-2x3."
        )

    # some robots have any number of agents and segments
    known = [f"{robot}-{parts}" for robot, choices in PARTS.items() for parts in choices]
    free = robot.startswith("ManySegment") and re.fullmatch(r"[1-9]\d*x[1-9]\d*", parts)
    if f"{robot}-{parts}" not in known and not free:
        listed = [*known, *SIT]
        raise RefusedError(
            f"env.scenario={scenario} is not known.{suggest(scenario, listed)} Known: "
            f"{', '.join(listed)}, and ManySegmentSwimmer and ManySegmentAnt with any agents x "
            "segments."
        )
    return Task(robot, parts, SIT_STEPS if scenario in SIT else None)

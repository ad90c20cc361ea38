"""Multi-agent MuJoCo: the package gymnasium-robotics (mamujoco_v1) through the host bridge.

Sources: Peng et al. 2021 (FACMAC), who split MuJoCo's robots among agents; the tasks of Tian et al. 2023 (SIT).
A scenario is a robot and how its joints are shared out, as in HalfCheetah-2x3: two agents with three joints each. The
spellings of the papers (manyagent_swimmer-10x2, Humanoid-v2-9|8, HalfCheetah_2l) are understood.

Faithful: everything that the package does. A fall is `terminated`, the time limit is `truncated`, the reward is common.
Departs, on purpose:

* Actions are in [-1, 1] and scaled to the robot's own box (0.4 for Humanoid); shorter rows are padded.
* Agents whose spaces have the same sizes are of one type.
* paper: returns are not those of FACMAC, which ran version 2 of the robots; these are version 5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from jaxshare.envs.host import HostConfig, Install, host_env
from jaxshare.registry import suggest
from jaxshare.settings.fields import UNITS, free_text, static, time_limit
from jaxshare.settings.validate import check_record
from jaxshare.types import Env, RefusedError

ACTIONS = "continuous"
HOST = True
PACKAGES = ("gymnasium_robotics", "mujoco")
INSTALL = "pip install 'jaxshare[mamujoco]'"
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
SPELLINGS = {
    "manyagent_swimmer": "ManySegmentSwimmer",
    "manyagent_ant": "ManySegmentAnt",
}  # code: FACMAC's names
SIT = {"HalfCheetah_2l": "HalfCheetah-2x3", "Walker_2l": "Walker2d-2x3"}  # paper: SIT
SIT_STEPS = 200  # paper: SIT


@dataclass(frozen=True)
class Config(HostConfig):
    """Settings of mamujoco."""

    scenario: str = free_text("HalfCheetah-2x3", help="robot and its parts", source="paper: FACMAC")
    agent_obsk: int = static(
        1,
        least=0,
        most=UNITS,
        note="0 is its own joints only.",
        help="joints as far as this from an agent's own are observed; 0: its own only",
        source="code: gymnasium-robotics",
    )
    max_steps: int | None = time_limit(
        None,
        help="most steps of an episode; null: gymnasium-robotics' limit, 200 for the tasks of SIT",
    )


def scenarios() -> tuple[str, ...]:
    """The tasks of the papers; other robots and parts of the package work as well."""
    return (
        "HalfCheetah-2x3", "HalfCheetah-6x1", "Walker2d-2x3", "Hopper-3x1", "Ant-4x2", "Humanoid-9|8",
        "ManySegmentSwimmer-10x2", "ManySegmentAnt-2x3", "Swimmer-2x1", "Reacher-2x1", "HalfCheetah_2l", "Walker_2l",
    )  # fmt: skip


def make(config: Config) -> Env:
    """A robot split among agents. Raises RefusedError for an unknown one and if the package is not installed."""
    robot, parts, steps = _task(config.scenario)
    check_record(config, "env.")
    kwargs = {
        "scenario": robot,
        "agent_conf": parts,
        "agent_obsk": config.agent_obsk,
        "max_steps": config.max_steps or steps,
    }
    return host_env(
        f"mamujoco/{config.scenario}",
        "robots.py:MaMujoco",
        kwargs,
        config,
        Install(INSTALL, PACKAGES),
    )


def _task(scenario: str) -> tuple[str, str, int | None]:
    """(robot, parts, time limit if it is not the package's) of a scenario, however it is spelled."""
    name = re.sub(r"-v\d+(?=-)", "", SIT.get(scenario, scenario))
    robot, _, parts = name.partition("-")
    robot = SPELLINGS.get(robot, robot)
    if robot == "CoupledHalfCheetah":
        raise RefusedError(
            f"env.scenario={scenario} cannot be run: gymnasium-robotics 1.4.2 fails to make it (IndexError: invalid "
            "index to scalar variable). Use HalfCheetah-2x3."
        )
    known = [f"{r}-{p}" for r, choices in PARTS.items() for p in choices]
    free = robot.startswith("ManySegment") and re.fullmatch(r"[1-9]\d*x[1-9]\d*", parts)
    if f"{robot}-{parts}" not in known and not free:
        raise RefusedError(
            f"env.scenario={scenario} is not known.{suggest(scenario, [*known, *SIT])} Known: "
            f"{', '.join([*known, *SIT])}, and ManySegmentSwimmer and ManySegmentAnt with any agents x segments."
        )
    return robot, parts, SIT_STEPS if scenario in SIT else None

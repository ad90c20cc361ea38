"""Multi-agent MuJoCo: the package gymnasium-robotics (mamujoco_v1) through the host bridge.

Sources: Peng et al. 2021 (FACMAC), who split MuJoCo's robots among agents; the tasks of Tian et al.
2023 (SIT). A scenario is a robot and how its joints are shared out, as in HalfCheetah-2x3: two
agents with three joints each. The spellings of the papers (manyagent_swimmer-10x2, Humanoid-v2-9|8,
HalfCheetah_2l) are understood.

Faithful: everything that the package does. A fall is `terminated`, the time limit is `truncated`,
the reward is common. Departs, on purpose:

* Actions are in [-1, 1] and scaled to the robot's own box (0.4 for Humanoid); shorter rows are
  padded.
* Agents whose spaces have the same sizes are of one type.
* paper: returns are not those of FACMAC, which ran version 2 of the robots; these are version 5.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.envs.host import HostConfig, Install, host_env
from jaxshare.envs.mamujoco.robots import SCENARIOS, parse
from jaxshare.settings.fields import UNITS, free_text, static, time_limit
from jaxshare.settings.validate import check_record
from jaxshare.types import Env

ACTIONS = "continuous"
HOST = True
PACKAGES = ("gymnasium_robotics", "mujoco")
INSTALL = "pip install 'jaxshare[mamujoco]'"


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
    return SCENARIOS


def make(config: Config) -> Env:
    """A robot split among agents. Raises RefusedError if it is unknown or not installed."""
    task = parse(config.scenario)
    check_record(config, "env.")

    # for the class that plays in a worker
    kwargs = {
        "scenario": task.robot,
        "agent_conf": task.parts,
        "agent_obsk": config.agent_obsk,
        "max_steps": config.max_steps or task.max_steps,
    }
    return host_env(
        f"mamujoco/{config.scenario}",
        "robots.py:MaMujoco",
        kwargs,
        config,
        Install(INSTALL, PACKAGES),
    )

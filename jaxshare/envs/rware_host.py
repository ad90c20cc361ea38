"""The multi-robot warehouse itself: the package rware 2.0.0 through the host bridge. `env=rware` is the task in JAX.

Sources: Christianos et al. 2020 (SEAC); Papoudakis et al. 2021.

Faithful: everything but the end of an episode: the time limit is `truncated`, where rware says "done".
The state is the observations of the robots, one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.envs.host import HostConfig, host_env
from jaxshare.types import Env, RefusedError

ACTIONS = "discrete"
HOST = True
PACKAGES = ("rware",)
INSTALL = "pip install 'jaxshare[rware]'"
REWARDS = ("individual", "sum")


@dataclass(frozen=True)
class Config(HostConfig):
    """Settings of rware."""

    scenario: str = "tiny-2ag"  # paper: SEAC; any id of rware, without "rware-" and "-v2"
    max_steps: int = 500  # rware
    reward: str = "individual"  # paper: SEAC; "sum": every agent receives the team's


def scenarios() -> tuple[str, ...]:
    """The tasks of the SEAC paper; any other id of rware works as well."""
    return ("tiny-2ag", "tiny-2ag-hard", "tiny-4ag", "small-4ag")


def make(config: Config) -> Env:
    """The warehouse on one task. Raises RefusedError for an unknown id and if rware is not installed."""
    if config.reward not in REWARDS:
        raise RefusedError(f"env.reward={config.reward} is not known. Known: {', '.join(REWARDS)}.")
    if config.max_steps < 1:
        raise RefusedError(f"env.max_steps={config.max_steps}: an episode needs at least one step.")
    name = config.scenario if config.scenario.startswith("rware-") else f"rware-{config.scenario}-v2"
    kwargs = {"id": name, "max_steps": config.max_steps, "common_reward": config.reward == "sum"}
    return host_env(f"rware_host/{config.scenario}", "tuples.py:Warehouse", kwargs, config, INSTALL)

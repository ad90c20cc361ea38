"""The multi-robot warehouse itself: the package rware 2.0.0 through the host bridge.

`env=rware` is the task in JAX.

Sources: Christianos et al. 2020 (SEAC); Papoudakis et al. 2021.

Faithful: everything but the end of an episode: the time limit is `truncated`, where rware says
"done". The state is the observations of the robots, one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxshare.envs.host import HostConfig, Install, host_env
from jaxshare.registry import without_version
from jaxshare.settings.fields import free_table, free_text, static, time_limit
from jaxshare.settings.validate import check_record
from jaxshare.types import Env

ACTIONS = "discrete"
HOST = True
PACKAGES = ("rware",)
INSTALL = "pip install 'jaxshare[rware]'"
REWARDS = ("individual", "sum")


@dataclass(frozen=True)
class Config(HostConfig):
    """Settings of rware."""

    scenario: str = free_text(
        "tiny-2ag",
        help='any id of rware; "rware-" and "-v2" may be left out',
        source="paper: SEAC",
    )
    max_steps: int = time_limit(500, source="code: rware")
    reward: str = static(
        "individual",
        choices=REWARDS,
        help="to each agent its own, or to every agent the team's",
        source="paper: SEAC",
    )
    kwargs: dict[str, Any] = free_table(
        help="for its constructor, as in env.kwargs={sensor_range:2}",
    )


def scenarios() -> tuple[str, ...]:
    """The tasks of the SEAC paper; any other id of rware works as well."""
    return ("tiny-2ag", "tiny-2ag-hard", "tiny-4ag", "small-4ag")


def make(config: Config) -> Env:
    """The warehouse on one task. Raises RefusedError if it is unknown or rware not installed."""
    check_record(config, "env.")
    middle = config.scenario.removeprefix("rware:").removeprefix("rware-").removesuffix("-v2")
    without_version("rware", config.scenario, middle, "v2")
    kwargs = {"id": f"rware-{middle}-v2", "max_steps": config.max_steps, "kwargs": config.kwargs}
    kwargs["common_reward"] = config.reward == "sum"
    return host_env(
        f"rware_host/{middle}",
        "grids.py:Warehouse",
        kwargs,
        config,
        Install(INSTALL, PACKAGES),
        f"env.scenario={config.scenario}",
    )

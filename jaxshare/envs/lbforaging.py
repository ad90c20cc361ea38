"""Level-based foraging itself: the package lbforaging 2.0.0 through the host bridge.

`env=lbf` is the same task in JAX.

Sources: Albrecht and Ramamoorthy 2013; the tasks of Christianos et al. 2020 (SEAC), Table 1.

Faithful: everything but the ends of an episode and the seeding.
Departs, on purpose:

* The time limit is `truncated`, and only the last food ends an episode as `terminated`; lbforaging
  calls both "done".
* A reset depends on its seed alone. In lbforaging the last positions of the players keep new ones
  away.
* The state is the observations of the agents, one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxshare.envs.host import HostConfig, Install, host_env
from jaxshare.registry import without_version
from jaxshare.settings.fields import flag, free_table, free_text, static, time_limit
from jaxshare.settings.validate import check_record
from jaxshare.types import Env

ACTIONS = "discrete"
HOST = True
PACKAGES = ("lbforaging",)
INSTALL = "pip install 'jaxshare[lbforaging]'"
REWARDS = ("individual", "sum")


@dataclass(frozen=True)
class Config(HostConfig):
    """Settings of lbforaging."""

    scenario: str = free_text(
        "8x8-2p-2f-coop",
        help='any id of lbforaging; "Foraging-" and "-v3" may be left out',
        source="paper: SEAC",
    )
    max_steps: int = time_limit(25, source="paper: SEAC; lbforaging itself has 50")
    reward: str = static(
        "individual",
        choices=REWARDS,
        help="to each agent its own, or to every agent the team's",
        source="paper: SEAC",
    )
    kwargs: dict[str, Any] = free_table(help="for its constructor, as in env.kwargs={sight:2}")
    mask_actions: bool = flag(
        False,
        help="invalid actions are unavailable; false: they do nothing",
        source="code: lbforaging has no masks",
    )


def scenarios() -> tuple[str, ...]:
    """The tasks of the SEAC paper; any other id of lbforaging works as well."""
    return ("8x8-2p-2f-coop", "10x10-3p-3f", "12x12-2p-1f", "15x15-3p-4f")


def make(config: Config) -> Env:
    """lbforaging on one task. Raises RefusedError for an unknown id, and if it is not installed."""
    check_record(config, "env.")
    middle = (
        config.scenario.removeprefix("lbforaging:")
        .removeprefix("Foraging")
        .removeprefix("-")
        .removesuffix("-v3")
    )
    without_version("lbforaging", config.scenario, middle, "v3")

    # for the class that plays in a worker
    kwargs = {
        "id": f"Foraging-{middle}-v3",
        "max_steps": config.max_steps,
        "kwargs": config.kwargs,
        "common_reward": config.reward == "sum",
        "mask_actions": config.mask_actions,
    }
    return host_env(
        f"lbforaging/{middle}",
        "grids.py:Foraging",
        kwargs,
        config,
        Install(INSTALL, PACKAGES),
        f"env.scenario={config.scenario}",
    )

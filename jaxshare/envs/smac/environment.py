"""StarCraft II itself: SMAC (Samvelyan et al. 2019) through the host bridge.

`env=smax` is the JAX stand-in.

Needs, none of which a package index has: StarCraft II (4.10 in the literature), the SMAC maps, and
oxwhirl's package `smac`. The `smac` of the registries is AutoML's SMAC3, another thing. SMAC pins
an old protobuf, so it is best kept in an environment of its own: `env.python=/path/to/that/python`
runs the workers there.

Not run against the game by its authors, who cannot have it on their machines: it is tested with a
stand-in that follows oxwhirl's interface, its errors included.

Faithful: observations, state, masks, reward are SMAC's own.
Departs, on purpose:

* A battle cut by the time limit is `truncated`. In the literature's default it counts as terminal:
  `env.time_limit=terminated`.
* Sparse rewards are exactly +1, -1 and 0; SMAC would still divide them by its scale.
* An agent is dead when its unit has no health. SMAC's own tracker stands still with sparse rewards.
* A lost connection cuts the episode (`truncated`, `lost_connection` in the logs) and the next one
  starts a new game.
* The game is seeded when it starts, not at each reset, so runs do not repeat, and a resumed run is
  not exact.
* Types of agents are those of SMAC's own maps (maps.py): the interface does not tell them before a
  game has started. On other maps, and with another implementation, agents are of one type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxshare.envs.host import HostConfig, Install, host_env
from jaxshare.envs.smac.maps import LIMITS, UNITS
from jaxshare.registry import one_of
from jaxshare.settings.fields import default, file_path, free_table, free_text, static
from jaxshare.settings.validate import check_record
from jaxshare.types import Env

ACTIONS = "discrete"
HOST = True
PACKAGES = ("smac.env",)
INSTALL = (
    "pip install git+https://github.com/oxwhirl/smac.git (not the registries' `smac`, which is "
    "AutoML's), and StarCraft II with the SMAC maps, found through SC2PATH"
)
REWARDS = ("dense", "sparse")
ENDS = ("truncated", "terminated")


@dataclass(frozen=True)
class Config(HostConfig):
    """Settings of SMAC."""

    scenario: str = free_text("3m", help="SMAC's map_name", source="ours: the smallest map")
    reward: str = static(
        "dense",
        choices=REWARDS,
        help="scaled so that a win returns 20 (dense), or +1 won, -1 lost, 0 otherwise (sparse)",
        source="code: SMAC",
    )
    time_limit: str = static(
        "truncated",
        choices=ENDS,
        help="whether the time limit truncates or terminates an episode",
        source="ours; SMAC and the literature have terminated",
    )
    difficulty: str = static(
        "7", choices=tuple("123456789A"), help="of the opponent; 7: very hard", source="code: SMAC"
    )
    kwargs: dict[str, Any] = free_table(help="further arguments of StarCraft2Env")
    sc2path: str = file_path("", help="folder of the game; empty: SC2PATH, else ~/StarCraftII")
    implementation: str = free_text(
        "smac.env:StarCraft2Env",
        help="any class with its interface, as module:Class",
        source="code: SMAC",
    )
    workers: int = default(
        8,
        "code: PyMARL's parallel runner; every game is a process of its own besides",
    )


def scenarios() -> tuple[str, ...]:
    """SMAC's maps."""
    return tuple(LIMITS)


def foreign(config: Config) -> tuple[str, ...]:
    """Settings that name code which only the user may choose (see `jaxshare.trust`)."""
    return (
        ("sc2path",)
        if config.implementation == Config.implementation
        else ("sc2path", "implementation", "kwargs")
    )


def make(config: Config) -> Env:
    """SMAC on one map.

    Raises RefusedError if it is unknown, or the package, the game or its maps are missing.
    """
    check_record(config, "env.")
    is_own = config.implementation == Config.implementation
    if is_own:
        one_of("env.scenario", config.scenario, LIMITS)
    sparse = config.reward == "sparse"
    game_kwargs: dict[str, Any] = {"difficulty": config.difficulty, "reward_sparse": sparse}
    if sparse:
        game_kwargs["reward_scale"] = False  # code: SMAC scales sparse rewards as well
    game_kwargs.update(config.kwargs)

    # for the class that plays in a worker
    kwargs = {
        "map_name": config.scenario,
        "units": UNITS.get(config.scenario) if is_own else None,
        "implementation": config.implementation,
        "kwargs": game_kwargs,
        "time_limit": config.time_limit,
        "sc2path": config.sc2path,
    }
    return host_env(
        f"smac/{config.scenario}",
        "starcraft.py:StarCraft",
        kwargs,
        config,
        Install(INSTALL, PACKAGES),
    )

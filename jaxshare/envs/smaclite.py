"""SMAClite (Michalski et al. 2023): SMAC's battles without StarCraft II, through the host bridge.

The package is on no index and has no licence; install it from its repository. It is tested here
with a stand-in that follows its interface.

Faithful: observations, state, masks and dense reward (a win returns 20) are SMAClite's own.
Departs, on purpose:

* SMAClite has no time limit; here it is SMAC's of the same map, and it is `truncated`.
* The sparse reward (+1 won, -1 lost, 0 otherwise) is ours.

Unlike SMAC, a battle goes on when only medivacs are left, and start positions are always the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.envs.host import HostConfig, Install, host_env
from jaxshare.registry import one_of
from jaxshare.settings.fields import default, file_path, free_text, static, time_limit
from jaxshare.settings.validate import check_record
from jaxshare.types import Env, RefusedError

ACTIONS = "discrete"
HOST = True
PACKAGES = ("smaclite",)
INSTALL = "pip install git+https://github.com/uoe-agents/smaclite.git 'rtree>=1.4'"
LIMITS = {  # SMAC's of the same maps
    "2s3z": 120, "3s5z": 150, "3s_vs_5z": 250, "10m_vs_11m": 150, "27m_vs_30m": 180,
    "3s5z_vs_3s6z": 170, "MMM": 150, "MMM2": 180, "2s_vs_1sc": 300, "2c_vs_64zg": 400,
    "corridor": 400, "bane_vs_bane": 200,
}  # fmt: skip
REWARDS = ("dense", "sparse")


@dataclass(frozen=True)
class Config(HostConfig):
    """Settings of SMAClite."""

    scenario: str = free_text("2s3z", help="which map", source="ours: SMAClite's smallest")
    reward: str = static(
        "dense",
        choices=REWARDS,
        help="scaled so that a win returns 20 (dense), or +1 won, -1 lost, 0 otherwise (sparse)",
        source="code: SMAClite",
    )
    max_steps: int | None = time_limit(
        None,
        help="most steps of an episode; null: SMAC's limit of the map",
    )
    map_file: str = file_path(
        "",
        help="a map of your own (JSON), instead of scenario; needs max_steps",
    )
    workers: int = default(-1, "ours: its users measured 14 to 190 steps/s per core")


def scenarios() -> tuple[str, ...]:
    """SMAClite's maps."""
    return tuple(LIMITS)


def make(config: Config) -> Env:
    """SMAClite on one map. Raises RefusedError if it is unknown or SMAClite not installed."""
    check_record(config, "env.")
    one_of("env.scenario", config.scenario, LIMITS)
    if config.map_file and config.max_steps is None:
        raise RefusedError(
            "env.max_steps=None: env.map_file needs a limit of its own, as in env.max_steps=100."
        )
    limit = LIMITS[config.scenario] if config.max_steps is None else config.max_steps
    name = "custom" if config.map_file else config.scenario

    # for the class that plays in a worker
    kwargs = {
        "id": f"smaclite/{name}-v0",
        "max_steps": limit,
        "reward": config.reward,
        "kwargs": {"map_file": config.map_file} if config.map_file else {},
    }
    return host_env(
        f"smaclite/{name}", "starcraft.py:Lite", kwargs, config, Install(INSTALL, PACKAGES)
    )

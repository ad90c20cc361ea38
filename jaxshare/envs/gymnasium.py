"""Any Gymnasium environment with a tuple of agents, by its id, through the host bridge.

Source: the interface of Gymnasium (Towers et al. 2024), as the multi-agent packages of EPyMARL's
authors use it.

The spaces must be Tuples with one entry per agent, as those of lbforaging, rware and SMAClite are.
Rewards are one number or one per agent. Where the environment has PyMARL's `get_avail_actions` and
`get_state`, masks and states come from there; else all actions are available, and the state is the
observations, one after the other.

Faithful: observations, rewards, ends.
Departs, on purpose:

* env.max_steps replaces the registered time limit. An end at the step that the environment names as
  its own limit (its `max_steps` and the like) is `truncated`: lbforaging and rware report that as
  the end of the task.
* Continuous actions are in [-1, 1] and scaled to each agent's box; whole numbers have equal shares
  of it.
* Flags per agent: an episode ends when each agent is terminated or truncated, and is terminated if
  each is.
* Observations are vectors: dicts and pictures are flattened. Pictures of uint8 are fed as the
  numbers 0 to 255, not scaled, and no network here is convolutional.
* Values that a Discrete, MultiDiscrete or MultiBinary space of observations does not have are
  refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxshare.envs.host import HostConfig, Install, host_env
from jaxshare.settings.fields import free_table, free_text, static, text_list, time_limit
from jaxshare.settings.validate import check_record
from jaxshare.types import Env

ACTIONS = "discrete or continuous"
HOST = True
PACKAGES = ("gymnasium",)
INSTALL = (
    "pip install 'jaxshare[gymnasium]', and the package that registers env.id (its module: "
    "env.imports=[module])"
)
REWARDS = ("individual", "sum")
HOMES = {
    "Foraging": "lbforaging",
    "rware": "rware",
    "smaclite": "smaclite",
}  # who registers ids that begin so


@dataclass(frozen=True)
class Config(HostConfig):
    """Settings of gymnasium."""

    id: str = free_text(
        "rware-tiny-2ag-v2",
        help="any registered id whose spaces are tuples; pictures are only flattened",
        source="ours",
    )
    imports: list[str] = text_list(
        help="modules that register ids; known for lbforaging, rware, smaclite",
    )
    kwargs: dict[str, Any] = free_table(help="for its constructor, as in env.kwargs={sight:2}")
    max_steps: int | None = time_limit(
        None,
        help="most steps of an episode; null: the registered limit, or the environment's own",
    )
    reward: str = static(
        "individual",
        choices=REWARDS,
        help="as the environment gives it, or to every agent the team's sum",
        source="ours: nothing is changed",
    )


def scenarios() -> tuple[str, ...]:
    """Examples; SMAClite tells no limit, so that it needs env.max_steps."""
    return ("rware-tiny-2ag-v2", "Foraging-8x8-2p-2f-coop-v3", "smaclite/2s3z-v0")


def foreign(config: Config) -> tuple[str, ...]:
    """Settings that name code which only the user may choose (see `jaxshare.trust`)."""
    known = any(config.id.startswith(prefix) for prefix in HOMES) and ":" not in config.id
    names = () if known else ("id", "kwargs")
    return names if set(config.imports) <= set(HOMES.values()) else (*names, "imports")


def make(config: Config) -> Env:
    """The environment of an id. Raises RefusedError if it cannot be made."""
    check_record(config, "env.")
    homes = [module for prefix, module in HOMES.items() if config.id.startswith(prefix)]
    imports = [*config.imports] or homes

    # for the class that plays in a worker
    kwargs = {
        "id": config.id,
        "max_steps": config.max_steps,
        "kwargs": config.kwargs,
        "imports": imports,
        "common_reward": config.reward == "sum",
    }
    return host_env(
        f"gymnasium/{config.id}",
        "tuples.py:Tuples",
        kwargs,
        config,
        Install(INSTALL, (*PACKAGES, "rware")),
        f"env.id={config.id}",
    )

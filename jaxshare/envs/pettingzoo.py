"""Any parallel environment of PettingZoo, by its import path, through the host bridge.

Source: the parallel interface of PettingZoo (Terry et al. 2021).

`env.id=mpe2.simple_spread_v3` names a module with a `parallel_env`; `module:attribute` names any function or class that
returns a parallel environment (`reset(seed)` -> two dicts, `step(actions)` -> five).

Faithful: observations, rewards, and who leaves when. Masks are read from `infos[agent]["action_mask"]` or from
observations that are dicts of "observation" and "action_mask".
Departs, on purpose:

* All possible agents are there throughout. One that has left is not alive, observes zeros, and has action 0 only.
* An episode is terminated if every agent was; if it ended otherwise, and at env.max_steps, it is truncated.
* Continuous actions are in [-1, 1] and scaled to each agent's box.
* Agents with the same spaces and the same name but for its number are of one type.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jaxshare.envs.host import HostConfig, host_env
from jaxshare.registry import suggest
from jaxshare.types import Env, RefusedError

ACTIONS = "discrete or continuous"
HOST = True
PACKAGES = ("pettingzoo",)
INSTALL = "pip install pettingzoo, and the package of the environment (env.id=mpe2...: pip install mpe2)"
STATES = ("auto", "concat")
REWARDS = ("individual", "sum")


@dataclass(frozen=True)
class Config(HostConfig):
    """Settings of pettingzoo."""

    id: str = "mpe2.simple_spread_v3"  # import path: module (its parallel_env) or module:attribute
    kwargs: dict[str, Any] = field(default_factory=dict)  # for its constructor, as in env.kwargs={N:4}
    max_steps: int | None = None  # null: the environment's own limit, if it tells one
    state: str = "auto"  # auto (its state(), if it has one) | concat (all observations)
    reward: str = "individual"  # PettingZoo; sum: every agent receives the team's


def scenarios() -> tuple[str, ...]:
    """Examples; any parallel environment works."""
    return ("mpe2.simple_spread_v3", "mpe2.simple_reference_v3", "mpe2.simple_speaker_listener_v4")


def make(config: Config) -> Env:
    """The environment at an import path. Raises RefusedError if it cannot be made."""
    for key, value, known in (("state", config.state, STATES), ("reward", config.reward, REWARDS)):
        if value not in known:
            raise RefusedError(f"env.{key}={value} is not known.{suggest(value, known)} Known: {', '.join(known)}.")
    if config.max_steps is not None and config.max_steps < 1:
        raise RefusedError(f"env.max_steps={config.max_steps}: an episode needs at least one step.")
    if not all(part.isidentifier() for part in config.id.replace(":", ".", 1).split(".")):
        raise RefusedError(
            f"env.id={config.id} is not an import path: write module or module:attribute, as in "
            "env.id=mpe2.simple_spread_v3:parallel_env."
        )
    kwargs = {
        "id": config.id,
        "kwargs": config.kwargs,
        "max_steps": config.max_steps,
        "state": config.state,
        "reward": config.reward,
    }
    return host_env(f"pettingzoo/{config.id}", "parallel.py:Parallel", kwargs, config, INSTALL)

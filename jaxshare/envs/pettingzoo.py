"""Any parallel environment of PettingZoo, by its import path, through the host bridge.

Source: the parallel interface of PettingZoo (Terry et al. 2021).

`env.id=mpe2.simple_spread_v3` names a module with a `parallel_env`; `module:attribute` names any
function or class that returns a parallel environment (`reset(seed)` -> two dicts, `step(actions)`
-> five).

Faithful: observations, rewards, and who leaves when, or comes back. Masks are read from
`infos[agent]["action_mask"]` or from observations that are dicts with an "action_mask"; all their
other entries are observed. Departs, on purpose:

* All possible agents are there throughout. One that has left is not alive, observes zeros, and has
  action 0 only; in `agents` again without a flag it is alive again. One in `agents` to which
  nothing is shown keeps its last observation, and has action 0 only while it waits.
* Observations are vectors: dicts and pictures are flattened. Pictures of uint8 are fed as the
  numbers 0 to 255, not scaled, and no network here is convolutional.
* What contradicts the declared spaces is refused: another number of entries, and values that
  Discrete, MultiDiscrete and MultiBinary spaces do not have. Bounds of a Box of observations are
  not checked.
* An episode is terminated if every agent was; if it ended otherwise, and at env.max_steps, it is
  truncated.
* Continuous actions are in [-1, 1] and scaled to each agent's box; whole numbers have equal shares
  of it.
* Agents with the same spaces and the same name but for its number are of one type.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from jaxshare.envs.host import HostConfig, Install, host_env
from jaxshare.settings.fields import free_table, free_text, static, time_limit
from jaxshare.settings.validate import check_record
from jaxshare.types import Env, RefusedError

ACTIONS = "discrete or continuous"
HOST = True
PACKAGES = ("pettingzoo",)
INSTALL = "pip install 'jaxshare[pettingzoo]', and the package of env.id if it is another than mpe2"
STATES = ("auto", "concat")
REWARDS = ("individual", "sum", "common")
OURS = re.compile(
    r"mpe2\.simple\w*_v\d+(:parallel_env)?"
)  # tasks of the package that the default comes from


@dataclass(frozen=True)
class Config(HostConfig):
    """Settings of pettingzoo."""

    id: str = free_text(
        "mpe2.simple_spread_v3",
        help="module (its parallel_env) or module:attribute; pictures are only flattened",
        source="ours",
    )
    kwargs: dict[str, Any] = free_table(help="for its constructor, as in env.kwargs={N:4}")
    max_steps: int | None = time_limit(
        None, help="most steps of an episode; null: the environment's own limit, if it tells one"
    )
    state: str = static(
        "auto",
        choices=STATES,
        help="the global state: its state(), if it has one (auto), or all observations (concat)",
        source="ours",
    )
    reward: str = static(
        "individual",
        choices=REWARDS,
        help="each its own, to each the team's sum (sum), or they are all equal (common)",
        source="code: PettingZoo",
    )


def scenarios() -> tuple[str, ...]:
    """Examples; any parallel environment works."""
    return ("mpe2.simple_spread_v3", "mpe2.simple_reference_v3", "mpe2.simple_speaker_listener_v4")


def foreign(config: Config) -> tuple[str, ...]:
    """Settings that name code which only the user may choose (see `jaxshare.trust`)."""
    return () if OURS.fullmatch(config.id) else ("id", "kwargs")


def make(config: Config) -> Env:
    """The environment at an import path. Raises RefusedError if it cannot be made."""
    check_record(config, "env.")
    if not all(part.isidentifier() for part in config.id.replace(":", ".", 1).split(".")):
        raise RefusedError(
            f"env.id={config.id} is not an import path: write module or module:attribute, as in "
            "env.id=mpe2.simple_spread_v3:parallel_env."
        )

    # for the class that plays in a worker
    kwargs = {
        "id": config.id,
        "kwargs": config.kwargs,
        "max_steps": config.max_steps,
        "state": config.state,
        "reward": config.reward,
    }
    return host_env(
        f"pettingzoo/{config.id}",
        "parallel.py:Parallel",
        kwargs,
        config,
        Install(INSTALL, (*PACKAGES, "mpe2")),
        f"env.id={config.id}",
    )

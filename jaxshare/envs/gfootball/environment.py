"""The academy tasks of Google Research Football, through the host bridge.

The package is gfootball 2.10.2. Sources: Kurach et al. 2020 (the game); Li et al. 2021 (CDS), whose
wrapper DIFFER and others use as well.

Faithful (literature): 150 steps; an episode also ends once the ball or one of ours is in our half;
reward 100 for a goal, -1 at every other end; an agent observes the last N players of its team, the
first players of the other (its keeper among them) and the ball, relative to its own position; the
state is the same in absolute positions; every action is available. Departs, on purpose:

* The time limit is `truncated`; its reward is still -1.
* code: the wrapper's agent i sees itself as the team's i-th last player, but plays another one: in
  counterattack_hard the game gives control of players 5 to 8 of 0 to 10 at the start, and it moves
  control between players during play. `env.representation=controlled` shows each agent the player
  that it controls.
* Types of agents (middle, wing) are of the players that agents see themselves as, in the two tasks
  of DIFFER.
* An episode depends on its key alone: the game draws from Python's generator, which is seeded with
  it. Which team the engine moves first is drawn per episode; gfootball draws it once per game
  object.

Installing: the package comes as source only and needs SDL2, Boost.Python and OpenGL's headers
(Debian: libsdl2-dev, libsdl2-image-dev, libsdl2-ttf-dev, libsdl2-gfx-dev, libboost-all-dev,
libgl1-mesa-dev, libegl1-mesa-dev) and, since its build imports psutil, an active virtual
environment with setuptools 65.5.0, wheel and psutil, in which `pip install --no-build-isolation
gfootball==2.10.2 gym==0.25.2 six` takes about ten minutes. Newer gym does not work. That
environment need not be this one: `env.python=that/bin/python env.workers=4`.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.envs.gfootball.tasks import TASKS
from jaxshare.envs.host import HostConfig, Install, host_env
from jaxshare.registry import suggest
from jaxshare.settings.fields import free_text, static, time_limit
from jaxshare.settings.validate import check_record
from jaxshare.types import Env, RefusedError

ACTIONS = "discrete"
HOST = True
PACKAGES = ("gfootball", "gym", "six")
INSTALL = (
    "pip install --no-build-isolation gfootball==2.10.2 gym==0.25.2 six; it is built from source, "
    "the top of jaxshare/envs/gfootball/environment.py says how; an interpreter that has it can be "
    "named by env.python=... env.workers=1"
)
REPRESENTATIONS = ("literature", "controlled", "simple115v2")
REWARDS = ("literature", "scoring")
ENDS = ("literature", "engine")


@dataclass(frozen=True)
class Config(HostConfig):
    """Settings of gfootball."""

    scenario: str = free_text(
        "academy_3_vs_1_with_keeper", help="which academy task", source="paper: DIFFER; code: CDS"
    )
    max_steps: int = time_limit(150, source="code: CDS; gfootball itself has 400")
    representation: str = static(
        "literature",
        choices=REPRESENTATIONS,
        help="observations: CDS's (literature), those of the controlled player, or simple115v2",
        source="code: CDS",
    )
    reward: str = static(
        "literature",
        choices=REWARDS,
        help="100 for a goal and -1 at any other end (literature), or 1 and -1 for goals (scoring)",
        source="code: CDS; gfootball has scoring",
    )
    ends: str = static(
        "literature",
        choices=ENDS,
        help="ends: also once the ball or one of ours is in our half, or by the engine alone",
        source="code: CDS; gfootball has engine",
    )


def scenarios() -> tuple[str, ...]:
    """The academy tasks of several agents; "academy_" may be left out.

    The last two need env.ends=engine.
    """
    return tuple(TASKS)


def make(config: Config) -> Env:
    """One academy task. Raises RefusedError if it is unknown or gfootball is not installed."""
    check_record(config, "env.")
    name = (
        config.scenario if config.scenario.startswith("academy_") else f"academy_{config.scenario}"
    )
    if name not in TASKS:
        near = suggest(config.scenario, TASKS)
        raise RefusedError(
            f"env.scenario={config.scenario} is not known.{near} Known: {', '.join(TASKS)}."
        )
    task = TASKS[name]
    if config.ends == "literature" and not task.forward:
        raise RefusedError(
            f"env.scenario={name} starts with players of ours in our half, where "
            "env.ends=literature would end it at once: add env.ends=engine."
        )

    # for the class that plays in a worker
    kwargs = {
        "scenario": name,
        "agents": task.agents,
        "opponents": task.opponents,
        "wings": task.wings,
        "max_steps": config.max_steps,
        "representation": config.representation,
        "reward": config.reward,
        "ends": config.ends,
    }
    return host_env(
        f"gfootball/{name}", "football.py:Academy", kwargs, config, Install(INSTALL, PACKAGES)
    )

"""Level-based foraging: agents with levels collect food with levels on a grid.

Own JAX code after lbforaging 2.0.0.

Sources: lbforaging 2.0.0 (Papoudakis et al. 2021, EPyMARL); Christianos et al. 2020 (SEAC) for the
first four tasks and their limit of 25 steps. A scenario is an id of that package,
`Foraging-2s-8x8-2p-2f-coop-v3`, or its middle, `2s-8x8-2p-2f-coop`: sight 2 (else the whole grid),
8 rows x 8 columns, 2 players, 2 foods, cooperation forced.

Faithful, and equal from the same state in the tests: moves, clashes, loading, rewards,
observations, valid actions. Start states are drawn from the same distribution:

* All agents move at once, each to its target; where two or more have the same target, none of these
  moves. One may enter a cell that another leaves, two may swap, and two end on one cell when one
  enters and the other's move fails.
* Foods are at least three moves apart, so no agent stands beside two: the order in which the
  original serves those who load comes from the addresses of Python objects, yet never matters.
* A food is drawn like the original's first valid of up to 1000 tries. Where players and foods leave
  no cell for another food there are fewer (one episode in nine of 5x5-..-2f), and their slots are
  empty.
* Partial sight has the original's slant: within `sight` of the top or left border, agents (not
  foods) are also seen beyond `sight` below or to the right, up to row or column 2 * `sight`.
  Coordinates count from the corner of the view.
* The remaining foods in scan order fill the first slots, so they shift when one is eaten; empty is
  (-1, -1, 0).

Departs, on purpose:

* The time limit is `truncated`; the original says done for both. The limit is SEAC's, not the
  original's 50.
* `reward=sum` pays the sum of the rewards to every agent.
* Rows and columns may differ, and the grid observation is offered; the original has code for both,
  but its own check of the observation space stops it (with gymnasium 1.3).
* All foods share one range of levels, all players another; the original can have a range for each.
* With `mask_actions` the original's private valid actions are shown. An invalid action does
  nothing, masked or not.

Rules of older versions. `rules=v3` is lbforaging 2.0.0 (ids -v3), `v2` is 1.1.1 (ids -v2), `v1` is
1.0.15 (ids -v1). SEAC pins 1.0.15; EPyMARL's first version named ids -v1, then -v2, its second -v3.
Results under one are not those under another: food that needs both of two players is 8.3 % of all
in v1 and v2, 41.7 % in v3; food that needs all of three 2.5 % and 25.2 %. Differences of v1 (v2 has
the first only):

* Without forced cooperation a food's level is drawn from 1 to S - 1, where S is the sum of the
  three lowest player levels; v3 draws from 1 to S. (code: numpy's randint leaves out its upper end;
  S = 1 gives level 1.)
* No player starts in the last row or in the last column.

Alike in all three, step by step and in the distribution of starts: player levels (1 and 2; the
older constructors say 3, an end that is left out), foods off the border and three moves apart,
moves and clashes, loading, rewards and how they are normalised, forced cooperation (level S), sight
with its slant, layout of observations, the ids' 50 steps. Not in the older ones: `max_food_level`
(refused here) and `min_player_level`; v1 has neither `penalty` nor `grid_observation`. These three
mean here what they mean in v3.

The state is what an agent with full sight knows, in fixed places: (row, column, level) of every
food in scan order, (-1, -1, 0) once eaten, and of every player.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from jaxshare.envs.base import team_spec, time_step
from jaxshare.envs.lbf import picture, views
from jaxshare.envs.lbf.rules import NUM_ACTIONS, allowed_actions, playing
from jaxshare.envs.lbf.settings import RULES, Config, check
from jaxshare.envs.lbf.start import drawing
from jaxshare.envs.lbf.state import State, tables
from jaxshare.envs.lbf.task import SCENARIOS, Task, parse
from jaxshare.types import Array, Discrete, Env, EnvSpec, TimeStep

ACTIONS = "discrete"


def scenarios() -> tuple[str, ...]:
    """The usual tasks; every other id of the pattern works too."""
    return SCENARIOS


def make(config: Config) -> Env:
    """Level-based foraging. Raises RefusedError for a wrong id and for impossible settings."""
    task = parse(config.scenario, config.sight)
    check(config, task)

    # its parts
    spec = _spec(config, task)
    show = _showing(config, task, spec)
    draw = drawing(config, task)
    play = playing(config, task)

    def reset(key: Array) -> tuple[State, TimeStep]:
        state = draw(key)
        return state, show(state, jnp.zeros(task.players), jnp.zeros(()))

    def step(state: State, action: Array, key: Array) -> tuple[State, TimeStep]:
        state, reward, eaten_share = play(state, action)
        return state, show(state, reward, eaten_share)

    return Env(spec, reset, step, render=picture.painting(task.rows, task.cols))


def _spec(config: Config, task: Task) -> EnvSpec:
    # sizes of the views
    things = task.foods + task.players
    cells = (2 * task.sight + 1) ** 2
    obs_dim = 3 * cells if config.grid_observation else 3 * things

    # older rules are another task
    older = "" if config.rules == RULES[-1] else f"-{config.rules}"
    name = f"lbf/{task.name}{older}"
    common_reward = config.reward == "sum"
    return team_spec(
        name,
        task.players,
        obs_dim=obs_dim,
        action=Discrete(NUM_ACTIONS),
        episode_limit=config.max_steps,
        state_dim=3 * things,
        common_reward=common_reward,
    )


def _showing(
    config: Config, task: Task, spec: EnvSpec
) -> Callable[[State, Array, Array], TimeStep]:
    """A function of the state, the rewards [N] and the share of food eaten in this step, []."""
    observe = views.observing(config.grid_observation, task)

    def show(state: State, reward: Array, eaten_share: Array) -> TimeStep:
        players, foods = tables(state)
        present = state.food_level > 0
        others = {"state": jnp.concatenate([foods, players]).reshape(-1)}
        if config.mask_actions:
            others["avail"] = allowed_actions(task, state)
        if config.reward == "sum":
            reward = jnp.sum(reward)

        # a food that had no room is no end: nothing ends before the first step
        terminated = ~jnp.any(present) & (state.step > 0)
        return time_step(
            spec,
            observe(players, foods, present),
            time=state.step,
            reward=reward,
            terminated=terminated,
            info={"food_eaten": eaten_share},
            **others,
        )

    return show

"""Any environment of jaxmarl 0.2.0, by its id: `env=jaxmarl env.id=overcooked`.

Source: jaxmarl (Rutherford et al. 2023), stepped by its non-resetting `step_env`. For SMAX and the
particle tasks prefer `env=smax` and `env=mpe`, which know more about them (wins, normalised state,
scripted prey).

Faithful: dynamics, start states, observations, rewards, available actions; all are jaxmarl's own.
Departs, on purpose:

* Every agent that jaxmarl names is a learner, opponents too (`MPE_simple_tag_v3`, `SMAX`): there
  the sum of the rewards says little.
* Observations are flattened (images too) and padded with zeros to the largest of any agent.
* Discrete actions are masked: by jaxmarl's masks where it has them (SMAX, and Hanabi's legal
  moves), else up to each agent's number. Continuous ones are padded to the largest size and
  clipped; where two agents' bounds differ, the action lies in [-1, 1] and is scaled to each agent's
  box. An id with both kinds is refused.
* The state is jaxmarl's `world_state` if it has one number list for all (SMAX: raw), else the
  observations in a row.
* Agents are of one type if their names agree but for the number, and their sizes too.
* `alive` is false for the dead of SMAX and for the gone of jaxnav with `evaporating`; all others
  always live.
* `max_steps` is exact. jaxmarl's own limit is moved out of reach (but for overcooked, whose
  observations count down to it and which has no other end), so that what it still calls done is a
  terminal state; the limit of this module is `truncated`. None takes jaxmarl's number (MPE 25, SMAX
  100, overcooked 400, jaxnav 500, switch_riddle 4N-6, coin_game 100, storm 152, brax 1000). Hanabi
  has none: None takes a number of turns that no game can reach.
* coin_game and storm are chains of inner games, which start anew by themselves: the observation
  after the last step of one is the first of the next. jaxmarl pays nothing on that step.
* `common_reward=True` gives every agent the sum; ids whose agents share one reward anyway stay as
  they are.
* `kwargs` goes to `jaxmarl.make`; the names of an overcooked layout and of a SMAX scenario are
  looked up.
* `render` draws the observations, not the world: jaxmarl's painters need whole sequences of states,
  or a display.

Not here: `LearnedPolicyEnemySMAX` (needs a network), and what needs another package: `ant_4x2`,
`halfcheetah_6x1`, `hopper_3x1`, `humanoid_9|8`, `walker2d_2x3` (brax: they work once it is
installed, though they are not listed; jaxmarl maps the observations of halfcheetah and humanoid
wrongly) and `JaxRobotarium_*`. The `MPE_simple_facmac*` ids run, but with five faults: prefer
`env=mpe env.scenario=pred_prey_3a`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxshare.envs._jaxmarl import lenient
from jaxshare.envs.base import time_step
from jaxshare.envs.jaxmarl import picture, views
from jaxshare.envs.jaxmarl.actions import common_actions, width
from jaxshare.envs.jaxmarl.game import Config, Game, limited_game
from jaxshare.envs.jaxmarl.groups import group_agents
from jaxshare.envs.jaxmarl.ids import IDS, SHARED_REWARD
from jaxshare.settings.validate import check_record
from jaxshare.types import Array, Env, EnvSpec, TimeStep

ACTIONS = "discrete or continuous"
GameState = Any  # jaxmarl's
Dones = dict[Any, Array]  # by agent, and "__all__"


@struct.dataclass
class State:
    """The game's own state, our count of steps, and what was last shown (for pictures)."""

    game: GameState
    step: Array  # [] i32
    obs: Array  # [N, O] f32


@dataclass(frozen=True)
class Facts:
    """What is static about a game, and how its parts are read."""

    game: Game
    spec: EnvSpec
    decode: Callable[[Array], list[Array]]  # action -> one per agent, as the game wants it
    available: Callable[..., Array]  # game state -> [N, A]
    whole: views.Whole | None
    template: GameState  # its shapes and types
    share: bool  # every agent receives the sum of the rewards
    mortal: bool  # an agent's own `done` means that it is dead
    terminal: bool  # `done` of all means a terminal state


def scenarios() -> tuple[str, ...]:
    """Ids that can be made with jaxmarl alone, without importing it."""
    return IDS


def make(config: Config) -> Env:
    """The environment with this id. Raises RefusedError if it is unknown or cannot be made."""
    check_record(config, "env.")
    facts = _facts(config)
    return Env(facts.spec, _resetting(facts), _stepping(facts), render=paint)


def paint(state: State) -> np.ndarray:
    """What the agents see, as a picture: uint8 [300, 300, 3]."""
    return picture.paint(state.obs)


def _facts(config: Config) -> Facts:
    game, limit = limited_game(config)
    obs, state = jax.eval_shape(lenient(game.reset), jax.random.key(0))

    # sizes
    agent_obs = jax.eval_shape(lambda obs: views.agent_views(game, obs), obs)
    sizes = [view.shape[0] for view in agent_obs]
    whole = views.whole_state(game, obs, state)
    if whole is None:
        state_dim = len(game.agents) * max(sizes)
    else:
        state_dim = jax.eval_shape(whole, obs, state).shape[0]

    # agents
    spaces = [game.action_space(agent) for agent in game.agents]
    actions = common_actions(config.id, spaces)
    widths = [width(space) for space in spaces]
    groups = group_agents(game.agents, list(zip(sizes, widths, strict=True)))
    mask = views.masking(game, state) if actions.choices else None

    # rewards
    is_shared = config.id in SHARED_REWARD
    share = config.common_reward and not is_shared
    spec = EnvSpec(
        name=f"jaxmarl/{config.id}",
        num_agents=len(game.agents),
        obs_dim=max(sizes),
        state_dim=state_dim,
        action=actions.space,
        episode_limit=limit,
        groups=groups.groups,
        group_names=groups.names,
        common_reward=is_shared or config.common_reward,
    )

    # ends
    mortal = "SMAX" in config.id or bool(getattr(game, "evaporating", False))
    terminal = config.id != "overcooked"

    # how masks are read
    available = views.availability(game, actions.choices, mask)
    return Facts(
        game=game,
        spec=spec,
        decode=actions.decode,
        available=available,
        whole=whole,
        template=state,
        share=share,
        mortal=mortal,
        terminal=terminal,
    )


def _resetting(facts: Facts) -> Callable[[Array], tuple[State, TimeStep]]:
    """The function `reset`."""

    @lenient
    def reset(key: Array) -> tuple[State, TimeStep]:
        obs, game_state = facts.game.reset(key)
        rows = views.padded(facts.game, obs, facts.spec.obs_dim)
        state = State(_typed(facts.template, game_state), jnp.int32(0), rows)
        return state, _show(facts, state, obs)

    return reset


def _stepping(facts: Facts) -> Callable[[State, Array, Array], tuple[State, TimeStep]]:
    """The function `step`."""
    game = facts.game

    @lenient
    def step(state: State, action: Array, key: Array) -> tuple[State, TimeStep]:
        actions = _named(facts, facts.decode(action))
        obs, game_state, rewards, dones, _ = game.step_env(key, state.game, actions)
        rows = views.padded(game, obs, facts.spec.obs_dim)
        state = State(_typed(facts.template, game_state), state.step + 1, rows)

        # rewards by name or in a row
        if not isinstance(rewards, dict):
            rewards = {agent: rewards[i] for i, agent in enumerate(game.agents)}
        row = []
        for agent in game.agents:
            number = jnp.asarray(rewards[agent], jnp.float32)
            row.append(number.reshape(()))
        reward = jnp.stack(row)
        if facts.share:
            reward = jnp.sum(reward)
        return state, _show(facts, state, obs, reward, dones)

    return step


def _named(facts: Facts, parts: list[Array]) -> tuple[Array, ...] | dict[Any, Array]:
    """Actions as the game wants them.

    code: storm_2p unpacks its actions, and from a dictionary it would get the keys.
    """
    if facts.spec.name == "jaxmarl/storm_2p":
        return tuple(parts)
    return dict(zip(facts.game.agents, parts, strict=True))


def _show(
    facts: Facts,
    state: State,
    obs: views.Obs,
    reward: Array | float = 0.0,
    dones: Dones | None = None,
) -> TimeStep:
    """reward: [N], or [] for all; dones: None at the start."""
    fields = {"avail": facts.available(state.game)}
    if facts.whole is not None:
        fields["state"] = facts.whole(obs, state.game)

    # what `done` means depends on the game
    terminated: Array | bool = False
    if dones is not None and facts.terminal:
        terminated = dones["__all__"].astype(bool).reshape(())
    if dones is not None and facts.mortal:
        fields["alive"] = ~jnp.stack([dones[agent] for agent in facts.game.agents])
    return time_step(facts.spec, state.obs, state.step, reward, terminated, info={}, **fields)


def _typed(template: GameState, state: GameState) -> GameState:
    """`state` with the types of the first one, none of them weak, as a scan asks of its carry."""

    def convert(want: jax.ShapeDtypeStruct, x: Array) -> Array:
        if jnp.issubdtype(want.dtype, jax.dtypes.prng_key):
            return x
        return jax.lax.convert_element_type(x, want.dtype)

    return jax.tree.map(convert, template, state)

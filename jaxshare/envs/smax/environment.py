"""SMAX: StarCraft-like battles against a scripted enemy, from jaxmarl 0.2.0.

Source: jaxmarl's `HeuristicEnemySMAX` (Rutherford et al. 2023, JaxMARL), stepped by its
non-resetting `step_env`. The maps with Medivacs, Colossi and Spine Crawlers (MMM, MMM2, 1c3s5z,
2s_vs_1sc, 2c_vs_64zg) run by the same rules and a few more, which `skirmish` states.

Faithful: units, physics, start states, enemy policy, observations, available actions; all are
jaxmarl's own. Departs, on purpose:

* `max_steps` is exact. jaxmarl tests its limit before it counts, and so plays one step more than it
  is told.
* A timeout is `truncated`, and only a side without living units that can fight is `terminated`;
  jaxmarl has one flag.
* The dense reward is ten times jaxmarl's, so that a won battle returns exactly 20, the scale of
  SMAC.
* The sparse reward (+1 won, -1 lost, 0 drawn or timed out) is that of SMAC, unscaled.
* The state is jaxmarl's, same size and order, but each number lies in about [0, 1]: jaxmarl gives
  raw positions up to 32, type numbers up to 5, and cooldowns that fall without bound while a unit
  does not shoot.

Unlike SMAC: the map is open and its walls kill, shields are part of health and do not grow back, a
dead agent's one action is "stop" (number 4; in SMAC it is number 0), and the state holds no last
actions. corridor_open is SMAC's corridor without the choke point that makes it winnable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.envs._jaxmarl import import_jaxmarl, lenient
from jaxshare.envs.base import time_step
from jaxshare.envs.smax.maps import LINEUPS, NEW_MAPS, SCENARIOS
from jaxshare.envs.smax.picture import painting
from jaxshare.envs.smax.skirmish import Skirmish
from jaxshare.envs.smax.units import MEDIVAC, NAMES
from jaxshare.settings.fields import flag, static, time_limit
from jaxshare.settings.validate import check_record
from jaxshare.types import Array, Discrete, Env, EnvSpec, TimeStep

ACTIONS = "discrete"
REWARDS = ("dense", "sparse")
ATTACK_MODES = ("closest", "random")
Game = Any  # jaxmarl's `HeuristicEnemySMAX`, or a `Skirmish` with the same interface
State = Any  # theirs


@dataclass(frozen=True)
class Config:
    """Settings of SMAX."""

    scenario: str = static("3m", choices=SCENARIOS, help="which map", source="ours: the smallest")
    reward: str = static(
        "dense",
        choices=REWARDS,
        help="damage plus a bonus for winning (dense), or +1 won, -1 lost, 0 otherwise (sparse)",
        source="code: SMAC",
    )
    reward_scale: float = static(
        10.0,
        above=0,
        help="factor of the dense reward; 10: jaxmarl's return of 2 for a win becomes SMAC's 20",
        source="ours",
    )
    max_steps: int = time_limit(100, source="code: jaxmarl for every map; SMAC has 60 to 400")
    attack_mode: str = static(
        "closest",
        choices=ATTACK_MODES,
        help="whom the enemy shoots at: its nearest foe, or any",
        source="code: jaxmarl",
    )
    enemy_shoots: bool = flag(True, help="the enemy shoots", source="code: jaxmarl")


class Outcome(NamedTuple):
    """What a step led to."""

    reward: Array  # [] f32
    terminated: Array  # [] bool
    won: Array  # [] bool


def scenarios() -> tuple[str, ...]:
    """Names of the maps, without importing jaxmarl."""
    return SCENARIOS


def make(config: Config) -> Env:
    """SMAX on one map. Raises RefusedError for an unknown map, reward or attack mode."""
    check_record(config, "env.")
    return game_env(choose_game(config), config)


def choose_game(config: Config) -> Game:
    """jaxmarl's own game wherever it has the units."""
    if config.scenario in NEW_MAPS:
        allies, enemies = NEW_MAPS[config.scenario]
        return Skirmish(allies, enemies, config.attack_mode, config.enemy_shoots)
    smax = import_jaxmarl("smax")

    # a line-up, or a map that jaxmarl knows
    if config.scenario in LINEUPS:
        allies, enemies = LINEUPS[config.scenario]
        types = jnp.array([NAMES.index(unit) for unit in (*allies, *enemies)], jnp.uint8)
        scenario = smax.Scenario(types, len(allies), len(enemies), False, False)
    else:
        scenario = smax.map_name_to_scenario(config.scenario)
    return smax.HeuristicEnemySMAX(
        scenario=scenario,
        max_steps=config.max_steps - 1,  # code: jaxmarl tests the limit before it counts the step
        attack_mode=config.attack_mode,
        enemy_shoots=config.enemy_shoots,
    )


def game_env(game: Game, config: Config) -> Env:
    """A game as an environment."""
    spec = _spec(game, config)
    show = _showing(game, spec)

    # traced with what jaxmarl's code needs
    @lenient
    def reset(key: Array) -> tuple[State, TimeStep]:
        obs, state = game.reset(key)
        state = _strong(state)
        no = jnp.zeros((), bool)
        return state, show(obs, state, Outcome(jnp.zeros(()), terminated=no, won=no))

    @lenient
    def step(state: State, action: Array, key: Array) -> tuple[State, TimeStep]:
        actions = {agent: action[i] for i, agent in enumerate(game.agents)}
        obs, state, rewards, _, _ = game.step_env(key, state, actions)
        state = _strong(state)
        return state, show(obs, state, _outcome(game, config, state, rewards[game.agents[0]]))

    return Env(spec, reset, step, render=painting(game))


def _spec(game: Game, config: Config) -> EnvSpec:
    groups, group_names = _groups(game)
    return EnvSpec(
        name=f"smax/{config.scenario}",
        num_agents=game.num_allies,
        obs_dim=game.obs_size,
        state_dim=game.state_size,
        action=Discrete(game.num_ally_actions),
        episode_limit=config.max_steps,
        groups=groups,
        group_names=group_names,
    )


def _groups(game: Game) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Agent -> unit type, from 0 on; one group where types are drawn anew in every episode."""
    if game.smacv2_unit_type_generation:
        return (0,) * game.num_allies, ("ally",)
    types = [int(t) for t in np.asarray(game.scenario)[: game.num_allies]]
    present = sorted(set(types))
    groups = tuple(present.index(t) for t in types)
    return groups, tuple(game.unit_type_names[t] for t in present)


def _outcome(game: Game, config: Config, state: State, damage_reward: Array) -> Outcome:
    """Who has won, and what that pays. damage_reward: [], jaxmarl's."""
    is_fighter = state.state.unit_types != NAMES.index(MEDIVAC.name)
    fighting = state.state.unit_alive & is_fighter
    allies = jnp.any(fighting[: game.num_allies])
    enemies = jnp.any(fighting[game.num_allies :])
    won = allies & ~enemies
    lost = enemies & ~allies
    if config.reward == "sparse":
        reward = won.astype(jnp.float32) - lost.astype(jnp.float32)
    else:
        reward = config.reward_scale * damage_reward

    # both at once is a draw: no bonus
    return Outcome(reward, terminated=~allies | ~enemies, won=won)


def _showing(game: Game, spec: EnvSpec) -> Callable[[dict[str, Array], State, Outcome], TimeStep]:
    """The record of what jaxmarl returned. The dead go on receiving the team reward."""

    def show(obs: dict[str, Array], state: State, outcome: Outcome) -> TimeStep:
        units = state.state

        # rows of agents, in place of dictionaries
        allowed = game.get_avail_actions(state)
        world = _normalised(game, obs["world_state"], units.unit_types)
        avail = jnp.stack([allowed[agent] for agent in game.agents])
        alive = units.unit_alive[: game.num_allies]
        others = {"state": world, "avail": avail, "alive": alive}
        rows = jnp.stack([obs[agent] for agent in game.agents])
        return time_step(
            spec,
            rows,
            time=units.step,
            reward=outcome.reward,
            terminated=outcome.terminated,
            info={"won": outcome.won},
            **others,
        )

    return show


def _normalised(game: Game, world_state: Array, unit_types: Array) -> Array:
    """jaxmarl's world state [G], with numbers in about [0, 1].

    It is per unit (health, x, y, cooldown, type bits), then all teams, then all type numbers.
    Cooldowns become what the observations show: a share of the type's own, between 0 and 1.
    """
    units = unit_types.shape[0]
    ends = [world_state.shape[0] - 2 * units, world_state.shape[0] - units]
    features, teams, types = jnp.split(world_state, ends)

    # the features of units
    health, position, cooldown, bits = jnp.split(features.reshape(units, -1), [1, 3, 4], axis=1)
    position = position / jnp.array([game.map_width, game.map_height], jnp.float32)
    longest = game.unit_type_weapon_cooldowns[unit_types][:, None]
    cooldown = jnp.clip(cooldown / longest, 0.0, 1.0)
    features = jnp.concatenate([health, position, cooldown, bits], axis=1)
    return jnp.concatenate([features.reshape(-1), teams, types / (game.unit_type_bits - 1)])


def _strong(state: State) -> State:
    """code: parts of jaxmarl's first state are weakly typed, which a scan refuses as a carry."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), state)

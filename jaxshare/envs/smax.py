"""SMAX: StarCraft-like battles against a scripted enemy, from jaxmarl 0.2.0.

Source: jaxmarl's `HeuristicEnemySMAX` (Rutherford et al. 2023, JaxMARL), stepped by its non-resetting `step_env`. The
maps with Medivacs, Colossi and Spine Crawlers (MMM, MMM2, 1c3s5z, 2s_vs_1sc, 2c_vs_64zg) run by the same rules and a
few more, which `_smax_units` states.

Faithful: units, physics, start states, enemy policy, observations, available actions; all are jaxmarl's own.
Departs, on purpose:

* `max_steps` is exact. jaxmarl tests its limit before it counts, and so plays one step more than it is told.
* A timeout is `truncated`, and only a side without living units that can fight is `terminated`; jaxmarl has one flag.
* The dense reward is ten times jaxmarl's, so that a won battle returns exactly 20, the scale of SMAC.
* The sparse reward (+1 won, -1 lost, 0 drawn or timed out) is that of SMAC, unscaled.
* The state is jaxmarl's, same size and order, but each number lies in about [0, 1]: jaxmarl gives raw positions up to
  32, type numbers up to 5, and cooldowns that fall without bound while a unit does not shoot.

Unlike SMAC: the map is open and its walls kill, shields are part of health and do not grow back, a dead agent's one
action is "stop" (number 4; in SMAC it is number 0), and the state holds no last actions. corridor_open is SMAC's
corridor without the choke point that makes it winnable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.envs import _raster, _smax_units
from jaxshare.envs._jaxmarl import import_jaxmarl, lenient
from jaxshare.settings.fields import flag, static, time_limit
from jaxshare.settings.validate import check_record
from jaxshare.types import Array, Discrete, Env, EnvSpec, TimeStep

ACTIONS = "discrete"
STOCK = (
    "3m",
    "2s3z",
    "25m",
    "3s5z",
    "8m",
    "5m_vs_6m",
    "10m_vs_11m",
    "27m_vs_30m",
    "3s5z_vs_3s6z",
    "3s_vs_5z",
    "6h_vs_8z",
    "smacv2_5_units",
    "smacv2_10_units",
    "smacv2_20_units",
)
LINEUPS = {  # allies, enemies: SMAC's, of units that jaxmarl has
    "8m_vs_9m": (("marine",) * 8, ("marine",) * 9),
    "corridor_open": (
        ("zealot",) * 6,
        ("zergling",) * 24,
    ),  # SMAC's corridor, whose choke point SMAX cannot have
}
SCENARIOS = (*STOCK, *LINEUPS, *_smax_units.MAPS)
REWARDS = ("dense", "sparse")
ATTACK_MODES = ("closest", "random")


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


def scenarios() -> tuple[str, ...]:
    """Names of the maps, without importing jaxmarl."""
    return SCENARIOS


def make(config: Config) -> Env:
    """SMAX on one map. Raises RefusedError for an unknown map, reward or attack mode."""
    _check(config)
    return _env(_game(config), config)


def _game(config: Config) -> Any:
    """jaxmarl's own game wherever it has the units."""
    if config.scenario in _smax_units.MAPS:
        allies, enemies = _smax_units.MAPS[config.scenario]
        return _smax_units.Skirmish(allies, enemies, config.attack_mode, config.enemy_shoots)
    smax = import_jaxmarl("smax")
    if config.scenario in LINEUPS:
        allies, enemies = LINEUPS[config.scenario]
        types = jnp.array(
            [_smax_units.NAMES.index(unit) for unit in (*allies, *enemies)], jnp.uint8
        )
        scenario = smax.Scenario(types, len(allies), len(enemies), False, False)
    else:
        scenario = smax.map_name_to_scenario(config.scenario)
    return smax.HeuristicEnemySMAX(
        scenario=scenario,
        max_steps=config.max_steps - 1,  # code: jaxmarl tests the limit before it counts the step
        attack_mode=config.attack_mode,
        enemy_shoots=config.enemy_shoots,
    )


def _env(game: Any, config: Config) -> Env:
    return Env(
        spec=_spec(game, config), reset=_reset(game), step=_step(game, config), render=_render(game)
    )


def _check(config: Config) -> None:
    check_record(config, "env.")


def _spec(game: Any, config: Config) -> EnvSpec:
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


def _groups(game: Any) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Agent -> unit type, renumbered from 0; one group where the types are drawn anew in every episode."""
    if game.smacv2_unit_type_generation:
        return (0,) * game.num_allies, ("ally",)
    types = [int(t) for t in np.asarray(game.scenario)[: game.num_allies]]
    present = sorted(set(types))
    return tuple(present.index(t) for t in types), tuple(game.unit_type_names[t] for t in present)


def _reset(game: Any) -> Callable[[Array], tuple[Any, TimeStep]]:
    @lenient
    def reset(key: Array) -> tuple[Any, TimeStep]:
        obs, state = game.reset(key)
        state = _strong(state)
        no = jnp.zeros((), bool)
        zero = jnp.zeros((), jnp.float32)
        return state, _show(game, obs, state, reward=zero, terminated=no, truncated=no, won=no)

    return reset


def _step(game: Any, config: Config) -> Callable[[Any, Array, Array], tuple[Any, TimeStep]]:
    @lenient
    def step(state: Any, action: Array, key: Array) -> tuple[Any, TimeStep]:
        actions = {agent: action[i] for i, agent in enumerate(game.agents)}
        obs, state, rewards, _, _ = game.step_env(key, state, actions)
        state = _strong(state)
        fighting = state.state.unit_alive & (state.state.unit_types != _smax_units.MEDIVAC)
        allies, enemies = (jnp.any(side) for side in jnp.split(fighting, [game.num_allies]))
        won, lost = allies & ~enemies, enemies & ~allies
        terminated = ~allies | ~enemies  # both at once is a draw: no bonus
        truncated = ~terminated & (state.state.step >= config.max_steps)
        if config.reward == "sparse":
            reward = won.astype(jnp.float32) - lost.astype(jnp.float32)
        else:
            reward = config.reward_scale * rewards[game.agents[0]]
        return state, _show(
            game, obs, state, reward=reward, terminated=terminated, truncated=truncated, won=won
        )

    return step


def _show(
    game: Any,
    obs: dict[str, Array],
    state: Any,
    *,
    reward: Array,
    terminated: Array,
    truncated: Array,
    won: Array,
) -> TimeStep:
    """The record of what jaxmarl returned. The dead go on receiving the team reward."""
    avail = game.get_avail_actions(state)
    return TimeStep(
        obs=jnp.stack([obs[agent] for agent in game.agents]),
        state=_normalised(game, obs["world_state"], state.state.unit_types),
        avail=jnp.stack([avail[agent] for agent in game.agents]).astype(bool),
        alive=state.state.unit_alive[: game.num_allies],
        reward=jnp.broadcast_to(reward, (game.num_allies,)),
        terminated=terminated,
        truncated=truncated,
        info={"won": won.astype(jnp.float32)},
    )


def _normalised(game: Any, world_state: Array, unit_types: Array) -> Array:
    """jaxmarl's world state [G] = per unit (health, x, y, cooldown, type bits), then all teams, then all type numbers.

    Cooldowns become what the observations show: a share of the type's own, between 0 and 1.
    """
    units = unit_types.shape[0]
    features, teams, types = jnp.split(
        world_state, [world_state.shape[0] - 2 * units, world_state.shape[0] - units]
    )
    health, position, cooldown, bits = jnp.split(features.reshape(units, -1), [1, 3, 4], axis=1)
    position = position / jnp.array([game.map_width, game.map_height], jnp.float32)
    cooldown = jnp.clip(cooldown / game.unit_type_weapon_cooldowns[unit_types][:, None], 0.0, 1.0)
    features = jnp.concatenate([health, position, cooldown, bits], axis=1)
    return jnp.concatenate([features.reshape(-1), teams, types / (game.unit_type_bits - 1)])


def _strong(state: Any) -> Any:
    """code: parts of jaxmarl's first state are weakly typed, which a scan refuses as a carry."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), state)


def _render(game: Any) -> Callable[[Any], np.ndarray]:
    radii, full = np.asarray(game.unit_type_radiuses), np.asarray(game.unit_type_health)

    def render(state: Any) -> np.ndarray:
        """The battlefield as uint8 [300, 300, 3]: allies blue, enemies red, a bar of health above each living unit.

        Air units are rings, Colossi have a grey head, and units that never move are square.
        """
        units = jax.device_get(state.state)
        picture = _raster.canvas(0.0, float(game.map_width))
        for i in np.flatnonzero(units.unit_alive):
            (x, y), kind = units.unit_positions[i], _smax_units.UNIT_TYPES[units.unit_types[i]]
            radius, health = (
                radii[units.unit_types[i]],
                units.unit_health[i] / full[units.unit_types[i]],
            )
            colour = _raster.BLUE if i < game.num_allies else _raster.RED
            if kind.speed == 0:
                picture.box(x - radius, y - radius, 2 * radius, 2 * radius, colour)
            else:
                picture.disc(x, y, radius, colour)
            if kind.layer != _smax_units.GROUND:
                picture.disc(
                    x,
                    y,
                    radius / 2,
                    _raster.WHITE if kind.layer == _smax_units.AIR else _raster.GREY,
                )
            picture.box(x - radius, y + radius + 0.1, 2 * radius, 0.2, _raster.GREY)
            picture.box(x - radius, y + radius + 0.1, 2 * radius * health, 0.2, _raster.GREEN)
        return picture.image

    return render

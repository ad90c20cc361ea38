"""What allies see and may do, and the global state; features and their order are jaxmarl's."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxshare.envs.smax.army import NUM_MOVES, STOP, Army
from jaxshare.envs.smax.state import SIDE, Units
from jaxshare.envs.smax.units import NAMES
from jaxshare.envs.smax.vectors import length
from jaxshare.types import Array


class View(NamedTuple):
    """What is shown of a battlefield."""

    obs: Array  # [n, O] of the allies
    world: Array  # [G]


def obs_size(army: Army) -> int:
    """Numbers that an ally observes."""
    others = len(army.kinds) - 1
    return (7 + len(NAMES)) * others + 4 + len(NAMES)


def state_size(army: Army) -> int:
    """Numbers of the global state."""
    return (6 + len(NAMES)) * len(army.kinds)


def observing(army: Army) -> Callable[[Units], View]:
    """A function of the battlefield."""
    n = army.num_allies
    total = len(army.kinds)
    types = np.eye(len(NAMES), dtype=np.float32)[army.kinds]
    others = np.array([np.delete(np.arange(total), i) for i in range(n)])
    last_action = np.where(army.is_enemy, army.num_enemy_actions - 1, army.num_ally_actions - 1)
    last_action = last_action.astype(np.float32)
    tail = [army.is_enemy.astype(np.float32), army.kinds.astype(np.float32)]

    def observe(units: Units) -> View:
        alive = units.unit_alive
        position = units.unit_positions
        cooldown = units.unit_weapon_cooldowns[:, None]
        health = (units.unit_health / army.health)[:, None]

        # what is known of every unit
        waiting = jnp.clip(cooldown / army.cooldown[:, None], 0.0, 1.0)
        attacked = (units.prev_attack_actions / last_action)[:, None]
        doing = jnp.concatenate([units.prev_movement_actions, attacked, waiting, types], axis=1)

        # others, where they are alive and in sight: [n, N-1, features]
        away = position[others] - position[:n, None]
        in_sight = length(away) < army.sight[:n, None]
        visible = in_sight & alive[others] & alive[:n, None]
        relative = away / army.sight[:n, None, None]
        rows = jnp.concatenate([health[others], relative, doing[others]], axis=2)
        rows = jnp.where(visible[:, :, None], rows, 0.0).reshape(n, -1)

        # the ally itself
        itself = jnp.concatenate([health, position / SIDE, waiting, types], axis=1)[:n]
        obs = jnp.concatenate([rows, itself * alive[:n, None]], axis=1)

        # the whole
        now = jnp.concatenate([health, position, cooldown, types], axis=1) * alive[:, None]
        return View(obs, jnp.concatenate([now.reshape(-1), *tail]))

    return observe


def allowed_actions(army: Army, units: Units) -> Array:
    """Which actions each ally can take, [n, A] bool.

    Targets of healers are allies, of the others enemies.
    """
    n = army.num_allies
    alive = units.unit_alive
    away = units.unit_positions[None, :] - units.unit_positions[:n, None]
    in_reach = length(away) < army.reach[:n, None]
    near = in_reach & alive[:n, None] & alive[None, :]

    # targets
    attack = near & (army.damage[:n] > 0)
    width = army.num_ally_actions - NUM_MOVES
    target = jnp.pad(attack[:, n:], ((0, 0), (0, width - army.num_enemies)))
    if army.heals[:n].any():
        powered = (units.unit_weapon_cooldowns[:n] > 0)[:, None]
        is_hurt = (units.unit_health < army.health)[None, :]
        heal = near & army.can_heal[:n] & powered & is_hurt
        target |= jnp.pad(heal[:, :n], ((0, 0), (0, width - n)))

    # moves; the dead can stop only
    walks = (alive[:n] & (army.speed[:n] > 0))[:, None]
    moves = jnp.repeat(walks, STOP, axis=1)
    return jnp.concatenate([moves, jnp.ones((n, 1), bool), target], axis=1)

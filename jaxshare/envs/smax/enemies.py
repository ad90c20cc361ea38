"""What the scripted enemies do: jaxmarl's policy, and that of healers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxshare.envs.smax.army import NUM_MOVES, STOP, Army
from jaxshare.envs.smax.state import State, Units
from jaxshare.envs.smax.vectors import drawn, length, nearest, one_hot, towards
from jaxshare.types import Array


class Orders(NamedTuple):
    """Of the enemies."""

    action: Array  # [M] i32
    slot: Array  # [M] i32: whom they attack, -1 for nobody


@dataclass(frozen=True)
class Enemies:
    """How they fight. attack_mode: whom they shoot at, closest or random; shoots: whether."""

    army: Army
    attack_mode: str
    shoots: bool

    def orders(self, key: Array, state: State) -> Orders:
        """jaxmarl's policy for all enemies [M], but nobody chases whom it cannot hit."""
        army = self.army
        n = army.num_allies
        m = army.num_enemies
        units = state.state
        move_key, attack_key = jax.vmap(jax.random.split, out_axes=1)(jax.random.split(key, m))

        # allies in slots: vectors [M, n, 2], and whom an enemy sees that it can hit
        allies = units.unit_positions[None, :n][:, ::-1]
        away = allies - units.unit_positions[n:, None]
        distance = length(away)
        alive = units.unit_alive
        armed = army.damage[n:, :n][:, ::-1] > 0
        living = alive[:n][None, ::-1] & alive[n:, None]
        visible = living & armed & (distance < army.sight[n:, None])

        # whom to attack: the last one as long as it is near
        near = visible & (distance < army.reach[n:, None])
        if self.attack_mode == "random":
            choice = drawn(attack_key, near)
        else:
            choice = nearest(near, distance)
        keeps = jnp.any(near & one_hot(state.last_slot, n), axis=1)
        choice = jnp.where(keeps, state.last_slot, choice)
        slot = jnp.where(jnp.any(near, axis=1), choice, -1)

        # where to go: to a random one in sight, else on through the map
        is_quarry = one_hot(drawn(move_key, visible), n)[:, :, None]
        quarry = jnp.sum(jnp.where(is_quarry, away, 0.0), axis=1)
        rest = state.default_target - units.unit_positions[n:]
        move = towards(jnp.where(jnp.any(visible, axis=1)[:, None], quarry, rest))

        # attack before moving
        action = jnp.where((slot >= 0) & self.shoots, slot + NUM_MOVES, move)
        action = jnp.where((army.speed[n:] == 0) & (action < NUM_MOVES), STOP, action)
        if army.heals[n:].any():
            action = jnp.where(army.heals[n:], self._healer_action(units), action)
        return Orders(action.astype(jnp.int32), slot.astype(jnp.int32))

    def _healer_action(self, units: Units) -> Array:
        """Action [M] of each enemy, were it a healer.

        It heals a hurt friend or walks to it, or stays with fighters.
        """
        army = self.army
        n = army.num_allies
        m = army.num_enemies
        position = units.unit_positions[n:]
        alive = units.unit_alive[n:]
        away = position[None, :] - position[:, None]
        distance = length(away)

        # friends to be with: the hurt, else all fighters
        is_hurt = (units.unit_health < army.health)[None, n:]
        hurt = army.can_heal[n:, n:] & alive[None, :] & is_hurt
        has_work = jnp.any(hurt, axis=1)
        company = jnp.where(has_work[:, None], hurt, (alive & ~army.heals[n:])[None, :])

        # the nearest of them
        choice = nearest(company, distance)
        friend = one_hot(choice, m) & company
        reached = jnp.any(friend & (distance < army.reach[n:, None]), axis=1)
        heal = NUM_MOVES + m - 1 - choice
        walk = towards(jnp.sum(jnp.where(friend[:, :, None], away, 0.0), axis=1))
        return jnp.where(reached, jnp.where(has_work, heal, STOP), walk)

"""SMAX with units that jaxmarl lacks, and the maps that need them.

Sources: the rules of jaxmarl 0.2.0's `HeuristicEnemySMAX`; unit numbers from Liquipedia's "Legacy
of the Void" pages; line-ups from the table of maps in Samvelyan et al. 2019 (SMAC).

Faithful: with jaxmarl's six units this is jaxmarl's game (start states, moves, shots, cooldowns
with their random part, collisions, walls, enemy policy, observations, available actions), one step
after the other and from the same keys; the tests drive both. It is written anew because each of
these rules meets a new unit somewhere, and because whole-army arithmetic, and observations for the
learners only, are faster: four times for 27 marines against 30.

The new rules, all from StarCraft II:

* A healer's "attacks" are heals of its own team. It cannot heal itself, the dead, the unhurt, or
  what is not living flesh (Stalker, Colossus, Medivac, Spine Crawler). Healing costs energy, which
  grows back slowly.
* A team with nobody left but healers has lost.
* Air units are out of reach of all but Marine, Stalker and Hydralisk. They, and the Colossus on its
  long legs, collide with their own kind only.
* A Colossus burns every foe on the ground that touches a line through its target, across its line
  of fire.
* A Spine Crawler never moves, not even when it is pushed.

Departs from StarCraft II, on purpose:

* Among themselves jaxmarl's six units keep jaxmarl's flat damage. Bonus damage (against light or
  armoured units) counts where shooter or target is a new unit. There is no armour, and shields are
  health, as everywhere in SMAX.
* A heal needs no initial energy, and several healers may heal one unit.
* Ranges are between centres, as jaxmarl's are.
* Enemy healers know where their friends are: each heals the nearest hurt one, walks to it when it
  is out of reach, and follows the nearest fighter while nobody is hurt.
* The maps are open: without the cliffs of SMAC's map, no script of ours has won 2c_vs_64zg.
* Observations and state show nine type bits per unit, whichever types a map has, and in place of
  the weapon cooldown of a healer its energy, as a share of the most it can have. (SMAC shows energy
  in the state only.)

Reward: SMAC pays for net loss of enemy health, so that healing takes the pay for past damage back.
Here healing changes nothing: damage done is paid, each enemy up to its full health once. A won
battle pays what a surviving healer would have been worth, so that it returns exactly what it does
on other maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.envs.smax import combat, views
from jaxshare.envs.smax.army import NUM_MOVES, Army
from jaxshare.envs.smax.enemies import Enemies
from jaxshare.envs.smax.state import SIDE, State, Units
from jaxshare.envs.smax.units import NAMES, UNIT_TYPES
from jaxshare.types import Array

By = dict[str, Array]  # by name of an agent
Stepped = tuple[By, State, By, By, By]  # jaxmarl's observations, state, rewards, ends, infos
SPREAD = 2.0  # jaxmarl: teams start as far from their points as this


class Skirmish:
    """One map, with as much of the interface of jaxmarl's `HeuristicEnemySMAX` as is used here."""

    map_width = SIDE
    map_height = SIDE
    num_movement_actions = NUM_MOVES
    smacv2_unit_type_generation = False
    unit_type_names = NAMES
    unit_type_bits = len(NAMES)

    def __init__(
        self, allies: Sequence[str], enemies: Sequence[str], attack_mode: str, enemy_shoots: bool
    ):
        self.army = Army(tuple(allies), tuple(enemies))
        self.enemies = Enemies(self.army, attack_mode, enemy_shoots)
        self.observe = views.observing(self.army)

        # what jaxmarl says of itself
        self.num_allies = self.army.num_allies
        self.num_enemies = self.army.num_enemies
        self.scenario = self.army.kinds
        self.agents = tuple(f"ally_{i}" for i in range(self.num_allies))
        self.num_ally_actions = self.army.num_ally_actions
        self.obs_size = views.obs_size(self.army)
        self.state_size = views.state_size(self.army)
        self.unit_type_weapon_cooldowns = jnp.array([unit.cooldown for unit in UNIT_TYPES])
        self.unit_type_radiuses = np.array([unit.radius for unit in UNIT_TYPES])
        self.unit_type_health = np.array([unit.health for unit in UNIT_TYPES])

    def reset(self, key: Array) -> tuple[By, State]:
        """Each team somewhere in a square of its own, at either side of the map.

        Observations are {agent: [O], "world_state": [G]}.
        """
        army = self.army
        n = army.num_allies
        m = army.num_enemies

        # code: the keys that jaxmarl uses
        _, ally_key, enemy_key = jax.random.split(jax.random.split(key)[1], 3)
        allies = _around(ally_key, n, SIDE / 4)
        enemies = _around(enemy_key, m, SIDE / 4 * 3)
        x, y = jnp.concatenate([allies, enemies]).T
        health = jnp.asarray(army.health)
        x, y = combat.pushed(army, x, y, health > 0)
        energy = jnp.where(army.heals, combat.START_ENERGY, 0.0).astype(jnp.float32)

        positions = jnp.stack([x, y], axis=1)
        alive = jnp.ones(n + m, bool)

        # nobody has done anything yet
        types = jnp.asarray(army.kinds)
        moves = jnp.zeros_like(positions)
        attacks = jnp.zeros_like(alive, jnp.int32)
        units = Units(
            unit_positions=positions,
            unit_alive=alive,
            unit_health=health,
            unit_types=types,
            unit_weapon_cooldowns=energy,
            prev_movement_actions=moves,
            prev_attack_actions=attacks,
            step=jnp.int32(0),
        )
        opposite = SIDE - positions[n:]
        state = State(
            state=units,
            default_target=opposite,
            last_slot=jnp.full(m, -1, jnp.int32),
            lost_health=jnp.zeros(m),
        )
        return self._observed(units), state

    def step_env(self, key: Array, state: State, actions: By) -> Stepped:
        """One step. As in jaxmarl, but ends and infos are left empty.

        actions: {agent: [] i32}; observations are those of `reset`, rewards {agent: []}.
        """
        key, policy_key = jax.random.split(key)
        orders = self.enemies.orders(policy_key, state)
        chosen = jnp.stack([actions[agent] for agent in self.agents]).astype(jnp.int32)
        action = jnp.concatenate([chosen, orders.action])
        units, lost = combat.fight(self.army, state.state, action, key)
        lost = state.lost_health + lost
        after = replace(state, state=units, last_slot=orders.slot, lost_health=lost)
        reward = self._reward(state, after)
        return self._observed(units), after, dict.fromkeys(self.agents, reward), {}, {}

    def get_avail_actions(self, state: State) -> By:
        """Which actions [A] each ally can take."""
        mask = views.allowed_actions(self.army, state.state)
        return {agent: mask[i] for i, agent in enumerate(self.agents)}

    def _reward(self, before: State, after: State) -> Array:
        """The share of all enemies' health taken in this step, each once, and 1 for a win."""
        n = self.num_allies
        full = self.army.health[n:]
        fighting = after.state.unit_alive & ~self.army.heals
        won = jnp.any(fighting[:n]) & ~jnp.any(fighting[n:])

        # a won battle pays what a surviving healer would have been worth
        paid = jnp.minimum(before.lost_health, full)
        due = jnp.where(won, full, jnp.minimum(after.lost_health, full))
        return jnp.sum((due - paid) / full) / self.num_enemies + won

    def _observed(self, units: Units) -> By:
        """Observations of the allies, and the world state."""
        view = self.observe(units)
        obs = {agent: view.obs[i] for i, agent in enumerate(self.agents)}
        return {**obs, "world_state": view.world}


def _around(key: Array, count: int, x: float) -> Array:
    """Random points [count, 2] around (x, the middle)."""
    offset = jax.random.uniform(key, (count, 2), minval=-SPREAD, maxval=SPREAD)
    return offset + jnp.array([[x, SIDE / 2]], jnp.float32)

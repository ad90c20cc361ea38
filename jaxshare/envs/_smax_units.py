"""SMAX with units that jaxmarl lacks: Medivac, Colossus and Spine Crawler, and the maps that need them.

Sources: the rules of jaxmarl 0.2.0's `HeuristicEnemySMAX`; unit numbers from Liquipedia's "Legacy of the Void" pages;
line-ups from the table of maps in Samvelyan et al. 2019 (SMAC).

Faithful: with jaxmarl's six units this is jaxmarl's game (start states, moves, shots, cooldowns with their random part,
collisions, walls, enemy policy, observations, available actions), one step after the other and from the same keys; the
tests drive both. It is written anew because each of these rules meets a new unit somewhere, and because whole-army
arithmetic, and observations for the learners only, are faster: four times for 27 marines against 30.

The new rules, all from StarCraft II:

* A healer's "attacks" are heals of its own team. It cannot heal itself, the dead, the unhurt, or what is not living
  flesh (Stalker, Colossus, Medivac, Spine Crawler). Healing costs energy, which grows back slowly.
* A team with nobody left but healers has lost.
* Air units are out of reach of all but Marine, Stalker and Hydralisk. They, and the Colossus on its long legs, collide
  with their own kind only.
* A Colossus burns every foe on the ground that touches a line through its target, across its line of fire.
* A Spine Crawler never moves, not even when it is pushed.

Departs from StarCraft II, on purpose:

* Among themselves jaxmarl's six units keep jaxmarl's flat damage. Bonus damage (against light or armoured units) counts
  where shooter or target is a new unit. There is no armour, and shields are health, as everywhere in SMAX.
* A heal needs no initial energy, and several healers may heal one unit.
* Ranges are between centres, as jaxmarl's are.
* Enemy healers know where their friends are: each heals the nearest hurt one, walks to it when it is out of reach, and
  follows the nearest fighter while nobody is hurt.
* The maps are open: without the cliffs of SMAC's map, no script of ours has won 2c_vs_64zg.
* Observations and state show nine type bits per unit, whichever types a map has, and in place of the weapon cooldown of
  a healer its energy, as a share of the most it can have. (SMAC shows energy in the state only.)

Reward: SMAC pays for net loss of enemy health, so that healing takes the pay for past damage back. Here healing changes
nothing: damage done is paid, each enemy up to its full health once. A won battle pays what a surviving healer would
have been worth, so that it returns exactly what it does on other maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxshare.types import Array

GROUND, WALKER, AIR = range(3)  # layers of collision: a unit pushes those of its own layer only


class UnitType(NamedTuple):
    """What is known of a type of unit. Seconds are those of the game speed "Faster", as in jaxmarl."""

    name: str
    speed: float
    damage: float
    cooldown: float
    reach: float  # range of attack or heal
    sight: float
    radius: float
    health: float  # with shields
    bonus: float = 0.0  # further damage to targets that have `bonus_on`
    bonus_on: str = ""  # "light" or "armoured"
    armour: str = ""  # "light", "armoured" or neither
    flesh: bool = True  # can be healed
    layer: int = GROUND
    hits_air: bool = False
    heals: bool = False
    splash: tuple[float, float] | None = (
        None  # half the length and half the width of the line that a hit burns
    )


UNIT_TYPES = (
    # the seven numbers of these six are jaxmarl's; the rest is Liquipedia's
    UnitType("marine", 3.15, 9.0, 0.61, 5.0, 9.0, 0.375, 45.0, armour="light", hits_air=True),
    UnitType(
        "marauder", 2.25, 10.0, 1.07, 6.0, 10.0, 0.5625, 125.0, 10.0, "armoured", armour="armoured"
    ),
    UnitType(
        "stalker",
        4.13,
        13.0,
        1.87,
        6.0,
        10.0,
        0.625,
        160.0,
        5.0,
        "armoured",
        "armoured",
        flesh=False,
        hits_air=True,
    ),
    UnitType("zealot", 3.15, 8.0, 0.86, 2.0, 9.0, 0.5, 150.0, armour="light"),
    UnitType("zergling", 4.13, 5.0, 0.5, 2.0, 8.0, 0.375, 35.0, armour="light"),
    UnitType("hydralisk", 3.15, 12.0, 0.59, 5.0, 9.0, 0.625, 80.0, armour="light", hits_air=True),
    UnitType(
        "medivac",
        speed=3.5,  # Liquipedia
        damage=0.0,  # Liquipedia: unarmed
        cooldown=200.0,  # ours: the slot holds its energy, and this is the most it can have (Liquipedia: 50 of 200)
        reach=4.0,  # Liquipedia, Heal
        sight=11.0,  # Liquipedia
        radius=0.75,  # StarCraft II unit data
        health=150.0,  # Liquipedia
        armour="armoured",  # Liquipedia
        flesh=False,  # Liquipedia: mechanical
        layer=AIR,
        heals=True,
    ),
    UnitType(
        "colossus",
        speed=3.15,  # Liquipedia
        damage=20.0,  # Liquipedia, from patch 4.0 on: 10, twice
        cooldown=1.07,  # Liquipedia
        reach=7.0,  # Liquipedia, without Extended Thermal Lance
        sight=10.0,  # Liquipedia
        radius=1.0,  # StarCraft II unit data
        health=350.0,  # Liquipedia: 200 and shields of 150
        bonus=10.0,  # Liquipedia: 5, twice
        bonus_on="light",
        armour="armoured",  # Liquipedia
        flesh=False,  # Liquipedia: mechanical
        layer=WALKER,
        splash=(1.4, 0.15),  # StarCraft II unit data: a line 2.8 long and 0.3 wide
    ),
    UnitType(
        "spine_crawler",
        speed=0.0,  # rooted
        damage=25.0,  # Liquipedia
        cooldown=1.32,  # Liquipedia
        reach=7.0,  # Liquipedia
        sight=11.0,  # Liquipedia
        radius=1.0,  # Liquipedia: a building of 2x2
        health=300.0,  # Liquipedia
        bonus=5.0,  # Liquipedia
        bonus_on="armoured",
        armour="armoured",  # Liquipedia
        flesh=False,  # Liquipedia, Heal: no structures
    ),
)
NAMES = tuple(unit.name for unit in UNIT_TYPES)
NUM_BASE = 6  # jaxmarl's own
MEDIVAC = NAMES.index("medivac")
START_ENERGY, MAX_ENERGY = 50.0, 200.0  # Liquipedia
ENERGY_PER_SECOND = 0.7875  # Liquipedia
HEALTH_PER_ENERGY = 3.0  # Liquipedia, Heal
HEALTH_PER_SECOND = (
    12.6  # Liquipedia: 9 in a second of speed "Normal", which is 1/1.4 of one of "Faster"
)

SIDE = 32.0  # jaxmarl: of the square map
SECONDS = 1 / 16  # jaxmarl: of one world step
WORLD_STEPS = 8  # jaxmarl: in one step of the environment
MOVES = (
    (0.0, 1.0),
    (1.0, 0.0),
    (0.0, -1.0),
    (-1.0, 0.0),
    (0.0, 0.0),
)  # actions 0 to 4; 4 is "stop"
STOP, NUM_MOVES = 4, 5

Army = tuple[str, ...]
MAPS: dict[
    str, tuple[Army, Army]
] = {  # allies, enemies: the table of SMAC's paper, types in the order of their names
    "MMM": (("marauder",) * 2 + ("marine",) * 7 + ("medivac",),) * 2,
    "MMM2": (
        ("marauder",) * 2 + ("marine",) * 7 + ("medivac",),
        ("marauder",) * 3 + ("marine",) * 8 + ("medivac",),
    ),
    "1c3s5z": (("colossus",) + ("stalker",) * 3 + ("zealot",) * 5,) * 2,
    "2s_vs_1sc": (("stalker",) * 2, ("spine_crawler",)),
    "2c_vs_64zg": (("colossus",) * 2, ("zergling",) * 64),
}


@struct.dataclass
class Units:
    """The battlefield, with the names of jaxmarl's record. The weapon cooldown of a healer is its energy."""

    unit_positions: Array  # [N, 2]
    unit_alive: Array  # [N] bool
    unit_health: Array  # [N]
    unit_types: Array  # [N] i32
    unit_weapon_cooldowns: Array  # [N]
    prev_movement_actions: Array  # [N, 2]
    prev_attack_actions: Array  # [N] i32
    step: Array  # [] i32


@struct.dataclass
class State:
    """The battlefield, what the enemies remember, and what the learners were paid for."""

    state: Units
    default_target: Array  # [M, 2]: where an enemy goes that sees nobody
    last_slot: Array  # [M] i32: whom it attacked last, -1 for nobody
    lost_health: Array  # [M]: of each enemy since the start, healed or not


class Skirmish:
    """One map, with as much of the interface of jaxmarl's `HeuristicEnemySMAX` as `jaxshare.envs.smax` uses.

    N units are n allies, then M enemies. The enemies count units from the last to the first, as in jaxmarl: "slot" k of
    theirs is ally n-1-k, or friend N-1-k for a healer.
    """

    map_width = map_height = SIDE
    num_movement_actions = NUM_MOVES
    smacv2_unit_type_generation = False
    unit_type_names = NAMES
    unit_type_bits = len(NAMES)

    def __init__(
        self, allies: Sequence[str], enemies: Sequence[str], attack_mode: str, enemy_shoots: bool
    ):
        self.attack_mode, self.enemy_shoots = attack_mode, enemy_shoots
        self.num_allies, self.num_enemies = n, m = len(allies), len(enemies)
        self.scenario = kinds = np.array(
            [NAMES.index(name) for name in (*allies, *enemies)], np.int32
        )
        self.agents = tuple(f"ally_{i}" for i in range(n))
        types = [UNIT_TYPES[kind] for kind in kinds]
        self.speed, self.reach, self.sight, self.radius, self.health, self.cooldown = (
            np.array([getattr(unit, field) for unit in types], np.float32)
            for field in ("speed", "reach", "sight", "radius", "health", "cooldown")
        )
        self.heals = np.array([unit.heals for unit in types])
        self.healers = np.flatnonzero(self.heals)
        self.splashers = np.flatnonzero([unit.splash is not None for unit in types])
        self._pairs(types)
        self._slots()
        self.num_ally_actions = NUM_MOVES + (max(n, m) if self.heals[:n].any() else m)
        self.num_enemy_actions = NUM_MOVES + (max(n, m) if self.heals[n:].any() else n)
        self.last_action = np.array(
            [self.num_ally_actions - 1] * n + [self.num_enemy_actions - 1] * m, np.float32
        )
        self.teams = np.array([0] * n + [1] * m, np.float32)
        self.others = np.array([[j for j in range(n + m) if j != i] for i in range(n)])
        self.obs_size = (7 + len(NAMES)) * (n + m - 1) + 4 + len(NAMES)
        self.state_size = (6 + len(NAMES)) * (n + m)
        self.unit_type_weapon_cooldowns = jnp.array([unit.cooldown for unit in UNIT_TYPES])
        self.unit_type_radiuses = np.array([unit.radius for unit in UNIT_TYPES])
        self.unit_type_health = np.array([unit.health for unit in UNIT_TYPES])

    def _pairs(self, types: Sequence[UnitType]) -> None:
        """What unit i (row) does to unit j (column): its damage, whether it can heal it, whether it pushes it."""
        team = np.arange(len(types)) >= self.num_allies
        friends = team[:, None] == team[None, :]
        other = ~np.eye(len(types), dtype=bool)
        self.damage = (
            np.array([[damage(i, j) for j in types] for i in types], np.float32) * ~friends
        )
        self.can_heal = (
            self.heals[:, None]
            & np.array([unit.flesh for unit in types])[None, :]
            & friends
            & other
        )
        layer = np.array([unit.layer for unit in types])
        self.pushes = ((layer[:, None] == layer[None, :]) & other).astype(np.float32)
        self.contact = self.radius[:, None] + self.radius[None, :]
        self.half_length, self.width = (
            np.array([types[i].splash for i in self.splashers.tolist()], np.float32)
            .reshape(-1, 2)
            .T
        )

    def _slots(self) -> None:
        """Action NUM_MOVES + k of unit i aims at unit first[i] + order[i] * k, for k below slots[i]."""
        n, m = self.num_allies, self.num_enemies
        enemy = np.arange(n + m) >= n
        self.first = np.where(
            enemy, np.where(self.heals, n + m - 1, n - 1), np.where(self.heals, 0, n)
        )
        self.order = np.where(enemy, -1, 1)
        self.slots = np.where(enemy == self.heals, m, n)

    def reset(self, key: Array) -> tuple[dict[str, Array], State]:
        """Each team somewhere in a square of its own, at either side of the map."""
        n, m = self.num_allies, self.num_enemies
        _, ally_key, enemy_key = jax.random.split(
            jax.random.split(key)[1], 3
        )  # code: the keys that jaxmarl uses
        allies = jax.random.uniform(ally_key, (n, 2), minval=-2.0, maxval=2.0) + _point(
            SIDE / 4, SIDE / 2
        )
        enemies = jax.random.uniform(enemy_key, (m, 2), minval=-2.0, maxval=2.0) + _point(
            SIDE / 4 * 3, SIDE / 2
        )
        x, y = jnp.concatenate([allies, enemies]).T
        health = jnp.asarray(self.health)
        x, y = self._pushed(x, y, health > 0)
        units = Units(
            unit_positions=jnp.stack([x, y], axis=1),
            unit_alive=jnp.ones(n + m, bool),
            unit_health=health,
            unit_types=jnp.asarray(self.scenario),
            unit_weapon_cooldowns=jnp.where(self.heals, START_ENERGY, 0.0).astype(jnp.float32),
            prev_movement_actions=jnp.zeros((n + m, 2), jnp.float32),
            prev_attack_actions=jnp.zeros(n + m, jnp.int32),
            step=jnp.zeros((), jnp.int32),
        )
        state = State(
            state=units,
            default_target=SIDE - units.unit_positions[n:],
            last_slot=jnp.full(m, -1, jnp.int32),
            lost_health=jnp.zeros(m, jnp.float32),
        )
        return self._observed(units), state

    def step_env(
        self, key: Array, state: State, actions: dict[str, Array]
    ) -> tuple[dict[str, Array], State, dict[str, Array], dict[str, Array], dict[str, Array]]:
        """One step. As in jaxmarl: observations, state, rewards, ends (left empty here) and infos (empty)."""
        key, policy_key = jax.random.split(key)
        orders, last_slot = self._enemy_orders(policy_key, state)
        action = jnp.concatenate(
            [jnp.stack([actions[agent] for agent in self.agents]).astype(jnp.int32), orders]
        )
        units, lost = self._fought(key, state.state, action)
        after = replace(
            state, state=units, last_slot=last_slot, lost_health=state.lost_health + lost
        )
        reward = self._reward(state, after)
        return self._observed(units), after, dict.fromkeys(self.agents, reward), {}, {}

    def _fought(self, key: Array, units: Units, action: Array) -> tuple[Units, Array]:
        """The battlefield after all world steps of one step, and the health [M] that enemies lost on the way."""
        moves = jnp.sum(
            jnp.where(_one_hot(action, NUM_MOVES)[:, :, None], jnp.array(MOVES)[None], 0.0), axis=1
        )
        target = self._targets(action)

        def world_step(carry: Any, noise: Array) -> tuple[Any, None]:
            x, y, health, cooldown, lost = carry
            hurt, cooldown, left = self._shots(x, y, health, cooldown, target, noise)
            alive = health > 0
            x = jnp.where(alive, jnp.clip(x + moves[:, 0] * self.speed * SECONDS, 0.0, SIDE), x)
            y = jnp.where(alive, jnp.clip(y + moves[:, 1] * self.speed * SECONDS, 0.0, SIDE), y)
            on_wall = (x <= 0.0) | (y <= 0.0) | (x >= SIDE) | (y >= SIDE)
            left, hurt = jnp.where(on_wall, 0.0, left), hurt + jnp.where(on_wall, left, 0.0)
            x, y = self._pushed(x, y, left > 0)
            return (x, y, left, cooldown, lost + hurt[self.num_allies :]), None

        x, y = units.unit_positions.T
        start = (
            x,
            y,
            units.unit_health,
            units.unit_weapon_cooldowns,
            jnp.zeros(self.num_enemies, jnp.float32),
        )
        (x, y, health, cooldown, lost), _ = jax.lax.scan(world_step, start, self._noise(key))
        units = replace(
            units,
            unit_positions=jnp.stack([x, y], axis=1),
            unit_alive=health > 0,
            unit_health=health,
            unit_weapon_cooldowns=cooldown,
            prev_movement_actions=moves,
            prev_attack_actions=jnp.where(action >= NUM_MOVES, action, 0),
            step=units.step + 1,
        )
        return units, lost

    def _noise(self, key: Array) -> Array:
        """The random part [WORLD_STEPS, N] of the cooldowns, from the keys that jaxmarl uses."""

        def chain(key: Array, _: None) -> tuple[Array, Array]:
            key, world_key = jax.random.split(key)
            return key, jax.random.split(world_key, len(self.scenario))

        _, keys = jax.lax.scan(chain, key, None, length=WORLD_STEPS)
        draw = lambda key: jax.random.uniform(key, minval=-SECONDS, maxval=2 * SECONDS)  # noqa: E731
        return jax.vmap(jax.vmap(draw))(keys)

    def _targets(self, action: Array) -> Array:
        """The unit [N] that each unit's action aims at; itself for nobody."""
        slot = action - NUM_MOVES
        return jnp.where(
            (slot >= 0) & (slot < self.slots),
            self.first + self.order * slot,
            np.arange(len(self.first)),
        )

    def _shots(
        self, x: Array, y: Array, health: Array, cooldown: Array, target: Array, noise: Array
    ) -> tuple[Array, Array, Array]:
        """All attacks and heals of one world step: health lost [N], cooldowns [N] and health left [N]."""
        alive = health > 0
        aim = _one_hot(target, len(self.scenario))
        away_x, away_y = x[target] - x, y[target] - y
        reached = alive & alive[target] & (jnp.sqrt(away_x**2 + away_y**2) < self.reach)
        fired = reached & jnp.any(aim & (self.damage > 0), axis=1) & (cooldown <= 0)
        received = jnp.sum(jnp.where(aim & fired[:, None], self.damage, 0.0), axis=0)
        if len(self.splashers):
            received += self._splash(x, y, target, away_x, away_y, fired)
        hurt = jnp.minimum(received, health)
        left = health - hurt
        waiting = jnp.where(fired, self.cooldown + noise, cooldown - SECONDS)
        if len(self.healers):
            healed, energy = self._heals(left, cooldown, aim, reached)
            left, waiting = left + healed, jnp.where(self.heals, energy, waiting)
        return hurt, waiting, left

    def _splash(
        self, x: Array, y: Array, target: Array, away_x: Array, away_y: Array, fired: Array
    ) -> Array:
        """Damage [N] to those beside the targets: who touches the capsule around the burnt line is hit."""
        i = self.splashers
        distance = jnp.sqrt(away_x[i] ** 2 + away_y[i] ** 2) + 1e-6
        line_x, line_y = (away_x[i] / distance)[:, None], (away_y[i] / distance)[:, None]
        dx, dy = (
            x[None, :] - x[target[i]][:, None],
            y[None, :] - y[target[i]][:, None],
        )  # [splashers, N]
        across = jnp.maximum(jnp.abs(dy * line_x - dx * line_y) - self.half_length[:, None], 0.0)
        along = dx * line_x + dy * line_y
        touched = across**2 + along**2 < (self.width[:, None] + self.radius[None, :]) ** 2
        beside = ~_one_hot(target[i], len(self.scenario))  # the target itself is paid for already
        return jnp.sum(jnp.where(touched & beside & fired[i][:, None], self.damage[i], 0.0), axis=0)

    def _heals(
        self, health: Array, energy: Array, aim: Array, reached: Array
    ) -> tuple[Array, Array]:
        """Health gained [N] in one world step, and the energy [N] that healers then have."""
        i = self.healers
        healable = aim[i] & self.can_heal[i] & (health > 0)[None, :] & reached[i][:, None]
        missing = (self.health - health)[None, :]
        most = jnp.minimum(HEALTH_PER_SECOND * SECONDS, HEALTH_PER_ENERGY * energy[i])[:, None]
        given = jnp.where(healable, jnp.minimum(missing, most), 0.0)
        gained = jnp.minimum(jnp.sum(given, axis=0), self.health - health)
        spent = jnp.zeros_like(energy).at[i].set(jnp.sum(given, axis=1) / HEALTH_PER_ENERGY)
        return gained, jnp.minimum(energy - spent + ENERGY_PER_SECOND * SECONDS, MAX_ENERGY)

    def _pushed(self, x: Array, y: Array, alive: Array) -> tuple[Array, Array]:
        """Positions after overlapping units pushed each other. Row i pushes column j: sums over rows are fast."""
        dx, dy = x[None, :] - x[:, None], y[None, :] - y[:, None]
        distance = jnp.sqrt(dx**2 + dy**2) + np.eye(len(self.scenario), dtype=np.float32) + 1e-6
        overlap = jnp.maximum(self.contact / distance - 1.0, 0.0) * self.pushes / 2
        overlap = jnp.where(alive[:, None] & (alive & (self.speed > 0))[None, :], overlap, 0.0)
        return x + jnp.sum(dx * overlap, axis=0), y + jnp.sum(dy * overlap, axis=0)

    def _reward(self, before: State, after: State) -> Array:
        """The share of all enemies' health taken in this step, each counted once, and 1 for a win."""
        n, full = self.num_allies, self.health[self.num_allies :]
        fighting = after.state.unit_alive & ~self.heals
        won = jnp.any(fighting[:n]) & ~jnp.any(fighting[n:])
        paid = jnp.minimum(before.lost_health, full)
        due = jnp.where(won, full, jnp.minimum(after.lost_health, full))
        return jnp.sum((due - paid) / full) / self.num_enemies + won

    def _enemy_orders(self, key: Array, state: State) -> tuple[Array, Array]:
        """Action [M] and attacked slot [M] of the enemies: jaxmarl's policy, but nobody chases whom it cannot hit."""
        n, m = self.num_allies, self.num_enemies
        units, sight, reach = state.state, self.sight[n:, None], self.reach[n:, None]
        move_key, attack_key = jax.vmap(jax.random.split, out_axes=1)(jax.random.split(key, m))
        away = (
            units.unit_positions[None, :n][:, ::-1] - units.unit_positions[n:, None]
        )  # [M, n, 2], in slots
        distance = _length(away)
        alive, armed = units.unit_alive, self.damage[n:, :n][:, ::-1] > 0
        seen = alive[:n][None, ::-1] & alive[n:, None] & armed & (distance < sight)
        near = seen & (distance < reach)
        choice = (
            _drawn(attack_key, near) if self.attack_mode == "random" else _first(near, distance)
        )
        keeps = jnp.any(near & _one_hot(state.last_slot, n), axis=1)
        slot = jnp.where(jnp.any(near, axis=1), jnp.where(keeps, state.last_slot, choice), -1)
        quarry = jnp.sum(
            jnp.where(_one_hot(_drawn(move_key, seen), n)[:, :, None], away, 0.0), axis=1
        )
        rest = state.default_target - units.unit_positions[n:]
        move = _towards(jnp.where(jnp.any(seen, axis=1)[:, None], quarry, rest))
        orders = jnp.where((slot >= 0) & self.enemy_shoots, slot + NUM_MOVES, move)
        orders = jnp.where((self.speed[n:] == 0) & (orders < NUM_MOVES), STOP, orders)
        if self.heals[n:].any():
            orders = jnp.where(self.heals[n:], self._healer_orders(units), orders)
        return orders.astype(jnp.int32), slot.astype(jnp.int32)

    def _healer_orders(self, units: Units) -> Array:
        """Action [M] of each enemy, were it a healer: it heals or walks to a hurt friend, or stays with fighters."""
        n, m = self.num_allies, self.num_enemies
        position, alive = units.unit_positions[n:], units.unit_alive[n:]
        away = position[None, :] - position[:, None]
        distance = _length(away)
        hurt = self.can_heal[n:, n:] & alive[None, :] & (units.unit_health < self.health)[None, n:]
        company = jnp.where(
            jnp.any(hurt, axis=1)[:, None], hurt, (alive & ~self.heals[n:])[None, :]
        )
        friend = _one_hot(_first(company, distance), m) & company
        reached = jnp.any(friend & (distance < self.reach[n:, None]), axis=1)
        heal = NUM_MOVES + m - 1 - _first(company, distance)
        walk = _towards(jnp.sum(jnp.where(friend[:, :, None], away, 0.0), axis=1))
        return jnp.where(reached, jnp.where(jnp.any(hurt, axis=1), heal, STOP), walk)

    def get_avail_actions(self, state: State) -> dict[str, Array]:
        """Which actions [A] each ally can take. Targets of healers are allies, of the others enemies."""
        n, m = self.num_allies, self.num_enemies
        units, alive = state.state, state.state.unit_alive
        away = units.unit_positions[None, :] - units.unit_positions[:n, None]
        near = (_length(away) < self.reach[:n, None]) & alive[:n, None] & alive[None, :]
        attack = near & (self.damage[:n] > 0)
        powered = (units.unit_weapon_cooldowns[:n] > 0)[:, None]
        heal = near & self.can_heal[:n] & powered & (units.unit_health < self.health)[None, :]
        width = self.num_ally_actions - NUM_MOVES
        target = jnp.pad(attack[:, n:], ((0, 0), (0, width - m)))
        if self.heals[:n].any():
            target |= jnp.pad(heal[:, :n], ((0, 0), (0, width - n)))
        moves = jnp.repeat((alive[:n] & (self.speed[:n] > 0))[:, None], STOP, axis=1)
        mask = jnp.concatenate([moves, jnp.ones((n, 1), bool), target], axis=1)
        return {agent: mask[i] for i, agent in enumerate(self.agents)}

    def _observed(self, units: Units) -> dict[str, Array]:
        """Observations of the allies, and the world state; features and their order are jaxmarl's."""
        n = self.num_allies
        alive, position, cooldown = (
            units.unit_alive,
            units.unit_positions,
            units.unit_weapon_cooldowns[:, None],
        )
        health = (units.unit_health / self.health)[:, None]
        types = np.eye(len(NAMES), dtype=np.float32)[self.scenario]
        waiting = jnp.clip(cooldown / self.cooldown[:, None], 0.0, 1.0)
        attacked = (units.prev_attack_actions / self.last_action)[:, None]
        doing = jnp.concatenate([units.prev_movement_actions, attacked, waiting, types], axis=1)
        away = position[self.others] - position[:n, None]
        visible = (_length(away) < self.sight[:n, None]) & alive[self.others] & alive[:n, None]
        seen = jnp.concatenate(
            [health[self.others], away / self.sight[:n, None, None], doing[self.others]], axis=2
        )
        seen = jnp.where(visible[:, :, None], seen, 0.0).reshape(n, -1)
        own = (
            jnp.concatenate([health, position / SIDE, waiting, types], axis=1)[:n] * alive[:n, None]
        )
        obs = jnp.concatenate([seen, own], axis=1)
        units_now = jnp.concatenate([health, position, cooldown, types], axis=1) * alive[:, None]
        world = jnp.concatenate(
            [units_now.reshape(-1), self.teams, self.scenario.astype(np.float32)]
        )
        return {**{agent: obs[i] for i, agent in enumerate(self.agents)}, "world_state": world}


def damage(shooter: UnitType, target: UnitType) -> float:
    """Health that one hit takes from a foe; 0 where the weapon cannot hit it at all."""
    if shooter.heals or (target.layer == AIR and not shooter.hits_air):
        return 0.0
    new = max(NAMES.index(shooter.name), NAMES.index(target.name)) >= NUM_BASE
    return shooter.damage + (shooter.bonus if new and shooter.bonus_on == target.armour else 0.0)


def _point(x: float, y: float) -> Array:
    return jnp.array([[x, y]], jnp.float32)


def _length(vector: Array) -> Array:
    return jnp.sqrt(jnp.sum(vector**2, axis=-1))


def _one_hot(index: Array, size: int) -> Array:
    return index[:, None] == np.arange(size)[None, :]


def _first(mask: Array, distance: Array) -> Array:
    """Column of the nearest that is marked, in each row."""
    return jnp.argmin(jnp.where(mask, distance, jnp.inf), axis=1)


def _drawn(keys: Array, mask: Array) -> Array:
    """A random marked column in each row, the one that `jax.random.choice` finds; any column where none is marked."""
    share = jnp.cumsum(mask / jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1), axis=1)
    height = share[:, -1] * (1 - jax.vmap(jax.random.uniform)(keys))
    return jnp.sum(share < height[:, None], axis=1)


def _towards(away: Array) -> Array:
    """Of actions 0 to 3, the one that goes best in direction `away` [M, 2]."""
    x, y = away[:, 0], away[:, 1]
    return jnp.argmax(jnp.stack([y, x, -y, -x], axis=1), axis=1)

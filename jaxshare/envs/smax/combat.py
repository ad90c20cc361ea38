"""What happens between two steps: units walk, shoot, heal, burn, push each other, die at walls."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.envs.smax.army import NUM_MOVES, Army
from jaxshare.envs.smax.state import SIDE, Units
from jaxshare.envs.smax.vectors import one_hot
from jaxshare.types import Array

SECONDS = 1 / 16  # jaxmarl: of one world step
WORLD_STEPS = 8  # jaxmarl: in one step of the environment
MOVES = (  # of actions 0 to 4; 4 is "stop"
    (0.0, 1.0),
    (1.0, 0.0),
    (0.0, -1.0),
    (-1.0, 0.0),
    (0.0, 0.0),
)
START_ENERGY = 50.0  # Liquipedia
MAX_ENERGY = 200.0  # Liquipedia
ENERGY_PER_SECOND = 0.7875  # Liquipedia
HEALTH_PER_ENERGY = 3.0  # Liquipedia, Heal
HEALTH_PER_SECOND = 12.6  # Liquipedia: 9 at speed "Normal", of which 1.4 s are 1 s of "Faster"


class Melee(NamedTuple):
    """What a world step changes."""

    x: Array  # [N]
    y: Array  # [N]
    health: Array  # [N]
    cooldown: Array  # [N]


class Shots(NamedTuple):
    """What all attacks and heals of a world step did."""

    hurt: Array  # [N]: health lost
    health: Array  # [N]: health left
    cooldown: Array  # [N]


class Aim(NamedTuple):
    """Whom units aim at, and how far that is."""

    target: Array  # [N] i32
    away_x: Array  # [N]
    away_y: Array  # [N]


class Fight(NamedTuple):
    """What one step of the environment did."""

    units: Units
    lost: Array  # [M]: health that enemies lost on the way


def fight(army: Army, units: Units, action: Array, key: Array) -> Fight:
    """All world steps of one step. action: [N] i32."""
    is_move = one_hot(action, NUM_MOVES)[:, :, None]
    moves = jnp.sum(jnp.where(is_move, jnp.array(MOVES)[None], 0.0), axis=1)
    target = _targets(army, action)

    def world_step(carry: tuple[Melee, Array], noise: Array) -> tuple[tuple[Melee, Array], None]:
        melee, lost = carry
        melee, hurt = _world_step(army, melee, moves, target, noise)
        return (melee, lost + hurt[army.num_allies :]), None

    x, y = units.unit_positions.T
    start = Melee(x, y, units.unit_health, units.unit_weapon_cooldowns)
    nothing = jnp.zeros(army.num_enemies, jnp.float32)
    noise = _noise(key, len(army.kinds))
    (melee, lost), _ = jax.lax.scan(world_step, (start, nothing), noise)

    # the record of it
    attack = jnp.where(action >= NUM_MOVES, action, 0)
    return Fight(_after(units, melee, moves, attack), lost)


def _after(units: Units, melee: Melee, moves: Array, attack: Array) -> Units:
    """The battlefield after a step. moves: [N, 2]; attack: [N] i32."""
    positions = jnp.stack([melee.x, melee.y], axis=1)
    alive = melee.health > 0
    step = units.step + 1
    return replace(
        units,
        unit_positions=positions,
        unit_alive=alive,
        unit_health=melee.health,
        unit_weapon_cooldowns=melee.cooldown,
        prev_movement_actions=moves,
        prev_attack_actions=attack,
        step=step,
    )


def _noise(key: Array, num_units: int) -> Array:
    """The random part [WORLD_STEPS, N] of the cooldowns, from the keys that jaxmarl uses."""

    def chain(key: Array, _: None) -> tuple[Array, Array]:
        key, world_key = jax.random.split(key)
        return key, jax.random.split(world_key, num_units)

    def draw(key: Array) -> Array:
        return jax.random.uniform(key, minval=-SECONDS, maxval=2 * SECONDS)

    _, keys = jax.lax.scan(chain, key, None, length=WORLD_STEPS)
    return jax.vmap(jax.vmap(draw))(keys)


def _targets(army: Army, action: Array) -> Array:
    """The unit [N] that each unit's action aims at; itself for nobody."""
    slot = action - NUM_MOVES
    aims = (slot >= 0) & (slot < army.slots)
    return jnp.where(aims, army.first + army.order * slot, np.arange(len(army.kinds)))


def _world_step(
    army: Army, melee: Melee, moves: Array, target: Array, noise: Array
) -> tuple[Melee, Array]:
    """The next melee, and the health [N] that units lost."""
    hurt, left, cooldown = shots(army, melee, target, noise)

    # who lived when shots were fired walks
    alive = melee.health > 0
    step_x = melee.x + moves[:, 0] * army.speed * SECONDS
    step_y = melee.y + moves[:, 1] * army.speed * SECONDS
    x = jnp.where(alive, jnp.clip(step_x, 0.0, SIDE), melee.x)
    y = jnp.where(alive, jnp.clip(step_y, 0.0, SIDE), melee.y)

    # walls kill
    on_wall = (x <= 0.0) | (y <= 0.0) | (x >= SIDE) | (y >= SIDE)
    hurt = hurt + jnp.where(on_wall, left, 0.0)
    left = jnp.where(on_wall, 0.0, left)
    x, y = pushed(army, x, y, left > 0)
    return Melee(x, y, left, cooldown), hurt


def shots(army: Army, melee: Melee, target: Array, noise: Array) -> Shots:
    """All attacks and heals of one world step.

    target: [N] i32, the unit itself for nobody; noise: [N], the random part of the next cooldowns.
    """
    x, y, health, cooldown = melee
    aim = Aim(target, x[target] - x, y[target] - y)
    marks = one_hot(target, len(army.kinds))
    alive = health > 0
    distance = jnp.sqrt(aim.away_x**2 + aim.away_y**2)
    reached = alive & alive[target] & (distance < army.reach)

    # attacks
    armed = jnp.any(marks & (army.damage > 0), axis=1)
    fired = reached & armed & (cooldown <= 0)
    received = jnp.sum(jnp.where(marks & fired[:, None], army.damage, 0.0), axis=0)
    if len(army.splashers):
        received += _splash(army, melee, aim, fired)
    hurt = jnp.minimum(received, health)
    left = health - hurt
    waiting = jnp.where(fired, army.cooldown + noise, cooldown - SECONDS)

    # heals
    if len(army.healers):
        healed, energy = _heals(army, left, cooldown, marks & reached[:, None])
        left = left + healed
        waiting = jnp.where(army.heals, energy, waiting)
    return Shots(hurt, left, waiting)


def _splash(army: Army, melee: Melee, aim: Aim, fired: Array) -> Array:
    """Damage [N] to those beside the targets: who touches the capsule around a line is hit."""
    i = army.splashers
    half_length, half_width = army.lines
    target = aim.target[i]

    # the direction of fire, [K, 1]
    distance = jnp.sqrt(aim.away_x[i] ** 2 + aim.away_y[i] ** 2) + 1e-6
    line_x = (aim.away_x[i] / distance)[:, None]
    line_y = (aim.away_y[i] / distance)[:, None]

    # where all are from the target, along and across the fire, [K, N]
    dx = melee.x[None, :] - melee.x[target][:, None]
    dy = melee.y[None, :] - melee.y[target][:, None]
    beyond = jnp.abs(dy * line_x - dx * line_y) - half_length[:, None]
    across = jnp.maximum(beyond, 0.0)
    along = dx * line_x + dy * line_y
    near = half_width[:, None] + army.radius[None, :]
    touched = across**2 + along**2 < near**2

    # the target itself is paid for already
    beside = ~one_hot(target, len(army.kinds))
    burnt = touched & beside & fired[i][:, None]
    return jnp.sum(jnp.where(burnt, army.damage[i], 0.0), axis=0)


def _heals(army: Army, health: Array, energy: Array, reached: Array) -> tuple[Array, Array]:
    """Health gained [N] in one world step, and the energy [N] that healers then have.

    reached: [N, N] bool, whom units aim at, within their reach.
    """
    i = army.healers
    healable = reached[i] & army.can_heal[i] & (health > 0)[None, :]
    missing = (army.health - health)[None, :]

    # each gives as much as it can, nobody receives more than it misses
    most = jnp.minimum(HEALTH_PER_SECOND * SECONDS, HEALTH_PER_ENERGY * energy[i])[:, None]
    dose = jnp.where(healable, jnp.minimum(missing, most), 0.0)
    gained = jnp.minimum(jnp.sum(dose, axis=0), army.health - health)
    spent = jnp.zeros_like(energy).at[i].set(jnp.sum(dose, axis=1) / HEALTH_PER_ENERGY)
    return gained, jnp.minimum(energy - spent + ENERGY_PER_SECOND * SECONDS, MAX_ENERGY)


def pushed(army: Army, x: Array, y: Array, alive: Array) -> tuple[Array, Array]:
    """Positions [N], [N] after overlapping units pushed each other.

    Row i pushes column j: sums over rows are fast.
    """
    dx = x[None, :] - x[:, None]
    dy = y[None, :] - y[:, None]
    itself = np.eye(len(army.kinds), dtype=np.float32)
    distance = jnp.sqrt(dx**2 + dy**2) + itself + 1e-6
    overlap = jnp.maximum(army.contact / distance - 1.0, 0.0) * army.pushes / 2

    # the dead push nobody, and what is rooted stays
    gives_way = (alive & (army.speed > 0))[None, :]
    overlap = jnp.where(alive[:, None] & gives_way, overlap, 0.0)
    pushed_x = x + jnp.sum(dx * overlap, axis=0)
    pushed_y = y + jnp.sum(dy * overlap, axis=0)
    return pushed_x, pushed_y

"""A battle at one moment, with the names of jaxmarl's record."""

from __future__ import annotations

from flax import struct

from jaxshare.types import Array

SIDE = 32.0  # jaxmarl: of the square map


@struct.dataclass
class Units:
    """The battlefield. The weapon cooldown of a healer is its energy."""

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

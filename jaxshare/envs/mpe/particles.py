"""The particle world in JAX: round bodies that push each other apart.

Source: the physics of Lowe et al. 2017 (MADDPG). Every body weighs 1; the moving ones come first,
then the fixed ones. The forces of a step come from the positions before it. Two orders of
integration are in use: today's packages (mpe2, jaxmarl) move with the old velocity and then change
it; the first version, which FACMAC kept, changes it and then moves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxshare.types import Array

DT = 0.1
DAMPING = 0.25
CONTACT_FORCE = 100.0
CONTACT_MARGIN = 1e-3
ARENA = 1.0  # start states lie within ±1, and the original charges the prey for leaving that square
DIRECTIONS = (  # what actions 0 to 4 push towards
    (0.0, 0.0),
    (-1.0, 0.0),
    (1.0, 0.0),
    (0.0, -1.0),
    (0.0, 1.0),
)
NUM_MOVES = len(DIRECTIONS)


@struct.dataclass
class State:
    """M moving bodies and L fixed ones."""

    position: Array  # [M, 2] f32
    velocity: Array  # [M, 2] f32
    landmark: Array  # [L, 2] f32
    step: Array  # [] i32


@dataclass(frozen=True)
class Bodies:
    """What is static about the moving bodies, one entry each, and the fixed ones that collide."""

    radius: tuple[float, ...]
    max_speed: tuple[float, ...]  # inf: no bound
    obstacles: tuple[float, ...] = ()  # their radii; empty where landmarks do not collide
    velocity_first: bool = False

    def advance(self, state: State, thrust: Array) -> State:
        """One step of 0.1 time units under `thrust` [M, 2]."""
        fixed = state.landmark[: len(self.obstacles)]
        radius = np.array(self.radius + self.obstacles, np.float32)
        force = thrust + _push(state.position, fixed, radius)
        velocity = state.velocity * (1 - DAMPING) + force * DT

        # the fastest are slowed down to their limit
        speed = jnp.sqrt(jnp.sum(velocity**2, axis=1, keepdims=True))
        limit = np.array(self.max_speed, np.float32)[:, None]
        slowed = velocity * (limit / jnp.maximum(speed, 1e-9))
        velocity = jnp.where(speed > limit, slowed, velocity)

        # moves
        moved = velocity if self.velocity_first else state.velocity
        position = state.position + moved * DT
        return replace(state, position=position, velocity=velocity, step=state.step + 1)


def _push(position: Array, fixed: Array, radius: np.ndarray) -> Array:
    """The contact force [M, 2] on each moving body: soft, and almost 0 without contact."""
    count = position.shape[0]
    others = jnp.concatenate([position, fixed])
    apart = position[:, None] - others[None]  # [M, M+L, 2]
    itself = np.eye(count, others.shape[0], dtype=bool)
    distance = jnp.sqrt(jnp.where(itself, 1.0, jnp.sum(apart**2, axis=-1)))

    # how deep they are in each other
    least = radius[:count, None] + radius[None, :]
    depth = jnp.logaddexp((least - distance) / CONTACT_MARGIN, 0.0) * CONTACT_MARGIN
    strength = jnp.where(itself, 0.0, CONTACT_FORCE * depth / distance)
    return jnp.sum(apart * strength[..., None], axis=1)


def thrust(action: Array, accel: float) -> Array:
    """Force [N, 2] of the moves [N] i32."""
    x = (action == 2).astype(jnp.float32) - (action == 1)
    y = (action == 4).astype(jnp.float32) - (action == 3)
    return accel * jnp.stack([x, y], axis=-1)


def distances(a: Array, b: Array) -> Array:
    """[N, 2], [K, 2] -> [N, K]."""
    return jnp.sqrt(jnp.sum((a[:, None] - b[None]) ** 2, axis=-1))


def without_self(pairs: Array) -> Array:
    """[K, K, ...] -> [K, K-1, ...]: each row without its entry on the diagonal.

    Without the first entry the diagonal stands at the end of rows of K + 1.
    """
    count = pairs.shape[0]
    rest = pairs.shape[2:]
    flat = pairs.reshape(count * count, *rest)[1:]
    rows = flat.reshape(count - 1, count + 1, *rest)[:, :-1]
    return rows.reshape(count, count - 1, *rest)


def nearest(relative: Array, how_many: int) -> Array:
    """The `how_many` smallest vectors of each row, nearest first.

    relative: [N, K, 2] -> [N, how_many, 2].
    """
    far = jnp.sum(relative**2, axis=-1)
    index = jnp.arange(relative.shape[1])
    chosen = []
    for _ in range(how_many):
        hit = index[None] == jnp.argmin(far, axis=1)[:, None]
        chosen.append(jnp.sum(jnp.where(hit[..., None], relative, 0.0), axis=1))
        far = jnp.where(hit, jnp.inf, far)
    return jnp.stack(chosen, axis=1)

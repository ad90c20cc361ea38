"""The particle world in JAX: round bodies that push each other apart, and what its tasks have in common.

Source: the physics of Lowe et al. 2017 (MADDPG). Every body weighs 1; the moving ones come first, then the fixed ones.
The forces of a step come from the positions before it. Two orders of integration are in use: today's packages (mpe2,
jaxmarl) move with the old velocity and then change it; the first version, which FACMAC kept, changes it and then moves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxshare.envs import _raster
from jaxshare.types import Array

DT = 0.1
DAMPING = 0.25
CONTACT_FORCE = 100.0
CONTACT_MARGIN = 1e-3
ARENA = 1.0  # start states lie within ±1, and the original charges the prey for leaving that square
PICTURE = 1.5  # ours: half the width of the rendered square
DIRECTIONS = (
    (0.0, 0.0),
    (-1.0, 0.0),
    (1.0, 0.0),
    (0.0, -1.0),
    (0.0, 1.0),
)  # what actions 0 to 4 push towards
NUM_MOVES = len(DIRECTIONS)
REACH = 0.2  # ours: how far ahead the fleeing prey looks; it covers at most 0.13 in one step


@struct.dataclass
class State:
    """M moving bodies and L fixed ones."""

    position: Array  # [M, 2] f32
    velocity: Array  # [M, 2] f32
    landmark: Array  # [L, 2] f32
    step: Array  # [] i32


@dataclass(frozen=True)
class Bodies:
    """What is static about the moving bodies, one entry each, and the radius of the fixed ones that collide."""

    radius: tuple[float, ...]
    max_speed: tuple[float, ...]  # inf: no bound
    obstacles: tuple[float, ...] = ()  # their radii; empty where landmarks do not collide
    velocity_first: bool = False

    def advance(self, state: State, thrust: Array) -> State:
        """One step of 0.1 time units under `thrust` [M, 2]."""
        fixed = state.landmark[: len(self.obstacles)]
        force = thrust + _push(
            state.position, fixed, np.array(self.radius + self.obstacles, np.float32)
        )
        velocity = state.velocity * (1 - DAMPING) + force * DT
        speed = jnp.sqrt(jnp.sum(velocity**2, axis=1, keepdims=True))
        limit = np.array(self.max_speed, np.float32)[:, None]
        velocity = jnp.where(speed > limit, velocity * (limit / jnp.maximum(speed, 1e-9)), velocity)
        moved = velocity if self.velocity_first else state.velocity
        return state.replace(  # type: ignore[attr-defined]
            position=state.position + moved * DT, velocity=velocity, step=state.step + 1
        )


def _push(position: Array, fixed: Array, radius: np.ndarray) -> Array:
    """The contact force [M, 2] on each moving body: soft, and almost 0 without contact."""
    count = position.shape[0]
    others = jnp.concatenate([position, fixed])
    apart = position[:, None] - others[None]  # [M, M+L, 2]
    itself = np.eye(count, others.shape[0], dtype=bool)
    distance = jnp.sqrt(jnp.where(itself, 1.0, jnp.sum(apart**2, axis=-1)))
    least = radius[:count, None] + radius[None, :]
    depth = jnp.logaddexp((least - distance) / CONTACT_MARGIN, 0.0) * CONTACT_MARGIN
    strength = jnp.where(itself, 0.0, CONTACT_FORCE * depth / distance)
    return jnp.sum(apart * strength[..., None], axis=1)


def thrust(action: Array, accel: float) -> Array:
    """Force [N, 2] of the moves [N] i32."""
    signs = [
        (action == plus).astype(jnp.float32) - (action == minus) for minus, plus in ((1, 2), (3, 4))
    ]
    return accel * jnp.stack(signs, axis=-1)


def distances(a: Array, b: Array) -> Array:
    """[N, 2], [K, 2] -> [N, K]."""
    return jnp.sqrt(jnp.sum((a[:, None] - b[None]) ** 2, axis=-1))


def without_self(pairs: Array) -> Array:
    """[K, K, ...] -> [K, K-1, ...]: each row without its entry on the diagonal, by reshapes alone."""
    count, rest = pairs.shape[0], pairs.shape[2:]
    flat = pairs.reshape(count * count, *rest)[1:]
    return flat.reshape(count - 1, count + 1, *rest)[:, :-1].reshape(count, count - 1, *rest)


def nearest(relative: Array, how_many: int) -> Array:
    """The `how_many` smallest vectors of each row, nearest first. relative [N, K, 2] -> [N, how_many, 2]."""
    far = jnp.sum(relative**2, axis=-1)
    index = jnp.arange(relative.shape[1])
    chosen = []
    for _ in range(how_many):
        hit = index[None] == jnp.argmin(far, axis=1)[:, None]
        chosen.append(jnp.sum(jnp.where(hit[..., None], relative, 0.0), axis=1))
        far = jnp.where(hit, jnp.inf, far)
    return jnp.stack(chosen, axis=1)


def bounds_penalty(position: Array) -> Array:
    """The original's charge for leaving the arena: [N, 2] -> [N], 0 up to 0.9, at most 10 per coordinate."""
    x = jnp.abs(position)
    outside = jnp.minimum(jnp.exp(2 * x - 2), 10.0)
    return jnp.sum(jnp.where(x < 0.9, 0.0, jnp.where(x < 1.0, 10 * (x - 0.9), outside)), axis=-1)


def flee_action(position: Array, predators: Array) -> Array:
    """The move that ends farthest from the nearest predator and inside the arena. position [2], predators [P, 2]."""
    ends = position[None] + REACH * jnp.array(DIRECTIONS)
    closest = jnp.min(distances(ends, predators), axis=1)
    outside = jnp.sum(jnp.maximum(jnp.abs(ends) - ARENA, 0.0), axis=1)
    return jnp.argmax(closest - 10.0 * outside).astype(
        jnp.int32
    )  # ours: the walls weigh as in the original's 10 per unit


def renderer(
    radius: Sequence[float], colours: Sequence[_raster.Colour], landmark_radius: float
) -> Callable[[State], np.ndarray]:
    """A picture of the moving bodies over grey landmarks."""

    def render(state: State) -> np.ndarray:
        """The arena as uint8 [300, 300, 3]: agents blue, prey green, landmarks grey."""
        picture = _raster.canvas(-PICTURE, PICTURE)
        for x, y in np.asarray(state.landmark):
            picture.disc(x, y, landmark_radius, _raster.GREY)
        moving = list(zip(np.asarray(state.position), radius, colours, strict=True))
        for (x, y), size, colour in reversed(moving):
            picture.disc(x, y, size, colour)
        return picture.image

    return render

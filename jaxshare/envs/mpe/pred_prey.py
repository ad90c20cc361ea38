"""Continuous predator-prey of FACMAC (Peng et al. 2021): the published environment in JAX.

Faithful: sizes (3, 6 or 9 predators, a third as many prey, 2 obstacles per prey), start states,
physics (velocity before position), rewards (10 for each pair of a predator and a prey in contact,
to every predator), observations (own velocity and position; relative positions of obstacles and of
all others and the velocities of prey, each 0 when its entity is farther than `view_radius`), 25
steps, the state (all observations), and the prey: it draws 100 points of the unit disc around it,
drops those on which a predator stands, and is pushed with the offset of the point farthest from the
predator that is now nearest (force of at most 1: its own acceleration of 4 is never applied).

Departs, on purpose:

* Actions outside [-1, 1] are clipped; the original relies on the learner for that.
* The end after 25 steps is `truncated`, as the original's `episode_limit` flag says.
* `prey=random` goes to the first point drawn. The original's other score, a sum of distances, is
  left out.

jaxmarl's `simple_facmac` ids are another task: their prey flees from the wrong body, and one far
entity hides all.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.envs.base import team_spec, time_step
from jaxshare.envs.mpe.particles import Bodies, State, distances, nearest, without_self
from jaxshare.envs.mpe.picture import painting
from jaxshare.envs.mpe.settings import PRED_PREY, Config
from jaxshare.types import Array, Box, Env, TimeStep

PREDATOR = 0.075  # radii
PREY = 0.05
OBSTACLE = 0.2
PREDATOR_SPEED = 1.0
PREY_SPEED = 1.3
ACCEL = 3.0  # of predators
CONTACT_REWARD = 10.0
LANDMARK_RANGE = 0.9
CANDIDATES = 100


@dataclass(frozen=True)
class Sizes:
    """How many there are."""

    predators: int

    @property
    def preys(self) -> int:
        """A third as many."""
        return self.predators // 3

    @property
    def obstacles(self) -> int:
        """Two for each prey."""
        return 2 * self.predators // 3

    @property
    def obs_dim(self) -> int:
        """Itself, relative positions of all others, velocities of prey."""
        others = self.obstacles + self.predators + self.preys - 1
        return 4 + 2 * (others + self.preys)


def make(config: Config) -> Env:
    """One of the sizes of PRED_PREY."""
    sizes = Sizes(PRED_PREY[config.scenario])
    n = sizes.predators
    bodies = _bodies(sizes)
    action_space = Box(2, (-1.0, -1.0), (1.0, 1.0))
    spec = team_spec(
        f"mpe/{config.scenario}",
        n,
        obs_dim=sizes.obs_dim,
        action=action_space,
        episode_limit=config.max_steps,
        group_names=("predator",),
    )

    def show(state: State, reward: Array | float) -> TimeStep:
        obs = _observations(state, n, config.view_radius)
        return time_step(spec, obs, time=state.step, reward=reward)

    def reset(key: Array) -> tuple[State, TimeStep]:
        state = _start(sizes, key)
        return state, show(state, 0.0)

    def step(state: State, action: Array, key: Array) -> tuple[State, TimeStep]:
        # prey goes to one of the points around it
        points = disc_points(key, sizes.preys)
        if config.prey == "flee":
            goal = farthest_point(state.position[n:], state.position[:n], points)
        else:
            goal = points[:, :, 0]
        thrust = jnp.concatenate([ACCEL * jnp.clip(action, -1.0, 1.0), goal])
        state = bodies.advance(state, thrust)

        # each pair in contact pays
        gap = distances(state.position[:n], state.position[n:])
        contacts = jnp.sum(gap < PREDATOR + PREY, dtype=jnp.float32)
        return state, show(state, CONTACT_REWARD * contacts)

    return Env(spec, reset, step, render=painting(bodies.radius, n, OBSTACLE))


def _bodies(sizes: Sizes) -> Bodies:
    radius = (PREDATOR,) * sizes.predators + (PREY,) * sizes.preys
    speed = (PREDATOR_SPEED,) * sizes.predators + (PREY_SPEED,) * sizes.preys
    return Bodies(
        radius=radius,
        max_speed=speed,
        obstacles=(OBSTACLE,) * sizes.obstacles,
        velocity_first=True,
    )


def _start(sizes: Sizes, key: Array) -> State:
    """All at rest, anywhere."""
    bodies = sizes.predators + sizes.preys
    place = jax.random.uniform(key, (bodies + sizes.obstacles, 2), minval=-1.0, maxval=1.0)
    position = place[:bodies]
    velocity = jnp.zeros((bodies, 2), jnp.float32)
    landmark = LANDMARK_RANGE * place[bodies:]
    step = jnp.zeros((), jnp.int32)
    return State(position=position, velocity=velocity, landmark=landmark, step=step)


def disc_points(key: Array, preys: int) -> Array:
    """Uniform points of the unit disc, [preys, 2, 100].

    Coordinates come before points, which is faster on a CPU.
    """
    draw = jax.random.uniform(key, (2, preys, CANDIDATES))
    length = jnp.sqrt(draw[0])
    angle = 2 * np.pi * draw[1]
    return jnp.stack([length * jnp.cos(angle), length * jnp.sin(angle)], axis=1)


def farthest_point(hunted: Array, predators: Array, points: Array) -> Array:
    """The offset [P, 2] each prey chooses among points, 0 where a predator stands on all of them.

    hunted: [P, 2]; predators: [N, 2]; points: [P, 2, K].
    """
    # code: the predator that is nearest now, not the one that is nearest to the point
    hunter = nearest(predators[None] - hunted[:, None], 1)[:, 0]
    score = _squared(points, hunter)

    # unrolled: faster than a reduction over predators
    blocked = jnp.zeros(score.shape, bool)
    for predator in predators:
        blocked |= _squared(points, predator[None] - hunted) < (PREDATOR + PREY) ** 2

    # the best as a mark in each row
    choice = jnp.argmax(jnp.where(blocked, -1.0, score), axis=1)
    best = jnp.arange(points.shape[2])[None] == choice[:, None]
    return jnp.sum(jnp.where((best & ~blocked)[:, None], points, 0.0), axis=2)


def _squared(points: Array, place: Array) -> Array:
    """Squared distances [P, K] of points [P, 2, K] to places [P, 2]."""
    x_squared = (points[:, 0] - place[:, :1]) ** 2
    y_squared = (points[:, 1] - place[:, 1:]) ** 2
    return x_squared + y_squared


def _observations(state: State, predators: int, view_radius: float) -> Array:
    """[N, O]; what is farther than `view_radius` is 0."""
    place = state.position[:predators]

    def masked(what: Array, relative: Array) -> Array:
        """[N, K, 2] where the thing at `relative` is near."""
        near = jnp.sum(relative**2, axis=-1, keepdims=True) <= view_radius**2
        return jnp.where(near, what, 0.0).reshape(predators, -1)

    # relative positions
    to_landmark = state.landmark[None] - place[:, None]
    to_body = state.position[None] - state.position[:, None]
    to_prey = to_body[:predators, predators:]
    others = without_self(to_body)[:predators]
    prey_velocity = jnp.broadcast_to(state.velocity[None, predators:], to_prey.shape)
    velocity = state.velocity[:predators]
    parts = [
        velocity,
        place,
        masked(to_landmark, to_landmark),
        masked(others, others),
        masked(prey_velocity, to_prey),
    ]
    return jnp.concatenate(parts, axis=1)

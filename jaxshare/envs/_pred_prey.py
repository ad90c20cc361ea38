"""Continuous predator-prey of FACMAC (Peng et al. 2021), own JAX implementation of the published environment.

Faithful: sizes (3, 6 or 9 predators, a third as many prey, 2 obstacles per prey), start states, physics (velocity
before position), rewards (10 for each pair of a predator and a prey in contact, to every predator), observations (own
velocity and position; relative positions of obstacles and of all others and the velocities of prey, each 0 when its
entity is farther than `view_radius`), 25 steps, the state (all observations), and the prey: it draws 100 points
of the unit disc around it, drops those on which a predator stands, and is pushed with the offset of the point
farthest from the predator that is now nearest (force of at most 1: its own acceleration of 4 is never applied).

Departs, on purpose:

* Actions outside [-1, 1] are clipped; the original relies on the learner for that.
* The end after 25 steps is `truncated`, as the original's `episode_limit` flag says.
* `prey=random` goes to the first point drawn. The original's other score, a sum of distances, is left out.

jaxmarl's `simple_facmac` ids are another task: their prey flees from the wrong body, and one far entity hides all.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.envs import _particle, _raster
from jaxshare.types import Array, Box, Env, EnvSpec, TimeStep

SIZES = {"pred_prey_3a": 3, "pred_prey_6a": 6, "pred_prey_9a": 9}  # predators
PREDATOR, PREY, OBSTACLE = 0.075, 0.05, 0.2  # radii
PREDATOR_SPEED, PREY_SPEED = 1.0, 1.3
ACCEL = 3.0  # of predators
CONTACT_REWARD = 10.0
LANDMARK_RANGE = 0.9
CANDIDATES = 100


def make(name: str, view_radius: float, prey: str, max_steps: int) -> Env:
    """`name` is a key of SIZES."""
    predators = SIZES[name]
    preys, obstacles = predators // 3, 2 * predators // 3
    obs_dim = 4 + 2 * (obstacles + predators + preys - 1 + preys)
    spec = EnvSpec(
        name=f"mpe/{name}",
        num_agents=predators,
        obs_dim=obs_dim,
        state_dim=predators * obs_dim,
        action=Box(2, (-1.0, -1.0), (1.0, 1.0)),
        episode_limit=max_steps,
        groups=(0,) * predators,
        group_names=("predator",),
    )
    radius = (PREDATOR,) * predators + (PREY,) * preys
    colours = [_raster.BLUE] * predators + [_raster.GREEN] * preys
    return Env(
        spec=spec,
        reset=_reset(spec, preys, obstacles, view_radius),
        step=_step(spec, preys, obstacles, view_radius, prey),
        render=_particle.renderer(radius, colours, OBSTACLE),
    )


def _reset(
    spec: EnvSpec, preys: int, obstacles: int, view_radius: float
) -> Callable[[Array], tuple[_particle.State, TimeStep]]:
    def reset(key: Array) -> tuple[_particle.State, TimeStep]:
        bodies = spec.num_agents + preys
        draw = jax.random.uniform(key, (bodies + obstacles, 2), minval=-1.0, maxval=1.0)
        state = _particle.State(
            position=draw[:bodies],
            velocity=jnp.zeros((bodies, 2), jnp.float32),
            landmark=LANDMARK_RANGE * draw[bodies:],
            step=jnp.zeros((), jnp.int32),
        )
        return state, _show(spec, state, view_radius, jnp.zeros((), jnp.float32))

    return reset


def _step(
    spec: EnvSpec, preys: int, obstacles: int, view_radius: float, prey: str
) -> Callable[[_particle.State, Array, Array], tuple[_particle.State, TimeStep]]:
    bodies = _particle.Bodies(
        radius=(PREDATOR,) * spec.num_agents + (PREY,) * preys,
        max_speed=(PREDATOR_SPEED,) * spec.num_agents + (PREY_SPEED,) * preys,
        obstacles=(OBSTACLE,) * obstacles,
        velocity_first=True,
    )

    def step(state: _particle.State, action: Array, key: Array) -> tuple[_particle.State, TimeStep]:
        predators, hunted = jnp.split(state.position, [spec.num_agents])
        points = disc_points(key, preys)
        goal = farthest_point(hunted, predators, points) if prey == "flee" else points[:, :, 0]
        state = bodies.advance(state, jnp.concatenate([ACCEL * jnp.clip(action, -1.0, 1.0), goal]))
        gap = _particle.distances(
            state.position[: spec.num_agents], state.position[spec.num_agents :]
        )
        contacts = jnp.sum(gap < PREDATOR + PREY, dtype=jnp.float32)
        return state, _show(spec, state, view_radius, CONTACT_REWARD * contacts)

    return step


def disc_points(key: Array, preys: int) -> Array:
    """Uniform points of the unit disc, [preys, 2, 100]: coordinates before points, which is faster on a CPU."""
    draw = jax.random.uniform(key, (2, preys, CANDIDATES))
    length, angle = jnp.sqrt(draw[0]), 2 * np.pi * draw[1]
    return jnp.stack([length * jnp.cos(angle), length * jnp.sin(angle)], axis=1)


def farthest_point(hunted: Array, predators: Array, points: Array) -> Array:
    """The offset each prey chooses among `points` [P, 2, K], 0 where a predator stands on all of them."""
    # code: the predator that is nearest now, not the one that is nearest to the point
    hunter = _particle.nearest(predators[None] - hunted[:, None], 1)[:, 0]
    score = _squared(points, hunter)
    blocked = jnp.zeros(score.shape, bool)
    for predator in predators:  # unrolled: faster than a reduction over them
        blocked |= _squared(points, predator[None] - hunted) < (PREDATOR + PREY) ** 2
    best = (
        jnp.arange(points.shape[2])[None]
        == jnp.argmax(jnp.where(blocked, -1.0, score), axis=1)[:, None]
    )
    return jnp.sum(jnp.where((best & ~blocked)[:, None], points, 0.0), axis=2)


def _squared(points: Array, place: Array) -> Array:
    """Squared distances of points [P, 2, K] to places [P, 2]."""
    return (points[:, 0] - place[:, :1]) ** 2 + (points[:, 1] - place[:, 1:]) ** 2


def _show(spec: EnvSpec, state: _particle.State, view_radius: float, reward: Array) -> TimeStep:
    obs = _observations(state, spec.num_agents, view_radius)
    return TimeStep(
        obs=obs,
        state=obs.reshape(-1),
        avail=jnp.zeros((spec.num_agents, 0), bool),
        alive=jnp.ones(spec.num_agents, bool),
        reward=jnp.broadcast_to(reward, (spec.num_agents,)),
        terminated=jnp.zeros((), bool),
        truncated=state.step >= spec.episode_limit,
        info={},
    )


def _observations(state: _particle.State, predators: int, view_radius: float) -> Array:
    own = state.position[:predators]

    def seen(relative: Array) -> Array:
        return jnp.sum(relative**2, axis=-1, keepdims=True) <= view_radius**2

    to_landmark = state.landmark[None] - own[:, None]
    to_body = state.position[None] - state.position[:, None]
    to_prey = to_body[:predators, predators:]
    others = _particle.without_self(to_body)[:predators]
    prey_velocity = jnp.broadcast_to(state.velocity[None, predators:], to_prey.shape)
    parts = [(to_landmark, to_landmark), (others, others), (prey_velocity, to_prey)]
    masked = [jnp.where(seen(place), what, 0.0).reshape(predators, -1) for what, place in parts]
    return jnp.concatenate([state.velocity[:predators], own, *masked], axis=1)

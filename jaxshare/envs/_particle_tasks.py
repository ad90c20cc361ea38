"""Particle tasks of single papers, on the physics of `_particle`: `sparse_tag` in two versions, `CN_3ls3l`,
`CN_4ls4l`, `PP_3p1p`.

What the papers leave open, and what was chosen, is written in `mpe`. All have five discrete moves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.envs import _particle, _raster
from jaxshare.envs._particle import Bodies, State
from jaxshare.types import Array, Discrete, Env, EnvSpec, TimeStep

SEEKERS = {"CN_3ls3l": 3, "CN_4ls4l": 4}
SEEKER_RADIUS, SEEKER_ACCEL, SEEKER_LANDMARK = 0.15, 5.0, 0.05  # mpe2's simple_spread
PREDATOR, PREY, OBSTACLE = 0.075, 0.05, 0.2  # radii of mpe2's simple_tag
PREDATOR_ACCEL, PREDATOR_SPEED = 3.0, 1.0  # mpe2's simple_tag
PREY_ACCEL, PREY_SPEED = 4.0, 1.3  # mpe2's simple_tag
OBSTACLES, OBSTACLE_RANGE = 2, 0.9  # mpe2's simple_tag
SLOW = (
    0.5  # ours, in sparse_tag_dense_penalty: the speed of a "slowly moving" prey, half a predator's
)
ADJACENT = 0.1  # ours, in sparse_tag_dense_penalty: a predator nearer to the prey, body to body, is adjacent
TAG_START = 0.7  # ours: predators and prey of sparse_tag start within this of both centre lines
NEEDED = 2  # paper: adjacent predators that catch the prey
CATCH_REWARD = 10.0  # mpe2's simple_tag


@dataclass(frozen=True)
class Task:
    """What tells one task from another; `learners` counts the first bodies, the rest is prey."""

    spec: EnvSpec
    bodies: Bodies
    landmarks: int
    landmark_range: float
    accel: float
    observe: Callable[[State], tuple[Array, Array]]  # -> obs [N, O], global state [G]
    reward: Callable[[State], tuple[Array, dict[str, Array]]]  # -> reward [N], info
    prey: Callable[[State, Array], Array] | None = None  # (state, key) -> force [M-N, 2]
    start_range: float = 1.0  # of the moving bodies
    catch_ends: bool = False  # a step whose info has `caught` is the last


@dataclass(frozen=True)
class Hunt:
    """Settings of SEAC's sparse predator-prey."""

    predators: int
    prey: str
    max_steps: int
    distance: float = ADJACENT
    penalty: float = 0.0
    predator_speed: float = PREDATOR_SPEED
    prey_speed: float = SLOW


def sparse_tag(hunt: Hunt) -> Env:
    """SEAC's sparse predator-prey: a catch ends the episode, and only what lies outside the map is charged."""
    task = _hunt("sparse_tag", hunt, lambda state: _catch_reward(state, hunt))
    return _env(replace(task, start_range=TAG_START, catch_ends=True), OBSTACLE)


def sparse_tag_dense_penalty(hunt: Hunt) -> Env:
    """The first version here: every step with a catch pays, and simple_tag's charge begins inside the map."""
    task = _hunt(
        "sparse_tag_dense_penalty", hunt, lambda state: _sparse_reward(state, hunt.predators)
    )
    return _env(task, OBSTACLE)


def _hunt(name: str, hunt: Hunt, reward: Callable[[State], tuple[Array, dict[str, Array]]]) -> Task:
    """What both versions have in common."""
    predators = hunt.predators
    obs_dim = 4 + 2 * OBSTACLES + 2 * predators + 2
    state_dim = predators * obs_dim
    return Task(
        spec=_spec(
            name, predators, obs_dim, state_dim, hunt.max_steps, "predator", common_reward=False
        ),
        bodies=_tag_bodies(predators, hunt.prey_speed, hunt.predator_speed),
        landmarks=OBSTACLES,
        landmark_range=OBSTACLE_RANGE,
        accel=PREDATOR_ACCEL,
        observe=lambda state: _tag_view(state, predators),
        reward=reward,
        prey=_walking_prey(predators, hunt.prey),
    )


def navigation(name: str, max_steps: int) -> Env:
    """SIT's cooperative navigation under partial observation; `name` is a key of SEEKERS."""
    n = SEEKERS[name]
    task = Task(
        spec=_spec(name, n, 4 + 2 + 4, 4 * n + 2 * n, max_steps, "seeker"),
        bodies=Bodies(radius=(SEEKER_RADIUS,) * n, max_speed=(np.inf,) * n),
        landmarks=n,
        landmark_range=1.0,
        accel=SEEKER_ACCEL,
        observe=lambda state: _near_view(state, n, landmarks=2),
        reward=_navigation_reward,
    )
    return _env(task, SEEKER_LANDMARK)


def pursuit(prey: str, max_steps: int) -> Env:
    """SIT's predator-prey under partial observation: three predators, one prey."""
    n = 3
    task = Task(
        spec=_spec("PP_3p1p", n, 4 + 2 + 4, 4 * (n + 1) + 2 * OBSTACLES, max_steps, "predator"),
        bodies=_tag_bodies(n, prey_speed=PREY_SPEED),
        landmarks=OBSTACLES,
        landmark_range=OBSTACLE_RANGE,
        accel=PREDATOR_ACCEL,
        observe=lambda state: _near_view(state, n, landmarks=0),
        reward=lambda state: _pursuit_reward(state, n),
        prey=_running_prey(n, prey),
    )
    return _env(task, OBSTACLE)


def _spec(
    name: str,
    agents: int,
    obs_dim: int,
    state_dim: int,
    max_steps: int,
    group: str,
    *,
    common_reward: bool = True,
) -> EnvSpec:
    return EnvSpec(
        name=f"mpe/{name}",
        num_agents=agents,
        obs_dim=obs_dim,
        state_dim=state_dim,
        action=Discrete(_particle.NUM_MOVES),
        episode_limit=max_steps,
        groups=(0,) * agents,
        group_names=(group,),
        common_reward=common_reward,
    )


def _tag_bodies(
    predators: int, prey_speed: float, predator_speed: float = PREDATOR_SPEED
) -> Bodies:
    return Bodies(
        radius=(PREDATOR,) * predators + (PREY,),
        max_speed=(predator_speed,) * predators + (prey_speed,),
        obstacles=(OBSTACLE,) * OBSTACLES,
    )


def _env(task: Task, landmark_radius: float) -> Env:
    spec, moving = task.spec, len(task.bodies.radius)

    def show(state: State, reward: Array, info: dict[str, Array]) -> TimeStep:
        obs, whole = task.observe(state)
        terminated = info["caught"] > 0 if task.catch_ends else jnp.zeros((), bool)
        return TimeStep(
            obs=obs,
            state=whole,
            avail=jnp.ones((spec.num_agents, _particle.NUM_MOVES), bool),
            alive=jnp.ones(spec.num_agents, bool),
            reward=reward,
            terminated=terminated,
            truncated=(state.step >= spec.episode_limit) & ~terminated,
            info=info,
        )

    def reset(key: Array) -> tuple[State, TimeStep]:
        draw = jax.random.uniform(key, (moving + task.landmarks, 2), minval=-1.0, maxval=1.0)
        state = State(
            position=task.start_range * draw[:moving],
            velocity=jnp.zeros((moving, 2), jnp.float32),
            landmark=task.landmark_range * draw[moving:],
            step=jnp.zeros((), jnp.int32),
        )
        reward, info = jax.tree.map(jnp.zeros_like, task.reward(state))
        return state, show(state, reward, info)

    def step(state: State, action: Array, key: Array) -> tuple[State, TimeStep]:
        thrust = _particle.thrust(action, task.accel)
        if task.prey is not None:
            thrust = jnp.concatenate([thrust, task.prey(state, key)])
        state = task.bodies.advance(state, thrust)
        return state, show(state, *task.reward(state))

    colours = [_raster.BLUE if i < spec.num_agents else _raster.GREEN for i in range(moving)]
    render = _particle.renderer(task.bodies.radius, colours, landmark_radius)
    return Env(spec=spec, reset=reset, step=step, render=render)


def _walking_prey(predators: int, policy: str) -> Callable[[State, Array], Array]:
    """The prey of `tag`: one of the five moves."""

    def prey(state: State, key: Array) -> Array:
        if policy == "random":
            move = jax.random.randint(key, (), 0, _particle.NUM_MOVES)
        else:
            move = _particle.flee_action(state.position[predators], state.position[:predators])
        return _particle.thrust(move[None], PREY_ACCEL)

    return prey


def _running_prey(predators: int, policy: str) -> Callable[[State, Array], Array]:
    """paper: a prey that moves straight away from the nearest predator, in any direction."""
    if policy == "random":
        return _walking_prey(predators, policy)

    def prey(state: State, key: Array) -> Array:
        apart = state.position[None, predators] - state.position[:predators]
        away = _particle.nearest(apart[None], 1)[0]
        return PREY_ACCEL * away / jnp.maximum(jnp.sqrt(jnp.sum(away**2)), 1e-6)

    return prey


def _tag_view(state: State, predators: int) -> tuple[Array, Array]:
    """What simple_tag shows its predators: own velocity and position, obstacles, all others, the prey's velocity."""
    own = state.position[:predators]
    to_landmark = state.landmark[None] - own[:, None]
    others = _particle.without_self(state.position[None] - state.position[:, None])[:predators]
    prey_velocity = jnp.broadcast_to(state.velocity[None, predators], own.shape)
    parts = [to_landmark.reshape(predators, -1), others.reshape(predators, -1), prey_velocity]
    obs = jnp.concatenate([state.velocity[:predators], own, *parts], axis=1)
    return obs, obs.reshape(-1)


def _near_view(state: State, agents: int, landmarks: int) -> tuple[Array, Array]:
    """Itself, the nearest other agent, and the nearest `landmarks` landmarks or else the prey and its velocity."""
    own = state.position[:agents]
    mates = _particle.without_self(own[None] - own[:, None])
    parts = [state.velocity[:agents], own, _particle.nearest(mates, 1).reshape(agents, 2)]
    if landmarks:
        near = _particle.nearest(state.landmark[None] - own[:, None], landmarks)
        parts.append(near.reshape(agents, -1))
    else:
        parts += [
            state.position[None, agents] - own,
            jnp.broadcast_to(state.velocity[None, agents], own.shape),
        ]
    whole = [state.velocity.reshape(-1), state.position.reshape(-1), state.landmark.reshape(-1)]
    return jnp.concatenate(parts, axis=1), jnp.concatenate(whole)


def _sparse_reward(state: State, predators: int) -> tuple[Array, dict[str, Array]]:
    gap = _particle.distances(state.position[:predators], state.position[predators:])
    near = jnp.sum(gap < PREDATOR + PREY + ADJACENT)
    caught = (near >= NEEDED).astype(jnp.float32)
    return caught - _particle.bounds_penalty(state.position[:predators]), {"caught": caught}


def _catch_reward(state: State, hunt: Hunt) -> tuple[Array, dict[str, Array]]:
    """paper: two adjacent predators succeed, "and each receive a reward of one"; a charge outside the map."""
    places = state.position[: hunt.predators]
    gap = _particle.distances(places, state.position[hunt.predators :])[:, 0]
    adjacent = gap < PREDATOR + PREY + hunt.distance
    caught = (jnp.sum(adjacent) >= NEEDED).astype(jnp.float32)
    outside = jnp.any(jnp.abs(places) > _particle.ARENA, axis=1)
    return jnp.where(adjacent, caught, 0.0) - hunt.penalty * outside, {"caught": caught}


def _navigation_reward(state: State) -> tuple[Array, dict[str, Array]]:
    """paper: classic scale, the sum over the agents of (- distance of each landmark to its nearest agent - hits)."""
    n = state.position.shape[0]
    uncovered = jnp.sum(jnp.min(_particle.distances(state.position, state.landmark), axis=0))
    touching = _particle.distances(state.position, state.position) < 2 * SEEKER_RADIUS
    hits = jnp.sum(touching & ~np.eye(n, dtype=bool), dtype=jnp.float32)
    return jnp.broadcast_to(-(n * uncovered + hits), (n,)), {}


def _pursuit_reward(state: State, predators: int) -> tuple[Array, dict[str, Array]]:
    gap = _particle.distances(state.position[:predators], state.position[predators:])
    caught = jnp.sum(gap < PREDATOR + PREY, dtype=jnp.float32)
    return jnp.broadcast_to(CATCH_REWARD * caught - jnp.sum(gap), (predators,)), {}

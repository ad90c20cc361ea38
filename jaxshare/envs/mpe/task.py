"""A particle task with five discrete moves as an environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxshare.envs.base import time_step
from jaxshare.envs.mpe.particles import Bodies, State, thrust
from jaxshare.envs.mpe.picture import painting
from jaxshare.envs.mpe.prey import Prey
from jaxshare.types import Array, Env, EnvSpec, TimeStep


class View(NamedTuple):
    """What is shown of a world."""

    obs: Array  # [N, O]
    whole: Array  # [G]


class Pay(NamedTuple):
    """What a step was worth."""

    reward: Array  # [N], or [] for all
    info: dict[str, Array]


class World(NamedTuple):
    """Landmarks, and how strongly agents push."""

    landmarks: int
    landmark_range: float  # of their coordinates
    landmark_radius: float
    accel: float


@dataclass(frozen=True)
class Task:
    """What tells one task from another. The first bodies are the learners, the rest is prey."""

    spec: EnvSpec
    bodies: Bodies
    world: World
    observe: Callable[[State], View]
    pay: Callable[[State], Pay]
    prey: Prey | None = None
    start_range: float = 1.0  # of the moving bodies
    catch_ends: bool = False  # a step whose info has `caught` is the last


def task_env(task: Task) -> Env:
    """A task as an environment."""
    spec = task.spec
    radius = task.bodies.radius

    def show(state: State, pay: Pay) -> TimeStep:
        view = task.observe(state)
        terminated: Array | bool = False
        if task.catch_ends:
            terminated = pay.info["caught"] > 0
        return time_step(
            spec,
            view.obs,
            time=state.step,
            reward=pay.reward,
            terminated=terminated,
            info=pay.info,
            state=view.whole,
        )

    def reset(key: Array) -> tuple[State, TimeStep]:
        state = _start(task, key)
        return state, show(state, jax.tree.map(jnp.zeros_like, task.pay(state)))

    def step(state: State, action: Array, key: Array) -> tuple[State, TimeStep]:
        force = thrust(action, task.world.accel)
        if task.prey is not None:
            force = jnp.concatenate([force, task.prey(state, key)])
        state = task.bodies.advance(state, force)
        return state, show(state, task.pay(state))

    # the picture
    render = painting(radius, spec.num_agents, task.world.landmark_radius)
    return Env(spec, reset, step, render=render)


def _start(task: Task, key: Array) -> State:
    """Bodies at rest and landmarks, anywhere in their ranges."""
    moving = len(task.bodies.radius)
    world = task.world
    place = jax.random.uniform(key, (moving + world.landmarks, 2), minval=-1.0, maxval=1.0)
    position = task.start_range * place[:moving]
    velocity = jnp.zeros((moving, 2), jnp.float32)
    landmark = world.landmark_range * place[moving:]
    step = jnp.zeros((), jnp.int32)
    return State(position=position, velocity=velocity, landmark=landmark, step=step)

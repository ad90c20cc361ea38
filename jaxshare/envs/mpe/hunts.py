"""SEAC's sparse predator-prey, in two versions.

What the paper (Christianos et al. 2020) leaves open, and what was chosen, is in `environment`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp

from jaxshare.envs.base import team_spec
from jaxshare.envs.mpe import prey, tag
from jaxshare.envs.mpe.particles import ARENA, NUM_MOVES, State, distances
from jaxshare.envs.mpe.settings import Config
from jaxshare.envs.mpe.task import Pay, Task, task_env
from jaxshare.envs.mpe.views import tag_view
from jaxshare.types import Array, Discrete, Env

TAG_START = 0.7  # ours: predators and prey of sparse_tag start within this of both centre lines
NEEDED = 2  # paper: adjacent predators that catch the prey

# ours, in sparse_tag_dense_penalty
SLOW = 0.5  # the speed of a "slowly moving" prey, half a predator's
ADJACENT = 0.1  # a predator nearer to the prey, body to body, is adjacent


def sparse_tag(config: Config, predators: int) -> Env:
    """A catch ends the episode, and only what lies outside the map is charged."""

    def pay(state: State) -> Pay:
        """paper: two adjacent predators succeed, "and each receive a reward of one"."""
        places = state.position[:predators]
        adjacent = _adjacent(state, predators, config.catch_distance)
        caught = (jnp.sum(adjacent) >= NEEDED).astype(jnp.float32)
        outside = jnp.any(jnp.abs(places) > ARENA, axis=1)
        reward = jnp.where(adjacent, caught, 0.0) - config.boundary_penalty * outside
        return Pay(reward, {"caught": caught})

    bodies = tag.tag_bodies(predators, config.predator_speed, config.prey_speed)
    task = replace(_hunt(config, predators, pay), bodies=bodies)
    return task_env(replace(task, start_range=TAG_START, catch_ends=True))


def sparse_tag_dense_penalty(config: Config, predators: int) -> Env:
    """The first version: every step with a catch pays, and a charge begins inside the map."""

    def pay(state: State) -> Pay:
        adjacent = _adjacent(state, predators, ADJACENT)
        caught = (jnp.sum(adjacent) >= NEEDED).astype(jnp.float32)
        return Pay(caught - bounds_penalty(state.position[:predators]), {"caught": caught})

    return task_env(_hunt(config, predators, pay))


def _hunt(config: Config, predators: int, pay: Callable[[State], Pay]) -> Task:
    """What both versions have in common, with the speeds of the first."""
    obs_dim = 4 + 2 * tag.OBSTACLES + 2 * predators + 2
    spec = team_spec(
        f"mpe/{config.scenario}",
        predators,
        obs_dim=obs_dim,
        action=Discrete(NUM_MOVES),
        episode_limit=config.max_steps,
        group_names=("predator",),
        common_reward=False,
    )

    # bodies, obstacles and observations are those of tag
    bodies = tag.tag_bodies(predators, tag.PREDATOR_SPEED, SLOW)
    quarry = prey.walking(predators, config.prey)
    return Task(
        spec=spec,
        bodies=bodies,
        world=tag.WORLD,
        observe=lambda state: tag_view(state, predators),
        pay=pay,
        prey=quarry,
    )


def _adjacent(state: State, predators: int, distance: float) -> Array:
    """Which predators [N] are as near to the prey as `distance`, body to body."""
    gap = distances(state.position[:predators], state.position[predators:])[:, 0]
    return gap < tag.PREDATOR + tag.PREY + distance


def bounds_penalty(position: Array) -> Array:
    """The original's charge for leaving the arena: [N, 2] -> [N].

    It is 0 up to 0.9, and at most 10 per coordinate.
    """
    x = jnp.abs(position)
    outside = jnp.minimum(jnp.exp(2 * x - 2), 10.0)
    near_edge = jnp.where(x < 1.0, 10 * (x - 0.9), outside)
    return jnp.sum(jnp.where(x < 0.9, 0.0, near_edge), axis=-1)

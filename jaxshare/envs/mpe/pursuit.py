"""SIT's predator-prey under partial observation (Tian et al. 2023): three predators, one prey.

What the paper leaves open, and what was chosen, is in `environment`.
"""

from __future__ import annotations

import jax.numpy as jnp

from jaxshare.envs.base import team_spec
from jaxshare.envs.mpe import prey, tag
from jaxshare.envs.mpe.particles import NUM_MOVES, State, distances
from jaxshare.envs.mpe.settings import Config
from jaxshare.envs.mpe.task import Pay, Task, View, task_env
from jaxshare.envs.mpe.views import near_view
from jaxshare.types import Discrete, Env

CATCH_REWARD = 10.0  # mpe2's simple_tag


def make(config: Config, predators: int) -> Env:
    """All predators receive the same."""
    obs_dim = 4 + 2 + 4
    state_dim = 4 * (predators + 1) + 2 * tag.OBSTACLES
    name = f"mpe/{config.scenario}"
    spec = team_spec(
        name,
        predators,
        obs_dim=obs_dim,
        action=Discrete(NUM_MOVES),
        episode_limit=config.max_steps,
        state_dim=state_dim,
        group_names=("predator",),
    )

    # the obstacles of tag are there, and are not seen
    bodies = tag.tag_bodies(predators, tag.PREDATOR_SPEED, tag.PREY_SPEED)
    task = Task(
        spec=spec,
        bodies=bodies,
        world=tag.WORLD,
        observe=lambda state: _view(state, predators),
        pay=lambda state: _pay(state, predators),
        prey=prey.running(predators, config.prey),
    )
    return task_env(task)


def _view(state: State, predators: int) -> View:
    """The prey and its velocity."""
    place = state.position[:predators]
    to_prey = state.position[None, predators] - place
    velocity = jnp.broadcast_to(state.velocity[None, predators], place.shape)
    return near_view(state, predators, [to_prey, velocity])


def _pay(state: State, predators: int) -> Pay:
    """The distances to the prey are paid, and touching it pays."""
    gap = distances(state.position[:predators], state.position[predators:])
    caught = jnp.sum(gap < tag.PREDATOR + tag.PREY, dtype=jnp.float32)
    return Pay(CATCH_REWARD * caught - jnp.sum(gap), {})

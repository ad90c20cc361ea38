"""What agents of particle tasks see, as far as several tasks show the same."""

from __future__ import annotations

import jax.numpy as jnp

from jaxshare.envs.mpe.particles import State, nearest, without_self
from jaxshare.envs.mpe.task import View
from jaxshare.types import Array


def tag_view(state: State, predators: int) -> View:
    """What simple_tag shows its predators.

    It is the own velocity and position, obstacles, all others, the prey's velocity.
    """
    place = state.position[:predators]
    to_landmark = state.landmark[None] - place[:, None]
    others = without_self(state.position[None] - state.position[:, None])[:predators]

    # in rows of predators
    velocity = state.velocity[:predators]
    to_landmark = to_landmark.reshape(predators, -1)
    others = others.reshape(predators, -1)
    prey_velocity = jnp.broadcast_to(state.velocity[None, predators], place.shape)
    obs = jnp.concatenate([velocity, place, to_landmark, others, prey_velocity], axis=1)
    return View(obs, obs.reshape(-1))


def near_view(state: State, agents: int, targets: list[Array]) -> View:
    """Itself, the nearest other agent, and what is to be found. targets: [N, ...] of each."""
    place = state.position[:agents]
    mates = without_self(place[None] - place[:, None])
    parts = [state.velocity[:agents], place, nearest(mates, 1).reshape(agents, 2), *targets]

    # the state is the whole world
    whole = [state.velocity.reshape(-1), state.position.reshape(-1), state.landmark.reshape(-1)]
    return View(jnp.concatenate(parts, axis=1), jnp.concatenate(whole))

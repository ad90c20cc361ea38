"""SIT's cooperative navigation under partial observation (Tian et al. 2023).

What the paper leaves open, and what was chosen, is in `environment`.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxshare.envs.base import team_spec
from jaxshare.envs.mpe.particles import NUM_MOVES, Bodies, State, distances, nearest
from jaxshare.envs.mpe.settings import Config
from jaxshare.envs.mpe.task import Pay, Task, View, World, task_env
from jaxshare.envs.mpe.views import near_view
from jaxshare.types import Discrete, Env

RADIUS = 0.15  # mpe2's simple_spread
ACCEL = 5.0  # mpe2's simple_spread
LANDMARK = 0.05  # radius; mpe2's simple_spread
IN_VIEW = 2  # paper: landmarks


def make(config: Config, agents: int) -> Env:
    """As many landmarks as agents."""
    name = f"mpe/{config.scenario}"
    obs_dim = 4 + 2 + 2 * IN_VIEW
    state_dim = 4 * agents + 2 * agents
    spec = team_spec(
        name,
        agents,
        obs_dim=obs_dim,
        action=Discrete(NUM_MOVES),
        episode_limit=config.max_steps,
        state_dim=state_dim,
        group_names=("seeker",),
    )

    # landmarks do not collide
    bodies = Bodies(radius=(RADIUS,) * agents, max_speed=(np.inf,) * agents)
    world = World(agents, landmark_range=1.0, landmark_radius=LANDMARK, accel=ACCEL)
    return task_env(Task(spec, bodies, world, observe=_view, pay=_pay))


def _view(state: State) -> View:
    """The nearest landmarks."""
    agents = state.position.shape[0]
    to_landmark = state.landmark[None] - state.position[:, None]
    near = nearest(to_landmark, IN_VIEW).reshape(agents, -1)
    return near_view(state, agents, [near])


def _pay(state: State) -> Pay:
    """paper: classic scale, the sum over agents.

    Each pays the distance of each landmark to its nearest agent, and for every hit.
    """
    n = state.position.shape[0]
    uncovered = jnp.sum(jnp.min(distances(state.position, state.landmark), axis=0))
    touching = distances(state.position, state.position) < 2 * RADIUS
    hits = jnp.sum(touching & ~np.eye(n, dtype=bool), dtype=jnp.float32)
    return Pay(-(n * uncovered + hits), {})

"""What a simple game need not say: facts and time steps, with the usual values filled in."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxshare.types import Box, Discrete, EnvSpec, TimeStep


def team_spec(
    name: str,
    num_agents: int,
    obs_dim: int,
    action: Discrete | Box,
    episode_limit: int,
    **others: object,
) -> EnvSpec:
    """Facts of a team of one type, all of whom receive the same reward, if nothing else is said.

    obs_dim: numbers that an agent observes; episode_limit: most steps of an episode;
    others: fields of `EnvSpec`. `state_dim` is that of all observations in a row, `groups` has one
    type, called "agent" in logs, and `common_reward` is true.
    """
    usual: dict[str, Any] = {
        "state_dim": num_agents * obs_dim,
        "groups": (0,) * num_agents,
        "group_names": ("agent",),
    }
    return EnvSpec(
        name=name,
        num_agents=num_agents,
        obs_dim=obs_dim,
        action=action,
        episode_limit=episode_limit,
        **{**usual, **others},
    )


def time_step(
    spec: EnvSpec,
    obs: ArrayLike,
    time: ArrayLike | None = None,
    reward: ArrayLike = 0.0,
    terminated: ArrayLike = False,
    info: Mapping[str, ArrayLike] = MappingProxyType({}),
    **others: ArrayLike,
) -> TimeStep:
    """What the agents see now, each field in its own type.

    obs: [N, O]; time: [] i32, steps of the episode so far; at the limit it is truncated, unless it
    terminated. None: the game itself ends every episode.
    reward: [N], or [] for all; terminated: [] bool; info: {name: []}.
    others: further fields of `TimeStep`. If they are not there, `state` [G] is all observations in
    a row, and `avail` [N, A] and `alive` [N] are true.
    """
    obs = jnp.asarray(obs, jnp.float32)
    n = spec.num_agents
    num_actions = spec.action.num_actions if isinstance(spec.action, Discrete) else 0

    # ends
    terminated = jnp.asarray(terminated, bool)
    truncated = jnp.zeros((), bool)
    if time is not None:
        truncated = (jnp.asarray(time) >= spec.episode_limit) & ~terminated

    # what was not said
    all_obs = obs.reshape(-1)
    usual = {
        "state": all_obs,
        "avail": jnp.ones((n, num_actions), bool),
        "alive": jnp.ones(n, bool),
        "truncated": truncated,
    }
    typed: dict[str, Any] = {**others}
    for name, value in usual.items():
        typed[name] = jnp.asarray(others.get(name, value), value.dtype)
    typed["reward"] = jnp.broadcast_to(jnp.asarray(reward, jnp.float32), (n,))
    typed["info"] = {name: jnp.asarray(value, jnp.float32) for name, value in info.items()}
    return TimeStep(obs=obs, terminated=terminated, **typed)

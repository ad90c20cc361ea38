"""What agents of a jaxmarl game see, what they may do, and the global state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.envs._jaxmarl import lenient
from jaxshare.envs.jaxmarl.game import Game
from jaxshare.types import Array

Obs = Any  # of all agents, in one of three ways
GameState = Any  # jaxmarl's
Mask = Callable[[GameState], dict[Any, Array]]  # available actions by agent
Whole = Callable[[Obs, GameState], Array]  # global state [G]


def agent_views(game: Game, obs: Obs) -> list[Array]:
    """What each agent sees, flattened."""
    numbers = range(len(game.agents))
    if isinstance(obs, dict) and game.agents[0] not in obs:
        views = [_storm_view(obs, i) for i in numbers]
    elif isinstance(obs, dict):
        views = [obs[agent] for agent in game.agents]
    else:
        views = [obs[i] for i in numbers]
    return [_flat(view) for view in views]


def _storm_view(obs: dict[str, Array], agent: int) -> tuple[Array, Array, Array]:
    """code: in storm one picture each, and a table of inventories [5, N].

    Its rows are own red, own blue, ready, and the two that the frozen show.
    """
    table = obs["inventory"]
    return obs["observations"][agent], table[:, agent], table[3:].reshape(-1)


def _flat(view: Obs) -> Array:
    parts = [x.reshape(-1).astype(jnp.float32) for x in jax.tree.leaves(view)]
    return jnp.concatenate(parts)


def padded(game: Game, obs: Obs, obs_dim: int) -> Array:
    """[N, O], with zeros up to the largest."""
    views = agent_views(game, obs)
    return jnp.stack([jnp.pad(view, (0, obs_dim - view.shape[0])) for view in views])


def masking(game: Game, state: GameState) -> Mask | None:
    """Where jaxmarl has masks. state: shapes are enough."""
    for name in ("get_avail_actions", "get_legal_moves"):
        method = getattr(game, name, None)
        if method is None:
            continue
        try:
            jax.eval_shape(lenient(method), state)
        except NotImplementedError:
            continue
        return method
    return None


def availability(game: Game, choices: tuple[int, ...], mask: Mask | None) -> Callable[..., Array]:
    """A function of the game's state: available actions [N, A].

    choices: number of actions of each agent; empty for continuous ones.
    """
    most = max(choices, default=0)
    usual = np.arange(most)[None] < np.array(choices)[:, None] if choices else None

    def available(state: GameState) -> Array:
        if usual is None:
            return jnp.zeros((len(game.agents), 0), bool)
        if mask is None:
            return jnp.asarray(usual)
        masks = mask(state)
        rows = [jnp.asarray(masks[agent]).astype(bool) for agent in game.agents]
        return jnp.stack([jnp.pad(row, (0, most - row.shape[0])) for row in rows])

    return available


def whole_state(game: Game, obs: Obs, state: GameState) -> Whole | None:
    """Where the global state comes from, if jaxmarl has one that is a single list of numbers.

    obs, state: shapes are enough.
    """
    if isinstance(obs, dict) and "world_state" in obs:
        return lambda obs, state: obs["world_state"].astype(jnp.float32)
    method = getattr(game, "get_world_state", None)
    if method is None:
        return None

    # a list, not a picture
    offered = jax.eval_shape(lenient(method), state)
    if not isinstance(offered, jax.ShapeDtypeStruct) or len(offered.shape) != 1:
        return None
    return lambda obs, state: method(state).astype(jnp.float32)

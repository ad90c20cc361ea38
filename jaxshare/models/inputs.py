"""What an agent network reads: observation, own last action, own index."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxshare.types import Discrete, EnvSpec


def input_dim(spec: EnvSpec, last_action: bool, agent_id: bool) -> int:
    """O (+ A) (+ N)."""
    width = spec.action.num_actions if isinstance(spec.action, Discrete) else spec.action.dim
    return spec.obs_dim + last_action * width + agent_id * spec.num_agents


def last_actions(action: jax.Array, spec: EnvSpec) -> jax.Array:
    """One-hot (or continuous) previous actions of an episode, zeros first: [T, B, N(, U)] -> [T+1, B, N, A or U]."""
    encoded = jax.nn.one_hot(action, spec.action.num_actions) if isinstance(spec.action, Discrete) else action
    return jnp.concatenate([jnp.zeros_like(encoded[:1]), encoded])


def build(obs: jax.Array, previous: jax.Array, spec: EnvSpec, last_action: bool, agent_id: bool) -> jax.Array:
    """obs [T, B, N, O] and encoded previous action [T, B, N, A] -> inputs [T, B, N, D]."""
    parts = [obs]
    if last_action:
        parts.append(previous)
    if agent_id:
        parts.append(jnp.broadcast_to(jnp.eye(spec.num_agents), (*obs.shape[:3], spec.num_agents)))
    return jnp.concatenate(parts, axis=-1) if len(parts) > 1 else obs

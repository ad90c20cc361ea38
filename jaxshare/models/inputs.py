"""What an agent network reads: observation, own last action, own index."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxshare.types import Box, Discrete, EnvSpec


def action_dim(spec: EnvSpec) -> int:
    """Numbers of an encoded action: A or U."""
    return spec.action.num_actions if isinstance(spec.action, Discrete) else spec.action.dim


def input_dim(spec: EnvSpec, last_action: bool, agent_id: bool) -> int:
    """O (+ A) (+ N)."""
    return spec.obs_dim + last_action * action_dim(spec) + agent_id * spec.num_agents


def encode(action: jax.Array, spec: EnvSpec) -> jax.Array:
    """One-hot, or the box of a continuous action mapped onto [-1, 1]: [...(, U)] -> [..., A or U]."""
    if isinstance(spec.action, Discrete):
        return jax.nn.one_hot(action, spec.action.num_actions)
    centre, half = _box(spec.action, action)
    return (action - centre) / half


def decode(encoded: jax.Array, box: Box) -> jax.Array:
    """[-1, 1] mapped onto the box of a continuous action, the inverse of `encode`: [..., U] -> [..., U]."""
    centre, half = _box(box, encoded)
    return centre + half * encoded


def _box(box: Box, like: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Centre and half width, [1, ..., 1, U]."""
    shape = (1,) * (like.ndim - 1) + (box.dim,)
    low, high = (jnp.array(side, like.dtype).reshape(shape) for side in (box.low, box.high))
    return (high + low) / 2, (high - low) / 2


def last_actions(action: jax.Array, spec: EnvSpec, mask: jax.Array | None = None) -> jax.Array:
    """Encoded previous actions of an episode, zeros first: [T, B, N(, U)] -> [T+1, B, N, A or U].

    With a mask [T, B] zeros also after padded steps, at which nobody acted.
    """
    encoded = encode(action, spec)
    if mask is not None:
        encoded = jnp.where(mask[..., None, None] > 0, encoded, 0.0)
    return jnp.concatenate([jnp.zeros_like(encoded[:1]), encoded])


def build(
    obs: jax.Array, previous: jax.Array, spec: EnvSpec, last_action: bool, agent_id: bool
) -> jax.Array:
    """obs [T, B, N, O] and encoded previous action [T, B, N, A] -> inputs [T, B, N, D]."""
    parts = [obs]
    if last_action:
        parts.append(previous)
    if agent_id:
        parts.append(jnp.broadcast_to(jnp.eye(spec.num_agents), (*obs.shape[:3], spec.num_agents)))
    return jnp.concatenate(parts, axis=-1) if len(parts) > 1 else obs

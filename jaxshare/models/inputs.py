"""What an agent network reads: observation, own last action, own index."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxshare.types import Box, Discrete, EnvSpec, RefusedError


def action_dim(spec: EnvSpec) -> int:
    """Numbers of an encoded action: A or U."""
    return spec.action.num_actions if isinstance(spec.action, Discrete) else spec.action.dim


@dataclass(frozen=True)
class Reads:
    """What agents are given of an observation.

    last_action, agent_id: whether also those; everybodys_id: [] i32, an index that all of them read
    in the place of their own, or None.
    """

    spec: EnvSpec
    last_action: bool
    agent_id: bool
    everybodys_id: jax.Array | None = None

    @property
    def dim(self) -> int:
        """D = O (+ A) (+ N)."""
        size = self.spec.obs_dim
        if self.last_action:
            size += action_dim(self.spec)
        if self.agent_id:
            size += self.spec.num_agents
        return size

    def build(self, obs: jax.Array, previous: jax.Array) -> jax.Array:
        """obs [T, B, N, O] and encoded previous action [T, B, N, A] -> inputs [T, B, N, D]."""
        parts = [obs]
        if self.last_action:
            parts.append(previous)
        if self.agent_id:
            agents = self.spec.num_agents
            ids = jnp.eye(agents)
            if self.everybodys_id is not None:
                ids = jax.nn.one_hot(self.everybodys_id, agents)
            parts.append(jnp.broadcast_to(ids, (*obs.shape[:3], agents)))
        return jnp.concatenate(parts, axis=-1) if len(parts) > 1 else obs


def encode(action: jax.Array, spec: EnvSpec) -> jax.Array:
    """One-hot, or the box of a continuous action mapped onto [-1, 1].

    [...(, U)] -> [..., A or U].
    """
    if isinstance(spec.action, Discrete):
        return jax.nn.one_hot(action, spec.action.num_actions)
    centre, half = _box(spec.action, action)
    return (action - centre) / half


def decode(encoded: jax.Array, box: Box) -> jax.Array:
    """[-1, 1] mapped onto the box of a continuous action, the inverse of `encode`.

    [..., U] -> [..., U].
    """
    centre, half = _box(box, encoded)
    return centre + half * encoded


def bounded(name: str, spec: EnvSpec) -> Box:
    """The box of continuous actions.

    Raises RefusedError unless all its bounds are finite, low < high.
    """
    box = spec.action
    assert isinstance(box, Box)
    sides = zip(box.low, box.high, strict=True)
    if not all(-math.inf < low < high < math.inf for low, high in sides):
        raise RefusedError(
            f"algo={name} needs actions between finite bounds, low < high; env={spec.name} has "
            f"{box}."
        )
    return box


def _box(box: Box, like: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Centre and half width, [1, ..., 1, U]."""
    shape = (1,) * (like.ndim - 1) + (box.dim,)
    low = jnp.array(box.low, like.dtype).reshape(shape)
    high = jnp.array(box.high, like.dtype).reshape(shape)
    return (high + low) / 2, (high - low) / 2


def last_actions(
    action: jax.Array,
    spec: EnvSpec,
    mask: jax.Array | None = None,
    first: jax.Array | None = None,
) -> jax.Array:
    """Encoded previous actions of an episode, zeros first: [T, B, N(, U)] -> [T+1, B, N, A or U].

    With a mask [T, B] zeros also after padded steps, at which nobody acted. first: [T+1, B] bool,
    where further episodes begin.
    """
    encoded = encode(action, spec)
    if mask is not None:
        encoded = jnp.where(mask[..., None, None] > 0, encoded, 0.0)
    previous = jnp.concatenate([jnp.zeros_like(encoded[:1]), encoded])
    return previous if first is None else jnp.where(first[..., None, None], 0.0, previous)

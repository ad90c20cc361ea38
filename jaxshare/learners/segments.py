"""What all networks need of a segment: the action before each step, and where memory ends."""

from __future__ import annotations

import jax.numpy as jnp

from jaxshare.learners.records import View
from jaxshare.models import inputs
from jaxshare.types import Array


def previous_actions(view: View) -> Array:
    """Encoded previous action of each step, zeros at the first of an episode: [T, B, N, A or U]."""
    segment = view.batch
    encoded = inputs.encode(segment.action, view.spec)
    shifted = jnp.concatenate([segment.carry["previous"][None], encoded[:-1]])
    return jnp.where(segment.first[..., None, None], 0.0, shifted)


def keep(view: View) -> Array:
    """0 where memory is emptied before a step, the first of an episode, else 1: [T, B, N, 1]."""
    factor = 1.0 - view.batch.first.astype(jnp.float32)
    return jnp.broadcast_to(factor[..., None, None], (*factor.shape, view.spec.num_agents, 1))

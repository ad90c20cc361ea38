"""Who is alive in a batch of either kind, and whose life a step ended."""

from __future__ import annotations

import jax.numpy as jnp

from jaxshare.trees import Batch
from jaxshare.types import Array, Segment


def living(batch: Batch) -> Array:
    """Who is alive before each step, [T, B, N] bool."""
    return batch.alive if isinstance(batch, Segment) else batch.alive[:-1]


def died(batch: Batch) -> Array:
    """Whose life each step ended, [T, B, N] bool.

    Of a segment's last step, and of one that ended its episode, it is not known: false.
    """
    if not isinstance(batch, Segment):
        return batch.alive[:-1] & ~batch.alive[1:]
    after = jnp.concatenate([batch.alive[1:], batch.alive[-1:]])
    return batch.alive & ~after & ~batch.end[..., None]

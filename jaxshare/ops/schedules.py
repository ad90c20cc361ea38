"""Schedules in valid environment steps, and periods that are tested by crossing."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def linear(start: jax.Array, end: jax.Array, step: jax.Array, duration: jax.Array) -> jax.Array:
    """Start at step 0, `end` from step `duration` on, a straight line in between. All scalars."""
    fraction = jnp.clip(step.astype(jnp.float32) / jnp.maximum(jnp.asarray(duration, jnp.float32), 1e-9), 0.0, 1.0)
    return start + (end - start) * fraction


def crossed(before: jax.Array, after: jax.Array, period: int) -> jax.Array:
    """Whether a multiple of `period` lies in (before, after]: a strided counter cannot step over it."""
    return after // period > before // period

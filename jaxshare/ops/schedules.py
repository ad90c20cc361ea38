"""Schedules in valid environment steps, and periods that are tested by crossing."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxshare.types import HParams


def linear(start: jax.Array, end: jax.Array, step: jax.Array, duration: jax.Array) -> jax.Array:
    """Start at step 0, `end` from step `duration` on, a straight line in between. All are []."""
    steps = step.astype(jnp.float32)
    most = jnp.maximum(jnp.asarray(duration, jnp.float32), 1e-9)
    fraction = jnp.clip(steps / most, 0.0, 1.0)
    return start + (end - start) * fraction


def exploration_rate(hparams: HParams, env_steps: jax.Array, total_env_steps: int) -> jax.Array:
    """The present share of random actions, []: a straight line from epsilon_start to epsilon_end,
    then constant.

    It lasts hparams["epsilon_anneal_fraction"] of the run's environment steps, if that is above 0,
    and hparams["epsilon_anneal_steps"] steps else.
    """
    fraction = hparams["epsilon_anneal_fraction"]
    duration = jnp.where(fraction > 0, fraction * total_env_steps, hparams["epsilon_anneal_steps"])
    return linear(hparams["epsilon_start"], hparams["epsilon_end"], env_steps, duration)


def crossed(before: jax.Array, after: jax.Array, period: int) -> jax.Array:
    """Whether a multiple of `period` lies in (before, after]: a strided counter cannot step over
    it. before and after [] i32 -> [] bool.
    """
    return after // period > before // period

"""Policies as distrax distributions: masked categorical, diagonal Gaussian."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jaxshare.types import Box, Discrete, EnvSpec

if TYPE_CHECKING:
    from distrax import Distribution

MASKED = -1e10  # logit of an action that is not available; f32 only, and never times a probability


def output_dim(spec: EnvSpec) -> tuple[int, int]:
    """Numbers that a network gives for one policy, and trainable numbers after them."""
    if isinstance(spec.action, Discrete):
        return spec.action.num_actions, 0
    return spec.action.dim, spec.action.dim


def policy(y: jax.Array, avail: jax.Array, spec: EnvSpec) -> Distribution:
    """The distribution of actions [...(, U)].

    y [..., A] and avail [..., A], or y [..., 2U], mean and log std.
    A row of `avail` without a single action would give a uniform choice among all; environments
    have none.
    """
    import distrax  # takes seconds, and many commands need none

    if isinstance(spec.action, Discrete):
        return distrax.Categorical(logits=jnp.where(avail, y, MASKED))
    mean, log_std = jnp.split(y, 2, axis=-1)
    return distrax.MultivariateNormalDiag(mean, jnp.exp(log_std))


def action_bounds(box: Box, like: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Lowest and highest action, [1, ..., 1, U]."""
    shape = (1,) * (like.ndim - 1) + (box.dim,)
    low = jnp.array(box.low, like.dtype)
    high = jnp.array(box.high, like.dtype)
    return low.reshape(shape), high.reshape(shape)

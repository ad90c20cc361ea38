"""Running mean and variance (Chan, Golub and LeVeque 1983: two sets of samples from their counts,
means, variances).

    delta = mean_b - mean,   total = count + n,   mean <- mean + delta n / total
    var <- (var count + var_b n + delta^2 count n / total) / total,   count <- total

code: EPyMARL starts from mean 0, variance 1 and a count of 1e-4, and var_b is the unbiased variance
of the new samples.
ours: samples under mask 0 do not count, and a single one has variance 0.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
from flax import struct

FIRST_COUNT = 1e-4
LEAST_VARIANCE = 1e-10  # ours: so that a constant does not end in 0 / 0


@struct.dataclass
class Moments:
    """What is known about F numbers."""

    mean: jax.Array  # [F]
    var: jax.Array  # [F]
    # [] samples of each; f32, so that beyond 2^24 new samples keep a small constant weight
    count: jax.Array


def start(features: int) -> Moments:
    """Before the first sample."""
    return Moments(mean=jnp.zeros(features), var=jnp.ones(features), count=jnp.float32(FIRST_COUNT))


def merge(moments: Moments, x: jax.Array, mask: jax.Array) -> Moments:
    """Add the samples x [..., F] under mask [...] > 0."""
    chex.assert_equal_shape_prefix([x, mask], mask.ndim)
    axes = tuple(range(mask.ndim))
    real = mask[..., None] > 0
    n = jnp.sum(mask > 0).astype(jnp.float32)
    mean = jnp.where(real, x, 0.0).sum(axes) / jnp.maximum(n, 1.0)
    centred = jnp.where(real, x - mean.reshape((1,) * mask.ndim + mean.shape), 0.0)
    var = jnp.square(centred).sum(axes) / jnp.maximum(n - 1.0, 1.0)

    # the samples of before and these, as one set
    delta = mean - moments.mean
    total = moments.count + n
    within = moments.var * moments.count + var * n
    between = jnp.square(delta) * (moments.count * n / total)
    square = within + between
    return Moments(mean=moments.mean + delta * (n / total), var=square / total, count=total)


def standardise(moments: Moments, x: jax.Array, centre: bool) -> jax.Array:
    """(x - mean) / sqrt(var), or x / sqrt(var): [..., F] -> [..., F]."""
    shape = (1,) * (x.ndim - 1) + moments.mean.shape
    shifted = x - moments.mean.reshape(shape) if centre else x
    return shifted / jnp.sqrt(jnp.maximum(moments.var, LEAST_VARIANCE)).reshape(shape)

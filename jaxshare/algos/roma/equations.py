"""Role embeddings: normal distributions, and the two losses on them (Wang et al. 2020, ROMA), as
the code has them.
"""

from __future__ import annotations

import math

import chex
import jax
import jax.numpy as jnp

SHIFT = (
    13.9  # code: added to log-densities, and the largest amount by which the sum may be negative
)
CEILING = 2000.0  # code: of the identifiability loss before the softplus


def entropy(var: jax.Array) -> jax.Array:
    """Of a normal distribution with independent entries, summed over the last axis.

    [..., D] -> [...].
    """
    return 0.5 * jnp.log(2 * math.pi * math.e * var).sum(-1)


def kl(mean: jax.Array, var: jax.Array, other_mean: jax.Array, other_var: jax.Array) -> jax.Array:
    """KL(N(mean, var) || N(other_mean, other_var)), summed over the last axis.

    [..., D] -> [...].
    """
    chex.assert_equal_shape([mean, var, other_mean, other_var])
    square = jnp.square(mean - other_mean)
    log_ratio = jnp.log(other_var / var)
    scaled = (var + square) / other_var
    return 0.5 * (log_ratio + scaled - 1.0).sum(-1)


def log_density(x: jax.Array, mean: jax.Array, var: jax.Array) -> jax.Array:
    """log N(x; mean, var) of each entry: [..., D] -> [..., D]."""
    normaliser = jnp.log(2 * math.pi * var)
    return -0.5 * (normaliser + jnp.square(x - mean) / var)


def others(x: jax.Array) -> jax.Array:
    """What agent i is paired with: entry [k, ..., i, :] is agent (i - k - 1) mod N, so the last is
    i itself.

    x [..., N, D] -> [N, ..., N, D].
    """
    agents = x.shape[-2]
    return jnp.stack([jnp.roll(x, k, axis=-2) for k in range(1, agents + 1)])


def role_fit(role: jax.Array, mean: jax.Array, var: jax.Array) -> jax.Array:
    """mi_ij = sum_d max(log p_i(role_j) + 13.9, -13.9) / D for all pairs.

    role, mean, var [..., N, D] -> [N, ..., N], ordered as `others`.
    """
    density = log_density(others(role), mean[None], var[None])
    return jnp.maximum(density + SHIFT, -SHIFT).mean(-1)


def scaled(x: jax.Array) -> jax.Array:
    """(x - min) / (max - min) over all pairs, axes 0 and -1.

    [N, ..., N] -> same; 0 where all are equal.

    ours: instead of 1e-12 in the denominator, which lets gradients overflow where pairs are nearly
    equal.
    """
    low = x.min((0, -1), keepdims=True)
    high = x.max((0, -1), keepdims=True)
    apart = high - low > 1e-6
    return jnp.where(apart, (x - low) / jnp.where(apart, high - low, 1.0), 0.0)


def diversity_loss(fit: jax.Array, unlike: jax.Array, soft_weight: jax.Array) -> jax.Array:
    """(sum_ij dis - w_s sum_ij min(mi + dis, 1)) / N^2 with mi and dis scaled.

    Twice [N, ..., N], [] -> [...].
    """
    chex.assert_equal_shape([fit, unlike])
    mi = scaled(fit)
    dis = scaled(unlike)
    return (dis - soft_weight * jnp.minimum(mi + dis, 1.0)).mean((0, -1))


def identity_loss(
    entropies: jax.Array,
    divergences: jax.Array,
    mask: jax.Array,
    entropy_coef: jax.Array,
    kl_coef: jax.Array,
) -> jax.Array:
    """log(1 + exp(min(2000, w_H mean H + w_KL mean KL))) of each step.

    Means over agents and real episodes: entropies, divergences [T, B, N], mask [T, B] -> [T].
    """
    entropy = entropy_coef * step_mean(entropies.mean(-1), mask)
    divergence = kl_coef * step_mean(divergences.mean(-1), mask)
    total = entropy + divergence
    return jax.nn.softplus(jnp.minimum(total, CEILING))


def step_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean over the episodes that are still on, 0 where none is: twice [T, B] -> [T]."""
    chex.assert_equal_shape([x, mask])
    return jnp.where(mask > 0, x, 0.0).sum(1) / jnp.maximum(mask.sum(1), 1.0)

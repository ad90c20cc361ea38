"""Proximal policy optimisation: the clipped objective, the clipped value loss, standardised
advantages.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from jaxshare.ops.masking import masked_mean


def policy_loss(ratio: jax.Array, advantage: jax.Array, clip_eps: jax.Array) -> jax.Array:
    """-min(r A, clip(r, 1 - eps, 1 + eps) A), [...].

    Schulman et al. 2017, eq. 7: no gradient where the ratio r = pi(a) / pi_old(a) has left the
    interval and going further would pay.
    """
    chex.assert_equal_shape([ratio, advantage])
    return -jnp.minimum(
        ratio * advantage, jnp.clip(ratio, 1.0 - clip_eps, 1.0 + clip_eps) * advantage
    )


def value_loss(value: jax.Array, target: jax.Array) -> jax.Array:
    """(V - R)^2 / 2, [...]."""
    chex.assert_equal_shape([value, target])
    return 0.5 * jnp.square(value - target)


def clipped_value_loss(
    value: jax.Array, old_value: jax.Array, target: jax.Array, clip_eps: jax.Array
) -> jax.Array:
    """max((V - R)^2, (V_old + clip(V - V_old, -eps, eps) - R)^2) / 2, [...].

    Yu et al. 2022 (MAPPO); code: JaxMARL, with the eps of the policy.
    """
    chex.assert_equal_shape([value, old_value, target])
    near = old_value + jnp.clip(value - old_value, -clip_eps, clip_eps)
    return jnp.maximum(value_loss(value, target), value_loss(near, target))


def standardise(advantage: jax.Array, mask: jax.Array) -> jax.Array:
    """(A - mean) / (std + 1e-8) over mask > 0, with the standard deviation of a population.

    [...], [...] -> [...].
    """
    mean = masked_mean(advantage, mask)
    std = jnp.sqrt(masked_mean(jnp.square(advantage - mean), mask))
    return (advantage - mean) / (std + 1e-8)


def approximate_kl(log_ratio: jax.Array) -> jax.Array:
    """r - 1 - log r, whose mean over pi_old's actions is KL(pi_old, pi): [...].
    http://joschu.net/blog/kl-approx.html
    """
    return jnp.expm1(log_ratio) - log_ratio

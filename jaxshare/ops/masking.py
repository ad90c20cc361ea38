"""Masked reductions. Masks are 0/1 floats or bools; masked values may be anything, nan included."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

NEG = -1e9  # finite stand-in for -inf: an all-masked row stays finite, and so does its gradient


def masked_sum(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Sum of x over mask > 0, []. x and mask have the same shape."""
    chex.assert_equal_shape([x, mask])
    return jnp.sum(jnp.where(mask > 0, x, 0.0))


def masked_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    """sum(x * mask) / max(1, sum(mask)), []. x and mask have the same shape."""
    return masked_sum(x, mask) / jnp.maximum(jnp.sum(mask), 1.0)


def masked_mean_square(error: jax.Array, mask: jax.Array) -> jax.Array:
    """sum(mask * error^2) / max(1, sum(mask)), []. error and mask have the same shape.

    Masked before the square, so that padding has no gradient.
    """
    return masked_mean(jnp.square(jnp.where(mask > 0, error, 0.0)), mask)


def masked_argmax(q: jax.Array, avail: jax.Array) -> jax.Array:
    """Index of the largest available entry of the last axis.

    [..., A], [..., A] bool -> [...] i32.
    """
    chex.assert_equal_shape([q, avail])
    return jnp.argmax(jnp.where(avail, q, NEG), axis=-1)


def masked_max(q: jax.Array, avail: jax.Array) -> jax.Array:
    """Largest available entry of the last axis: [..., A], [..., A] bool -> [...]."""
    chex.assert_equal_shape([q, avail])
    return jnp.max(jnp.where(avail, q, NEG), axis=-1)


def take_last(q: jax.Array, action: jax.Array) -> jax.Array:
    """q[..., action]: [..., A], [...] int -> [...]."""
    return jnp.take_along_axis(q, action[..., None].astype(jnp.int32), axis=-1)[..., 0]

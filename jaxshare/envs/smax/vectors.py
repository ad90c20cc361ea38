"""Arithmetic of whole teams: distances, choices of a column in each row, directions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.types import Array


def length(vector: Array) -> Array:
    """[..., 2] -> [...]."""
    return jnp.sqrt(jnp.sum(vector**2, axis=-1))


def one_hot(index: Array, size: int) -> Array:
    """[K] -> [K, size] bool; a row without a mark where the index is outside."""
    return index[:, None] == np.arange(size)[None, :]


def nearest(mask: Array, distance: Array) -> Array:
    """Column of the nearest that is marked, in each row of [K, L]."""
    return jnp.argmin(jnp.where(mask, distance, jnp.inf), axis=1)


def drawn(keys: Array, mask: Array) -> Array:
    """A random marked column in each row of [K, L]; any column where none is marked.

    It is the one that `jax.random.choice` finds with these keys [K].
    """
    share = jnp.cumsum(mask / jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1), axis=1)
    height = share[:, -1] * (1 - jax.vmap(jax.random.uniform)(keys))
    return jnp.sum(share < height[:, None], axis=1)


def towards(away: Array) -> Array:
    """Of actions 0 to 3 the one that goes best in direction `away` [K, 2], [K]."""
    x = away[:, 0]
    y = away[:, 1]
    return jnp.argmax(jnp.stack([y, x, -y, -x], axis=1), axis=1)

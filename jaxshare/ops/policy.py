"""Action selection."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxshare.ops.masking import masked_argmax


def epsilon_greedy(key: jax.Array, q: jax.Array, avail: jax.Array, epsilon: jax.Array) -> jax.Array:
    """With probability epsilon a uniformly random available action, else the best available one.

    q [..., A], avail [..., A] bool -> action [...] i32. Every agent tosses its own coin.
    """
    coin_key, action_key = jax.random.split(key)
    best = masked_argmax(q, avail)
    uniform = jax.random.categorical(action_key, jnp.where(avail, 0.0, -jnp.inf), axis=-1)
    explore = jax.random.uniform(coin_key, best.shape) < epsilon
    return jnp.where(explore, uniform, best)

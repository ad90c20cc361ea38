"""Subgoals out of the replay and the rewards for coming near them (Jeon et al. 2022, MASER), as the
code has them.

ours: everything is masked, so that no padded step is a goal, an average or an argument of a
softmax.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from jaxshare.ops.masking import NEG


def goal_step(q: jax.Array, q_tot: jax.Array, mask: jax.Array, alpha: jax.Array) -> jax.Array:
    """argmax_t alpha Q_i + (1 - alpha) Q_tot / N over real steps, the first of equals.

    q [T, B, N], q_tot and mask [T, B], alpha [] -> [B, N] i32.
    """
    chex.assert_equal_shape([q_tot, mask])
    agents = q.shape[-1]
    score = alpha * q + (1.0 - alpha) * q_tot[..., None] / agents
    score = jnp.where(mask[..., None] > 0, score, -jnp.inf)
    return jnp.argmax(score, axis=0).astype(jnp.int32)


def at_step(x: jax.Array, step: jax.Array) -> jax.Array:
    """x [T, B, N, D] at each agent's own step [B, N] -> [B, N, D]."""
    return jnp.take_along_axis(x, step[None, ..., None], axis=0)[0]


def distance(x: jax.Array, y: jax.Array) -> jax.Array:
    """|x - y|_2 over the last axis: twice [..., D] -> [...].

    Its gradient is 0 where they are equal.
    """
    square = jnp.square(x - y).sum(-1)
    apart = square > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1.0)), 0.0)


def reward_share(next_q: jax.Array) -> jax.Array:
    """Softmax over agents of their next utilities: [..., N] -> [..., N], summing to 1."""
    return jax.nn.softmax(next_q, axis=-1)


def cosine_distance(
    x: jax.Array, x_avail: jax.Array, y: jax.Array, y_avail: jax.Array
) -> jax.Array:
    """1 - cos(x, y), each with its unavailable entries as 0.

    [..., A] -> [...]; 1 where one of them is all 0.
    """
    x = jnp.where(x_avail, x, 0.0)
    y = jnp.where(y_avail, y, 0.0)
    x_square = jnp.square(x).sum(-1)
    y_square = jnp.square(y).sum(-1)
    length = jnp.sqrt(x_square * y_square)
    has_length = length > 0
    cosine = (x * y).sum(-1) / jnp.where(has_length, length, 1.0)
    return 1.0 - jnp.where(has_length, cosine, 0.0)


def kl_to_uniform(q: jax.Array, avail: jax.Array) -> jax.Array:
    """KL(softmax(q) || uniform), both over the available actions.

    [..., A], [..., A] bool -> [...].
    """
    chex.assert_equal_shape([q, avail])
    log_p = jax.nn.log_softmax(jnp.where(avail, q, NEG), axis=-1)
    entropy = -jnp.where(avail, jnp.exp(log_p) * log_p, 0.0).sum(-1)
    return jnp.log(avail.sum(-1).astype(q.dtype)) - entropy


def mean_over_time(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean over steps with mask > 0, 0 where there is none: twice [T, B, N] -> [B, N]."""
    chex.assert_equal_shape([x, mask])
    valid = (mask > 0).astype(x.dtype)
    return jnp.where(mask > 0, x, 0.0).sum(0) / jnp.maximum(valid.sum(0), 1.0)

"""One-step temporal-difference targets on masked, padded episodes."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from jaxshare.ops.masking import masked_argmax, masked_max, take_last


def next_q(q: jax.Array, target_q: jax.Array, avail: jax.Array, double: bool) -> jax.Array:
    """Utility of the next greedy action under the target network, per agent.

    Double Q-learning (van Hasselt et al. 2016, eq. 4): the online network chooses among the
    available actions, the target network evaluates. q, target_q, avail: [T+1, ..., A] -> [T, ...].
    """
    chex.assert_equal_shape([q, target_q, avail])
    if not double:
        return masked_max(target_q[1:], avail[1:])
    return take_last(target_q[1:], masked_argmax(q[1:], avail[1:]))


def discounts(
    gamma: jax.Array, terminated: jax.Array, truncated: jax.Array, bootstrap_on_timeout: bool
) -> jax.Array:
    """gamma * (1 - end), [T, B]; a time limit counts as an end unless `bootstrap_on_timeout`.

    paper: SMAC's standard configuration stores a time-out as terminal (continuing_episode = False).
    """
    end = terminated if bootstrap_on_timeout else jnp.logical_or(terminated, truncated)
    return gamma * (1.0 - end.astype(jnp.float32))


def td_error(
    reward: jax.Array, discount: jax.Array, next_value: jax.Array, value: jax.Array
) -> jax.Array:
    """delta = sg(r + discount * v') - v: target minus prediction.

    All of one shape: [T, B] of a team, [T, B, N] of its agents.
    """
    chex.assert_equal_shape([reward, discount, next_value, value])
    return jax.lax.stop_gradient(reward + discount * next_value) - value

"""Returns of pieces of episodes: n-step, generalised advantage, TD(lambda).

All take what a step pays and where it leads, [T, ...]: reward r_t; discount gamma *
(1 - terminated_t); next_value, the value of the true successor of step t (before any reset); end,
whether the step ended its episode in either way. Where an episode is cut by its time limit the
return bootstraps from the true successor, and it never looks into the next one.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp


def n_step(
    reward: jax.Array, discount: jax.Array, next_value: jax.Array, end: jax.Array, n: int
) -> jax.Array:
    """R_t = r_t + discount_t * (end_t, t = T - 1 or n steps are made ? v(t+1) : R_{t+1}), [T, ...].

    Mnih et al. 2016, section 4; n >= T is SEAC's return (Christianos et al. 2020, eq. 4 in its
    n-step form).
    """
    chex.assert_equal_shape([reward, discount, next_value, end])
    if n >= len(reward):
        return _backwards(reward, discount, next_value, jnp.where(end, 1.0, 0.0))
    last = end.at[-1].set(True)
    target = reward + discount * next_value
    for _ in range(n - 1):
        following = jnp.concatenate([target[1:], target[-1:]])
        target = reward + discount * jnp.where(last, next_value, following)
    return target


def td_lambda(
    reward: jax.Array,
    discount: jax.Array,
    next_value: jax.Array,
    end: jax.Array,
    lambda_: jax.Array,
) -> jax.Array:
    """G_t = r_t + discount_t * ((1 - lambda) v(t+1) + lambda G_{t+1}); v(t+1) alone at an end and
    at T - 1: [T, ...].

    Sutton and Barto 2018, eq. 12.18. n = 1 is lambda = 0.
    """
    chex.assert_equal_shape([reward, discount, next_value, end])
    return _backwards(reward, discount, next_value, jnp.where(end, 1.0, 1.0 - lambda_))


def lambda_successor(
    reward: jax.Array,
    discount: jax.Array,
    next_value: jax.Array,
    end: jax.Array,
    lambda_: jax.Array,
) -> jax.Array:
    """(1 - lambda) v(t+1) + lambda G_{t+1}; v(t+1) alone at an end and at T - 1: [T, ...].

    What `td_lambda` takes step t's successor to be worth, G_t = r_t + discount_t * this, for
    losses that look one step ahead.
    """
    target = td_lambda(reward, discount, next_value, end, lambda_)
    is_last = (jnp.arange(len(end)) == len(end) - 1).reshape(-1, *(1,) * (end.ndim - 1))
    later = jnp.concatenate([target[1:], target[-1:]])
    mixed = (1.0 - lambda_) * next_value + lambda_ * later
    return jnp.where(end | is_last, next_value, mixed)


def gae(
    reward: jax.Array,
    discount: jax.Array,
    value: jax.Array,
    next_value: jax.Array,
    end: jax.Array,
    lambda_: jax.Array,
) -> jax.Array:
    """A_t = delta_t + discount_t lambda A_{t+1}, delta_t = r_t + discount_t v(t+1) - v_t: [T, ...].

    Schulman et al. 2016, eq. 16; equal to `td_lambda` less the values where those are one function.
    """
    chex.assert_equal_shape([reward, discount, value, next_value, end])
    delta = reward + discount * next_value - value
    decay = jnp.where(end, 0.0, discount * lambda_)

    def step(after: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        delta, decay = at
        now = delta + decay * after
        return now, now

    return jax.lax.scan(step, jnp.zeros_like(delta[0]), (delta, decay), reverse=True)[1]


def _backwards(
    reward: jax.Array, discount: jax.Array, next_value: jax.Array, weight: jax.Array
) -> jax.Array:
    """G_t = r_t + discount_t * (weight_t v(t+1) + (1 - weight_t) G_{t+1}), and G_T = v(T)."""

    def step(after: jax.Array, at: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        reward, discount, value, weight = at
        now = reward + discount * (weight * value + (1.0 - weight) * after)
        return now, now

    return jax.lax.scan(
        step, next_value[-1], (reward, discount, next_value, weight), reverse=True, unroll=5
    )[1]

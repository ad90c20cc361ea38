"""DIFFER: individual rewards out of a team reward (Hu et al. 2023).

"DIFFER: Decomposing Individual Reward for Fair Experience Replay in MARL".

Equations by the paper's numbers. delta = R + discount * Q_tot' - Q_tot is the team TD error [T, B],
g_i = dQ_tot/dQ_i [T, B, N], and the individual reward that keeps the gradient of the shared agent
parameters is

    r_i = delta * g_i - gamma * Q_i' + Q_i                                          (eq. 2, Prop. 1)

ours: put into the individual TD error it gives exactly

    r_i + gamma Q_i' - Q_i = g_i * delta

so that training needs g and delta only; r_i is computed for people to look at.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from jaxshare.ops.masking import masked_mean, masked_sum

SELECTIONS = ("all", "greedy", "greedy_weight", "per", "per_expected")


def individual_reward(
    delta: jax.Array,
    gradient: jax.Array,
    q_taken: jax.Array,
    next_q: jax.Array,
    discount: jax.Array,
) -> jax.Array:
    """r_i of eq. 2. delta [T, B]; gradient, q_taken, next_q, discount [T, B, N] -> [T, B, N].

    `discount` is gamma * (1 - max(d, d_i)).
    """
    chex.assert_equal_shape([gradient, q_taken, next_q, discount])
    return delta[..., None] * gradient + q_taken - discount * next_q


def num_selected(ratio: jax.Array, num_valid: jax.Array) -> jax.Array:
    """n = max(1, floor(eta * M)), [] f32; arguments []. The epsilon keeps 0.3 * 10 at 3 in f32."""
    return jnp.maximum(jnp.floor(ratio * num_valid + 1e-4), 1.0)


def priorities(
    abs_error: jax.Array, mask: jax.Array, alpha: jax.Array, epsilon: jax.Array
) -> jax.Array:
    """P_j = p_j^alpha / sum_k p_k^alpha, p_j = |delta_j| + epsilon_p (eq. 3); 0 where masked.

    abs_error and mask of one shape, as [T, B, N], alpha and epsilon [] -> that shape.
    """
    chex.assert_equal_shape([abs_error, mask])
    scaled = jnp.where(mask > 0, (jnp.where(mask > 0, abs_error, 0.0) + epsilon) ** alpha, 0.0)
    return scaled / jnp.maximum(jnp.sum(scaled), 1e-30)


def importance(probability: jax.Array, mask: jax.Array, beta: jax.Array) -> jax.Array:
    """omega_j = (1/(n P_j))^beta / max_k (...) = (P_min / P_j)^beta over valid items
    (eq. 4; n cancels).

    probability and mask of one shape, as [T, B, N], beta [] -> that shape.
    """
    smallest = jnp.min(jnp.where(mask > 0, probability, jnp.inf))
    safe = jnp.where(mask > 0, probability, 1.0)
    return jnp.where(
        mask > 0, (jnp.where(jnp.isfinite(smallest), smallest, 1.0) / safe) ** beta, 0.0
    )


def greedy_weights(
    abs_error: jax.Array, mask: jax.Array, num: jax.Array, weighted: bool
) -> jax.Array:
    """Weights of `greedy`: 1 for |delta_j| >= the n-th largest, ties kept; or of `greedy_weight`:
    (|delta_j| - pivot) / max.

    abs_error, mask of one shape; num [] f32 -> weights of that shape.
    """
    error = jnp.where(mask > 0, abs_error, -jnp.inf)
    ordered = jnp.sort(error.ravel())[::-1]
    pivot = ordered[jnp.clip(num.astype(jnp.int32) - 1, 0, ordered.size - 1)]
    selected = jnp.where((mask > 0) & (error >= pivot), 1.0, 0.0)
    if not weighted:
        return selected
    excess = jnp.where(selected > 0, error - pivot, 0.0)
    largest = jnp.max(excess)
    # code: 0/0 when all selected errors are equal. ours: they all get weight 1 then.
    return jnp.where(largest > 0, excess / jnp.where(largest > 0, largest, 1.0), selected)


def draw_counts(index: jax.Array, num: jax.Array, size: int) -> jax.Array:
    """How often each of `size` items is among the first `num` entries of index [M] i32 -> [size]
    f32.
    """
    counted = (jnp.arange(index.shape[0]) < num).astype(jnp.float32)
    return jnp.zeros(size).at[index].add(counted)


def coefficient_of_variation(x: jax.Array, mask: jax.Array) -> jax.Array:
    """std_j |x_j| / mean_j |x_j| over valid items (Fig. 9), []. x and mask have the same shape.

    It is the population's standard deviation, and 0 where the mean is 0.
    """
    size = jnp.abs(jnp.where(mask > 0, x, 0.0))
    mean = masked_mean(size, mask)
    variance = masked_mean(jnp.square(size - mean), mask)
    return jnp.where(mean > 0, jnp.sqrt(variance) / jnp.where(mean > 0, mean, 1.0), 0.0)


def effective_sample_size(weight: jax.Array, mask: jax.Array) -> jax.Array:
    """(sum w)^2 / sum w^2 over valid items, []: how many equally weighted items the weights are
    worth. weight and mask have the same shape.
    """
    total = masked_sum(weight, mask)
    square = masked_sum(jnp.square(weight), mask)
    return jnp.where(square > 0, jnp.square(total) / jnp.where(square > 0, square, 1.0), 0.0)

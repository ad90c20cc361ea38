"""What offline learning adds: weights of a filter over the data, allowed actions, the price of
actions not in the data, and policies of continuous actions, which live in the box [-1, 1]^U.

Rows without an available action do not occur (padding has all available), so that no sum here is
over nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from jaxshare.ops.masking import NEG, take_last
from jaxshare.trees import Tree

FILTERS = ("softmax", "crr", "binary")
AXES = ("batch", "batch_time")
MOST = 20.0  # largest weight of a "crr" filter; code: d3rlpy's max_weight


def log_policy(logits: jax.Array, avail: jax.Array) -> jax.Array:
    """log softmax over the available actions, NEG elsewhere.

    [..., A], [..., A] bool -> [..., A].
    """
    chex.assert_equal_shape([logits, avail])
    return jnp.where(avail, jax.nn.log_softmax(jnp.where(avail, logits, NEG), axis=-1), NEG)


def familiar(log_mu: jax.Array, avail: jax.Array, threshold: jax.Array) -> jax.Array:
    """Available actions with mu(a) / max mu > threshold, and always the likeliest.

    [..., A], bool -> [..., A] bool.

    Fujimoto et al. 2019 (BCQ for discrete actions, arXiv 1910.01708). log_mu: as from `log_policy`.
    """
    chex.assert_equal_shape([log_mu, avail])
    below = log_mu - jnp.max(jnp.where(avail, log_mu, NEG), axis=-1, keepdims=True)
    return avail & ((jnp.exp(below) > threshold) | (below >= 0.0))


def masked_logsumexp(x: jax.Array, avail: jax.Array) -> jax.Array:
    """log sum exp over the available entries of the last axis: [..., A], [..., A] bool -> [...]."""
    chex.assert_equal_shape([x, avail])
    return jax.nn.logsumexp(jnp.where(avail, x, NEG), axis=-1)


def excess(q: jax.Array, avail: jax.Array, action: jax.Array) -> jax.Array:
    """log sum_a exp(q_a) - q(action) >= 0, over available actions: [..., A], bool, [...] -> [...].

    Kumar et al. 2020 (CQL), eq. 4. It is 0 where a single action is available, and adding a
    constant changes nothing.
    """
    return masked_logsumexp(q, avail) - take_last(q, action)


def joint_excess(q: jax.Array, weight: jax.Array, avail: jax.Array, action: jax.Array) -> jax.Array:
    """log sum_a exp(Q(a)) - Q(action) over all joint actions a of Q(a) = sum_i w_i q_i(a_i) + b:
    [...].

    q and avail [..., N, A], weight and action [..., N]. The sum over joint actions is a product of
    sums over each agent's, and b cancels.
    """
    return excess(weight[..., None] * q, avail, action).sum(-1)


def filter_weights(
    kind: str, x: jax.Array, mask: jax.Array, beta: jax.Array, axis: str = "batch_time"
) -> jax.Array:
    """How much each step of the data counts, by x.

    [T, B, ...], mask of the same shape -> [T, B, ...], 0 where masked.

    softmax: n e^(x / beta) / sum e^(x / beta), whose mean is 1 (Yang et al. 2021, ICQ);
        sum and count n are over the valid steps of a batch at all times (axis=batch_time) or at the
        same time (batch; code: ICQ), apart for each entry of the other axes
    crr: min(e^(x / beta), 20);  binary: 1[x > 0]; both of advantages (Wang et al. 2020, CRR)
    """
    chex.assert_equal_shape([x, mask])
    valid = mask > 0
    if kind == "binary":
        return jnp.where(valid & (x > 0), 1.0, 0.0)
    scaled = jnp.where(valid, x / beta, NEG)
    if kind == "crr":
        return jnp.where(valid, jnp.exp(jnp.minimum(scaled, jnp.log(MOST))), 0.0)
    over = (1,) if axis == "batch" else (0, 1)
    count = jnp.sum(valid, axis=over, keepdims=True)
    return jnp.where(valid, count * jax.nn.softmax(scaled, axis=over), 0.0)


def effective_share(weight: jax.Array, mask: jax.Array) -> jax.Array:
    """(sum w)^2 / sum w^2 as a share of the valid steps: 1 if all count the same, []. weight is 0
    where masked.
    """
    total = jnp.sum(weight)
    square = jnp.sum(jnp.square(weight))
    effective = jnp.square(total) / jnp.maximum(square, 1e-30)
    return effective / jnp.maximum(jnp.sum(mask > 0), 1)


# ------------------------------------------------------------------------------- continuous actions


def log_density(action: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    """log N(action; mean, std^2) over the last axis: [..., U] twice, std a scalar -> [...].

    ours: the Gaussian of actions as they are. A density of squashed actions is infinite at the
    bounds of the box, where data often are.
    """
    chex.assert_equal_shape([action, mean])
    normed = (action - mean) / std
    scaled = 0.5 * jnp.square(normed) + jnp.log(std)
    return -(scaled + 0.5 * jnp.log(2.0 * jnp.pi)).sum(-1)


def noisy(
    key: jax.Array, mean: jax.Array, std: jax.Array, shape: tuple[int, ...] | None = None
) -> jax.Array:
    """mean + N(0, std^2), clipped to the box: [..., U], or of `shape` that mean is broadcast to."""
    noise = jax.random.normal(key, mean.shape if shape is None else shape, mean.dtype)
    return jnp.clip(mean + std * noise, -1.0, 1.0)


def per_step(key: jax.Array, steps: int, draw: Callable[..., Tree], *by_step: jax.Array) -> Tree:
    """draw(a key of its own, x[t] for x in by_step) at every step, leading [T].

    A cropped batch keeps its draws.
    """
    keys = jax.vmap(lambda t: jax.random.fold_in(key, t))(jnp.arange(steps))
    return jax.vmap(draw)(keys, *by_step)


def uniform_samples(key: jax.Array, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Uniform actions in the box [..., U], and the logarithm of their density, -U log 2: [...]."""
    action = jax.random.uniform(key, shape, jnp.float32, -1.0, 1.0)
    return action, jnp.full(shape[:-1], -shape[-1] * jnp.log(2.0))


def gaussian_samples(
    key: jax.Array, mean: jax.Array, std: jax.Array, samples: int
) -> tuple[jax.Array, jax.Array]:
    """Actions of N(mean, std^2) given that they are in the box [samples, ..., U], and their log
    density [samples, ...].

    mean [..., U] in the box. code: clips what falls outside, and takes the density before that;
    then the weights 1 / p of those that were clipped have no mean. ours: the normal distribution
    cut off at the bounds.
    """
    low = (-1.0 - mean) / std
    high = (1.0 - mean) / std
    shape = (samples, *mean.shape)
    normed = jax.random.truncated_normal(key, low[None], high[None], shape, mean.dtype)
    action = jnp.clip(mean[None] + std * normed, -1.0, 1.0)
    probability = jax.scipy.special.ndtr(high) - jax.scipy.special.ndtr(low)
    inside = jnp.log(probability).sum(-1)
    density = log_density(action, jnp.broadcast_to(mean[None], action.shape), std)
    return action, density - inside[None]


def three_ways(
    key: jax.Array, means: tuple[jax.Array, jax.Array], std: jax.Array, samples: int
) -> tuple[jax.Array, jax.Array]:
    """Actions anywhere in the box, near the first mean and near the second, and log densities.

    means: [..., U] each. Returns [3 samples, ..., U] and [3 samples, ...]. Kumar et al. 2020 (CQL),
    appendix F: what policies do now and next.
    """
    now, then = means
    first, second, third = jax.random.split(key, 3)
    anywhere = uniform_samples(first, (samples, *now.shape))
    near_now = gaussian_samples(second, now, std, samples)
    near_then = gaussian_samples(third, then, std, samples)
    actions, densities = zip(anywhere, near_now, near_then, strict=True)
    return jnp.concatenate(actions), jnp.concatenate(densities)


def log_integral(values: jax.Array, density: jax.Array) -> jax.Array:
    """log of the mean of e^values / p over the leading axis, an estimate of log of the integral of
    e^values: [...].

    values and density = log p of the samples, both [samples, ...]. Kumar et al. 2020 (CQL),
    appendix F: the mean is of all samples, whichever distribution each is from. code: the logarithm
    of a sum, higher by log(samples).
    """
    chex.assert_equal_shape([values, density])
    return jax.nn.logsumexp(values - density, axis=0) - jnp.log(values.shape[0])

"""The cross-entropy method: the best action of a function on the box [-1, 1]^U, by sampling.

De Boer et al. 2005, "A Tutorial on the Cross-Entropy Method"; as COMIX uses it (Peng et al. 2021,
FACMAC, sec. 4 and its code). From mu = 0 and sigma = 1, repeat:

    x_k ~ N(mu, sigma^2),  k = 1..samples;   f_k = f(tanh x_k)
    mu, sigma <- mean and unbiased standard deviation of the `elites` x_k with the largest f_k

The answer is tanh x_k of the best k of the last round, not tanh mu.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp


def maximise(
    key: jax.Array,
    function: Callable[[jax.Array], jax.Array],
    start: jax.Array,
    samples: int,
    elites: int,
    iterations: int,
) -> tuple[jax.Array, jax.Array]:
    """(argument [..., U] in [-1, 1], its value [...]): the best of each row of a function of rows.

    function: [samples, ..., U] -> [samples, ...], every row for itself; start [..., U]: the first
    mu, before tanh.
    """
    mean = start
    std = jnp.ones_like(start)
    shape = (samples, *start.shape)
    for round_key in jax.random.split(key, iterations):
        x = mean[None] + std[None] * jax.random.normal(round_key, shape, start.dtype)
        value = function(jnp.tanh(x))
        elite, best = elite_samples(x, value, elites)
        mean, std = refit(elite)
    return jnp.tanh(elite[0]), best


def elite_samples(x: jax.Array, value: jax.Array, elites: int) -> tuple[jax.Array, jax.Array]:
    """The samples with the largest values, best first [elites, ..., U], and the best value [...].

    x [samples, ..., U], value [samples, ...].
    """
    largest, index = jax.lax.top_k(jnp.moveaxis(value, 0, -1), elites)
    elite = jnp.take_along_axis(x, jnp.moveaxis(index, -1, 0)[..., None], axis=0)
    return elite, largest[..., 0]


def refit(elite: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and unbiased (n - 1) standard deviation over the leading axis.

    [n, ..., U] -> twice [..., U].
    """
    return elite.mean(0), elite.std(0, ddof=1)


def perturb(
    key: jax.Array, action: jax.Array, noise: jax.Array, uniform_rate: jax.Array
) -> jax.Array:
    """Exploration in the box: action + N(0, noise^2) clipped to [-1, 1], or with `uniform_rate` a
    uniform one.

    action [..., U], noise and uniform_rate scalars -> [..., U]. Every row tosses its own coin.
    """
    noise_key, coin_key, uniform_key = jax.random.split(key, 3)
    moved = noise * jax.random.normal(noise_key, action.shape, action.dtype)
    near = jnp.clip(action + moved, -1.0, 1.0)
    anywhere = jax.random.uniform(uniform_key, action.shape, action.dtype, -1.0, 1.0)
    coin = jax.random.uniform(coin_key, action.shape[:-1]) < uniform_rate
    return jnp.where(coin[..., None], anywhere, near)

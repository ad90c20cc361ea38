"""Gumbel-softmax: samples of a categorical policy through which a gradient flows.

Jang et al. 2017 and Maddison et al. 2017; as MADDPG has them (Lowe et al. 2017). With logits l,
g_a = -log(-log U_a) and a temperature tau,

    y = softmax((l + g) / tau)                    the relaxed sample (Jang et al. 2017, eq. 2)
    h = one_hot(argmax y),  dh/dl := dy/dl        the straight-through sample (sec. 2.2)

argmax y has the distribution softmax(l) whatever tau is. code: EPyMARL and FACMAC compare y with
its maximum, which gives two ones where two are equal; ours: always one, exactly.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from jaxshare.ops.masking import NEG

# bounds of a uniform number, so that neither logarithm is infinite
TINY = float(jnp.finfo(jnp.float32).tiny)
MOST = 1.0 - 2.0**-24


def noise(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard Gumbel numbers of this shape, finite. key: []."""
    uniform = jnp.clip(jax.random.uniform(key, shape), TINY, MOST)
    return -jnp.log(-jnp.log(uniform))


def noise_per_step(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The same, [T, ...], drawn step by step: a batch that is cropped keeps its draws."""
    keys = jax.vmap(lambda t: jax.random.fold_in(key, t))(jnp.arange(shape[0]))
    return jax.vmap(lambda k: noise(k, shape[1:]))(keys)


def relaxed(
    logits: jax.Array, avail: jax.Array, gumbel: jax.Array, temperature: jax.Array
) -> jax.Array:
    """y, exactly 0 where an action is not available. logits, avail bool and gumbel [..., A]
    -> [..., A].
    """
    chex.assert_equal_shape([logits, avail, gumbel])
    return jax.nn.softmax(jnp.where(avail, (logits + gumbel) / temperature, NEG), axis=-1)


def first_maximum(y: jax.Array) -> jax.Array:
    """One-hot of the first largest entry, also where several are equal: [..., A] -> [..., A]."""
    return jax.nn.one_hot(jnp.argmax(y, axis=-1), y.shape[-1], dtype=y.dtype)


@jax.custom_jvp
def straight_through(y: jax.Array) -> jax.Array:
    """`first_maximum` with the derivative of the identity: [..., A] -> [..., A].

    ours: y + sg(h - y), the usual way to write it, is a one only up to rounding.
    """
    return first_maximum(y)


@straight_through.defjvp
def _straight_through_jvp(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    return first_maximum(primals[0]), tangents[0]


def mean_square_logit(logits: jax.Array, avail: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of l^2 over the available actions of valid steps.

    logits and avail [T, B, N, A], mask [T, B] -> [].

    code: EPyMARL sets the others to 0 and divides by all; ours: they are not counted.
    """
    real = avail & (mask > 0)[:, :, None, None]
    total = jnp.sum(jnp.square(jnp.where(real, logits, 0.0)))
    return total / jnp.maximum(jnp.sum(real), 1.0)

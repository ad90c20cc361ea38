"""The counterfactual baseline and the exploration of COMA (Foerster et al. 2018)."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from jaxshare.ops.masking import NEG, take_last


def counterfactual(
    q: jax.Array, probability: jax.Array, action: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """A = Q(a) - b and the baseline b = sum_a pi(a) Q(a), what the agent expects if all others do
    as they did (eq. 4).

    q and probability [..., A], action [...] i32 -> [...], [...]. The mean of A under pi is 0.
    """
    chex.assert_equal_shape([q, probability])
    baseline = jnp.sum(probability * q, axis=-1)
    return take_last(q, action) - baseline, baseline


def mix_uniform(logits: jax.Array, avail: jax.Array, epsilon: jax.Array) -> jax.Array:
    """log[(1 - eps) softmax(logits) + eps uniform], both over the available actions.

    [..., A], bool -> [..., A].

    Foerster et al. 2018, section 5. epsilon = 0 leaves the policy as it is; entries of other
    actions are very low.
    """
    chex.assert_equal_shape([logits, avail])
    log_pi = jax.nn.log_softmax(jnp.where(avail, logits, NEG), axis=-1)
    log_uniform = -jnp.log(jnp.maximum(avail.sum(-1, keepdims=True), 1).astype(logits.dtype))
    by_policy = jnp.log1p(-epsilon) + log_pi
    by_chance = jnp.log(epsilon) + jnp.broadcast_to(log_uniform, log_pi.shape)
    mixed = jnp.logaddexp(by_policy, by_chance)
    return jnp.where(avail, mixed, NEG)


def mix_all(logits: jax.Array, avail: jax.Array, epsilon: jax.Array) -> jax.Array:
    """log[(1 - eps) softmax(logits) + eps / A] over all A actions, of which the available ones are
    left.

    code: PyMARL's mask_before_softmax=false. Not normalised: a policy of these logits is. Shapes as
    `mix_uniform`.
    """
    chex.assert_equal_shape([logits, avail])
    log_pi = jax.nn.log_softmax(logits, axis=-1)
    uniform = jnp.log(epsilon) - jnp.log(logits.shape[-1])
    mixed = jnp.logaddexp(jnp.log1p(-epsilon) + log_pi, jnp.broadcast_to(uniform, log_pi.shape))
    return jnp.where(avail, mixed, NEG)

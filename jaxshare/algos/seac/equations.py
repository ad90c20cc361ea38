"""Learning from one another's experience on policy: the N x N loss of SEAC.

Christianos et al. 2020, eqs. 4 and 5.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np

RATIO_EPS = 1e-7  # code: added to the probability under which the action was taken


def weights(sets: tuple[int, ...], types: tuple[int, ...], lambda_: jax.Array) -> jax.Array:
    """How much the learner with parameter set s learns from agent k, [S, N].

    1 from agents that use this set, lambda from others of the same type, 0 from those of other
    types. sets, types: of each agent.
    """
    num_sets = max(sets) + 1
    kind = [types[sets.index(s)] for s in range(num_sets)]
    is_own = jnp.array(np.array(sets) == np.arange(num_sets)[:, None], jnp.float32)
    alike = jnp.array(np.array(types) == np.array(kind)[:, None], jnp.float32)
    return is_own + lambda_ * (1.0 - is_own) * alike


def ratios(log_prob: jax.Array, sets: tuple[int, ...], largest: float = 0.0) -> jax.Array:
    """rho_sk = sg(pi_s(a_k | o_k) / (pi_k(a_k | o_k) + 1e-7)), exactly 1 where k uses set s.

    One step only. log_prob: [S, T, B, N] of agent k's action under each parameter set
    -> [S, T, B, N]. largest: where those of others are clipped; 0: nowhere.
    """
    owner = own_sets(log_prob, sets)
    ratio = jnp.exp(log_prob) / (jnp.exp(owner) + RATIO_EPS)[None]
    ratio = jnp.minimum(ratio, largest) if largest else ratio
    is_own = jnp.array(np.array(sets) == np.arange(log_prob.shape[0])[:, None])
    return jax.lax.stop_gradient(jnp.where(is_own[:, None, None, :], 1.0, ratio))


def own_sets(x: jax.Array, sets: tuple[int, ...]) -> jax.Array:
    """What the set of each agent itself says about it: [S, T, B, N] -> [T, B, N]."""
    return jnp.stack([x[s, :, :, k] for k, s in enumerate(sets)], axis=-1)


def policy_loss(ratio: jax.Array, advantage: jax.Array, log_prob: jax.Array) -> jax.Array:
    """-rho sg(delta) log pi, elementwise.

    All are [S, T, B, N]. Where rho is 0 (an action that the learner cannot take) it is 0.
    """
    chex.assert_equal_shape([ratio, advantage, log_prob])
    return -ratio * jax.lax.stop_gradient(advantage) * jnp.where(ratio > 0, log_prob, 0.0)

"""What the others could do: their joint actions, all or drawn, and the best of them.

For Pareto actor-critic.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.ops.masking import masked_max


def all_joint_actions(num_actions: int, num_agents: int) -> np.ndarray:
    """For every agent the A^(N-1) joint actions of the others: [K, N, N] i32, row [k, i] with agent
    i's own entry 0.
    """
    others = np.indices((num_actions,) * (num_agents - 1)).reshape(num_agents - 1, -1).T
    joint = [np.insert(others, i, 0, axis=1) for i in range(num_agents)]
    return np.stack(joint, axis=1).astype(np.int32)


def drawn_joint_actions(
    key: jax.Array, taken: jax.Array, avail: jax.Array, samples: int
) -> jax.Array:
    """The joint action taken, and further ones drawn evenly from what is available: [samples, B, N]
    i32.

    taken [B, N], avail [B, N, A] bool.
    """
    logits = jnp.where(avail, 0.0, -jnp.inf)
    drawn = jax.random.categorical(key, logits, axis=-1, shape=(samples - 1, *taken.shape))
    return jnp.concatenate([taken[None], drawn.astype(taken.dtype)])


def others_only(joint: jax.Array, num_actions: int) -> jax.Array:
    """One-hot actions of all agents but agent i, whose own slot is zero.

    [..., N] i32 -> [..., N, N * A].

    A row for each agent, made of one joint action; see `without_own` for a joint action of each
    agent's own.
    """
    agents = joint.shape[-1]
    return without_own(jnp.broadcast_to(joint[..., None, :], (*joint.shape, agents)), num_actions)


def without_own(joint: jax.Array, num_actions: int) -> jax.Array:
    """As `others_only`, from a joint action [..., i, :] for every agent i.

    [..., N, N] i32 -> [..., N, N * A].
    """
    agents = joint.shape[-1]
    shape = (1,) * (joint.ndim - 2) + (agents, agents, 1)
    other = (1.0 - jnp.eye(agents)).reshape(shape)
    encoded = jax.nn.one_hot(joint, num_actions) * other
    return encoded.reshape(*joint.shape[:-1], agents * num_actions)


def possible(others: jax.Array, avail: jax.Array) -> jax.Array:
    """Whether all the others' actions are available: others [K, B, N, N * A] of `without_own`,
    avail [B, N, A] bool.

    -> [K, B, N] bool.
    """
    agents = avail.shape[-2]
    allowed = avail.reshape(1, avail.shape[0], 1, -1).astype(others.dtype)
    return (others * allowed).sum(-1) > agents - 1.5


def best(q: jax.Array, valid: jax.Array) -> jax.Array:
    """Q+(a_i) = max over valid joint actions of the others of Q(a_i, a_-i).

    [K, ...], [K, ...] bool -> [...].
    """
    chex.assert_equal_shape([q, valid])
    return masked_max(jnp.moveaxis(q, 0, -1), jnp.moveaxis(valid, 0, -1))

"""Who learns from whose experience, and with what weight (Christianos et al. 2020, appendix D).

Within a type only.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.ops.masking import masked_mean


def split_sources(groups: tuple[int, ...], batch: int, turn: jax.Array) -> jax.Array:
    """One agent's view of each episode for everybody of its type.

    Episode b has member (b + turn) mod n's. groups: type of each agent; turn [] i32 -> source
    [B, N] i32. Each member's views are a batch/n-th of the episodes.
    """
    members = _members(groups)
    size = np.array([len(member) for member in members])[list(groups)]
    table = np.array([np.resize(members[g], len(groups)) for g in groups])
    place = (jnp.arange(batch)[:, None] + turn) % size[None]
    return jnp.asarray(table)[jnp.arange(len(groups))[None], place]


def all_sources(groups: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Everybody's view of every episode: whose view agent i gets in each round, its own first.

    There are as many rounds K as the largest type has agents. -> source [K, N] i32 and whether it
    is one that it has not had yet, [K, N] bool.
    """
    members = _members(groups)
    rounds = np.arange(max(len(member) for member in members))

    def source_of(agent: int) -> np.ndarray:
        """Round the agents of its type, from itself on, [K] i32."""
        member = members[groups[agent]]
        place = (member.index(agent) + rounds) % len(member)
        return np.array(member)[place]

    source = [source_of(agent) for agent in range(len(groups))]
    fresh = [rounds < len(members[g]) for g in groups]
    return np.stack(source, 1), np.stack(fresh, 1)


def _members(groups: tuple[int, ...]) -> list[list[int]]:
    members: list[list[int]] = [[] for _ in range(max(groups) + 1)]
    for agent, group in enumerate(groups):
        members[group].append(agent)
    return members


def exchange(x: jax.Array, source: jax.Array) -> jax.Array:
    """Give agent i the entry of agent source[b, i]: x [T, B, N, ...] -> as x.

    source: [1, B, N], or another one at each step, [T, B, N].
    """
    index = source.reshape(source.shape + (1,) * (x.ndim - 3))
    return jnp.take_along_axis(x, index, axis=2)


def uniform_mean(square: jax.Array, mask: jax.Array) -> jax.Array:
    """Every experience alike, paper: (1/M) sum_j e_j of each agent, averaged over agents.

    [T, B, N] twice -> [].
    """
    return jnp.mean(_per_agent(square, mask))


def own_plus_others(
    square: jax.Array, mask: jax.Array, own: jax.Array, weight: jax.Array
) -> jax.Array:
    """Mean over one's own experience + weight * mean over that of the others, code.

    Averaged over agents: square, mask [T, B, N]; own [1, B, N] or [T, B, N] bool; weight [] -> [].
    """
    mine = mask * own
    return jnp.mean(_per_agent(square, mine) + weight * _per_agent(square, mask * ~own))


def _per_agent(x: jax.Array, mask: jax.Array) -> jax.Array:
    chex.assert_equal_shape([x, mask])
    return jax.vmap(masked_mean, in_axes=-1)(x, mask)

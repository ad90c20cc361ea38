"""Periodic parameter sharing (Zhang et al. 2024, "PPS-QMIX"): weights from scores, and weighted
means over agents.

Per-agent parameters carry a leading [N] axis. A group is a set of agents that share with one
another (all agents, or those of one type); w is a convex combination inside each group, so
w_g = sum_{i in g} w_i x_i (secs. 4.1 to 4.3).

    shifted_ratio  a_i = R_i - min(0, min_k R_k) + kappa,  w_i = a_i / sum_k a_k
    ratio          w_i = R_i / sum_k R_k
    softmax        w_i = exp(R_i / T) / sum_k exp(R_k / T)
    uniform        w_i = 1 / N

Departures. ours: shifted_ratio is the paper's ratio wherever that is defined, and goes on where it
is not (sums of zero, negative scores). paper: ratio, code: softmax with T = 1.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from jaxshare.trees import Tree

RULES = ("shifted_ratio", "ratio", "softmax", "uniform")
KAPPA = 1e-8


def convex_weights(scores: jax.Array, rule: str, temperature: jax.Array | float = 1.0) -> jax.Array:
    """Scores [N] -> w [N] that sum to 1. If any score is not finite they all count as equal.

    rule=ratio gives nan where it is undefined (a negative score, or no positive one), so that a run
    stops there.
    """
    chex.assert_rank(scores, 1)
    scores = jnp.where(jnp.all(jnp.isfinite(scores)), scores, jnp.zeros_like(scores))
    if rule == "ratio":
        total = jnp.sum(scores)
        valid = jnp.all(scores >= 0) & (total > 0)
        return jnp.where(valid, scores, jnp.nan) / jnp.where(valid, total, 1.0)
    if rule == "softmax":
        return jax.nn.softmax(scores / temperature)
    if rule == "uniform":
        return jnp.full_like(scores, 1.0 / scores.shape[0])
    # the maximum changes no value: it keeps the compiler from adding kappa to the minimum first,
    # where it would be lost
    shifted = jnp.maximum(scores - jnp.minimum(jnp.min(scores), 0.0), 0.0) + KAPPA
    return shifted / jnp.sum(shifted)


def group_weights(
    scores: jax.Array, groups: tuple[int, ...], rule: str, temperature: jax.Array | float = 1.0
) -> jax.Array:
    """`convex_weights` inside each group.

    scores [N], group of each agent -> [N], which sum to 1 over every group.
    """
    weights = jnp.zeros_like(scores)
    for members in _members(groups):
        weights = weights.at[members].set(convex_weights(scores[members], rule, temperature))
    return weights


def average(x: jax.Array, weights: jax.Array, groups: tuple[int, ...]) -> jax.Array:
    """Every row becomes the weighted mean of its group: x [N, ...], weights [N] -> [N, ...].

    ours: a sum of products, not a matrix product, which would be rounded to a shorter format on an
    accelerator.
    """
    scaled = weights.reshape(-1, *[1] * (x.ndim - 1)) * x
    means = jnp.stack([scaled[members].sum(0) for members in _members(groups)])
    return means[jnp.array(groups)].astype(x.dtype)


def distance(tree: Tree) -> jax.Array:
    """How far agents are from their plain mean, []: sqrt((1/N) sum_i |w_i - mean_k w_k|^2).

    tree: leaves [N, ...].
    """
    square = []
    for x in jax.tree.leaves(tree):
        apart = x - x.mean(0, keepdims=True)
        square.append(jnp.sum(jnp.square(apart)) / x.shape[0])
    return jnp.sqrt(jnp.sum(jnp.stack(square)))


def _members(groups: tuple[int, ...]) -> list[jax.Array]:
    agents: list[list[int]] = [[] for _ in range(max(groups) + 1)]
    for agent, group in enumerate(groups):
        agents[group].append(agent)
    return [jnp.array(members) for members in agents]

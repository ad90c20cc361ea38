"""Networks of the offline learners: ICQ's linear mixer and its critic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxshare.models.base import Linear, apply_of, first_params
from jaxshare.trees import Tree

LEAST_SUM = 1e-10  # of the weights before they are normalised; never met in practice


@dataclass(frozen=True)
class LinearMixer:
    """Q_tot = sum_i w_i(s) Q_i + b(s) with w_i >= 0.

    init: key -> params; weights: (params, state [..., G]) -> (w [..., N], b [...]);
    apply: (params, q [..., N], state [..., G]) -> q_tot [...].
    """

    init: Callable[[jax.Array], Any]
    weights: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]

    def apply(self, params: Tree, q: jax.Array, state: jax.Array) -> jax.Array:
        """Mix: q [..., N], state [..., G] -> [...]."""
        weight, bias = self.weights(params, state)
        return (weight * q).sum(-1) + bias


def linear_weights(w1: jax.Array, w2: jax.Array) -> jax.Array:
    """w_i = (|W1| |w2|)_i / sum_j (|W1| |w2|)_j.

    w1 [..., N, E], w2 [..., E] -> [..., N]. code: ICQ's k.
    """
    weight = (jnp.abs(w1) * jnp.abs(w2)[..., None, :]).sum(-1)
    return weight / jnp.maximum(weight.sum(-1, keepdims=True), LEAST_SUM)


class LinearWeights(nn.Module):
    """state [..., G] -> w [..., N], which sum to 1, and b [...] (0 unless `bias`), made by
    hyper-networks.

    b(s) = b1(s) . |w2(s)| + V(s), V with a hidden layer: what QMIX's two layers would add if they
    were linear.
    """

    num_agents: int
    embed_dim: int
    bias: bool

    @nn.compact
    def __call__(self, state: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Weights and bias of these states."""
        w1 = Linear(self.num_agents * self.embed_dim, name="w1")(state)
        w1 = w1.reshape(*state.shape[:-1], self.num_agents, self.embed_dim)
        w2 = Linear(self.embed_dim, name="w2")(state)
        weight = linear_weights(w1, w2)
        if not self.bias:
            return weight, jnp.zeros(state.shape[:-1])
        value = Linear(1, name="v_out")(nn.relu(Linear(self.embed_dim, name="v_hidden")(state)))
        slope = Linear(self.embed_dim, name="b1")(state)
        return weight, (slope * jnp.abs(w2)).sum(-1) + value[..., 0]


def linear_mixer(num_agents: int, state_dim: int, embed_dim: int, bias: bool) -> LinearMixer:
    """The mixer of `LinearWeights`."""
    module = LinearWeights(num_agents, embed_dim, bias)
    return LinearMixer(
        init=lambda key: first_params(module, key, jnp.zeros((1, state_dim))),
        weights=apply_of(module),
    )


class DuelingQ(nn.Module):
    """x -> Linear(H) -> ReLU -> Linear(H) -> ReLU -> V + A(a): ICQ's critic of one agent, without
    memory.

    carry [rows, 0], x [T, rows, D] -> (carry, q [T, rows, A]). code: no mean of A is taken away.
    """

    hidden_dim: int
    num_actions: int

    @nn.compact
    def __call__(self, carry: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Judge each step alone; the carry passes through."""
        x = nn.relu(Linear(self.hidden_dim, name="embed")(x))
        x = nn.relu(Linear(self.hidden_dim, name="body")(x))
        return carry, Linear(self.num_actions, name="head")(x) + Linear(1, name="value")(x)

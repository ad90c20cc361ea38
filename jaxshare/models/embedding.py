"""An embedding of observations, in which distances are measured."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxshare.models.base import Linear, Network, apply_of, first_params


class Embedding(nn.Module):
    """x -> Linear(H) -> ReLU -> Linear(features): [..., D] -> [..., features]."""

    hidden_dim: int
    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Embed the last axis."""
        return Linear(self.features, name="out")(nn.relu(Linear(self.hidden_dim, name="hidden")(x)))


def embedding_network(input_dim: int, hidden_dim: int, features: int) -> Network:
    """apply(params, x [..., input_dim]) -> [..., features]."""
    module = Embedding(hidden_dim, features)
    return Network(
        init=lambda key: first_params(module, key, jnp.zeros((1, input_dim))),
        apply=apply_of(module),
    )

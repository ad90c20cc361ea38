"""WQMIX's Q*: a team's value that no agent needs to know; its mixer need not be monotone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxshare.models.base import Linear
from jaxshare.models.mixers import Mixer, state_mixer


class CentralMixer(nn.Module):
    """[state, q_1 … q_N] -> three layers of ReLU -> advantage, and a value of the state with one
    hidden layer.

    q [..., N], state [..., G] -> Q* [...]. code: the same, without hyper-networks.
    """

    hidden_dim: int

    @nn.compact
    def __call__(self, q: jax.Array, state: jax.Array) -> jax.Array:
        """Mix."""
        x = jnp.concatenate([state, q], axis=-1)
        for i in range(3):
            x = nn.relu(Linear(self.hidden_dim, name=f"hidden_{i}")(x))
        advantage = Linear(1, name="out")(x)
        value = Linear(1, name="v_out")(nn.relu(Linear(self.hidden_dim, name="v_hidden")(state)))
        return (advantage + value)[..., 0]


def central_mixer(num_agents: int, state_dim: int, hidden_dim: int) -> Mixer:
    """A mixer that can represent any function of the utilities and the state."""
    module = CentralMixer(hidden_dim)

    return state_mixer(module, num_agents, state_dim)

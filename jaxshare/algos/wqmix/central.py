"""WQMIX's Q*: a team's value that no agent needs to know; its mixer need not be monotone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxshare.models.base import Linear
from jaxshare.models.mixers import Mixer, MixerInputs
from jaxshare.trees import Params


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

    def init(key: jax.Array) -> Params:
        return module.init(key, jnp.zeros((1, num_agents)), jnp.zeros((1, state_dim)))["params"]

    def apply(params: Params, q: jax.Array, reads: MixerInputs) -> jax.Array:
        mixed = module.apply({"params": params}, q, reads.state)
        assert isinstance(mixed, jax.Array)
        return mixed

    return Mixer(init=init, apply=apply)

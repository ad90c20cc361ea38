"""Mixers Q_tot = f(Q_1..Q_N; s), all with one signature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from jaxshare.models.base import Linear, apply_of, first_params
from jaxshare.trees import Tree


@struct.dataclass
class MixerInputs:
    """What a mixer may read besides the taken utilities.

    QMIX reads `state`, QPLEX all, and so only discrete actions.
    """

    # [T, B, N] best available utility; NaN where actions are continuous (it would cost a search)
    q_max: jax.Array
    # what the mixed utilities are of: [T, B, N] i32; continuous: [T, B, N, U] f32, in the box
    action: jax.Array
    state: jax.Array  # [T, B, G]


@dataclass(frozen=True)
class Mixer:
    """init: key -> params; apply: (params, q_taken [T, B, N], MixerInputs) -> q_tot [T, B]."""

    init: Callable[[jax.Array], Any]
    apply: Callable[[Any, jax.Array, MixerInputs], jax.Array]


def vdn_mixer() -> Mixer:
    """Q_tot = sum_i Q_i (Sunehag et al. 2018, eq. 3)."""
    return Mixer(init=lambda key: {}, apply=lambda params, q, inputs: q.sum(-1))


class QMixer(nn.Module):
    """Two layers whose non-negative weights are made from the state by hyper-networks (Rashid et
    al. 2018, fig. 2).

    q [..., N], state [..., G] -> Q_tot [...]:  Q_tot = ELU(q |W1(s)| + b1(s)) . |W2(s)| + V(s).
    hypernet_layers: 2 with `hypernet_dim` units in between (PyMARL), or 1 (ROMA's, MASER's and
    PPS's code).
    """

    embed_dim: int
    hypernet_dim: int
    hypernet_layers: int

    @nn.compact
    def __call__(self, q: jax.Array, state: jax.Array) -> jax.Array:
        """Mix."""
        agents = q.shape[-1]
        w1 = self._hyper("w1", agents * self.embed_dim)(state)
        w1 = w1.reshape(*state.shape[:-1], agents, self.embed_dim)
        b1 = Linear(self.embed_dim, name="b1")(state)
        w2 = self._hyper("w2", self.embed_dim)(state)
        bias = Linear(1, name="v_out")(nn.relu(Linear(self.embed_dim, name="v_hidden")(state)))
        return mix_two_layers(q, jnp.abs(w1), b1, jnp.abs(w2), bias[..., 0])

    def _hyper(self, name: str, features: int) -> Callable[[jax.Array], jax.Array]:
        if self.hypernet_layers == 1:
            return Linear(features, name=name)
        hidden = Linear(self.hypernet_dim, name=f"{name}_hidden")
        out = Linear(features, name=f"{name}_out")
        return lambda state: out(nn.relu(hidden(state)))


def mix_two_layers(
    q: jax.Array, w1: jax.Array, b1: jax.Array, w2: jax.Array, bias: jax.Array
) -> jax.Array:
    """ELU(q W1 + b1) . W2 + V.

    q [..., N], w1 [..., N, E], b1 and w2 [..., E], bias [...] -> [...].
    """
    # ours: multiply and sum instead of a batched product, which is N x E x 1 and slow on every
    # backend
    hidden = nn.elu((q[..., None] * w1).sum(-2) + b1)
    return (hidden * w2).sum(-1) + bias


def qmix_mixer(
    num_agents: int, state_dim: int, embed_dim: int, hypernet_dim: int, hypernet_layers: int
) -> Mixer:
    """QMIX's monotone mixer."""
    module = QMixer(embed_dim, hypernet_dim, hypernet_layers)
    return state_mixer(module, num_agents, state_dim)


def state_mixer(module: nn.Module, num_agents: int, state_dim: int) -> Mixer:
    """The mixer of a module (q [..., N], state [..., G]) -> q_tot [...]."""
    mix = apply_of(module)

    def init(key: jax.Array) -> Tree:
        return first_params(module, key, jnp.zeros((1, num_agents)), jnp.zeros((1, state_dim)))

    def apply(params: Tree, q: jax.Array, inputs: MixerInputs) -> jax.Array:
        return mix(params, q, inputs.state)

    return Mixer(init, apply)

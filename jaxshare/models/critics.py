"""What critics of deterministic policies read, and FACMAC's mixer with weights of any sign."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxshare.models.base import Linear
from jaxshare.models.mixers import Mixer, QMixer, mix_two_layers, state_mixer


def joint_actions(own: jax.Array, others: jax.Array) -> jax.Array:
    """For every critic `own` of its agent and `others` of the others.

    [T, B, N, E] each -> [T, B, N, N * E].
    """
    steps, batch, agents, size = own.shape
    mine = jnp.eye(agents, dtype=bool)[None, None, :, :, None]
    joint = jnp.where(mine, own[:, :, None], others[:, :, None])
    return joint.reshape(steps, batch, agents, agents * size)


def world(obs: jax.Array, state: jax.Array, use_state: bool) -> jax.Array:
    """The state, or everybody's observation, for every agent.

    [T, B, N, O], [T, B, G] -> [T, B, N, G or N * O].
    """
    z = state if use_state else obs.reshape(*obs.shape[:2], -1)
    shape = (*obs.shape[:3], z.shape[-1])
    return jnp.broadcast_to(z[:, :, None], shape)


class FreeMixer(QMixer):
    """QMIX's two layers with weights of any sign: FACMAC's ablation (code: qmix-nonmonotonic).

    q [..., N], state [..., G] -> Q_tot [...]:  Q_tot = ELU(q W1(s) + b1(s)) . W2(s) + V(s).
    """

    @nn.compact
    def __call__(self, q: jax.Array, state: jax.Array) -> jax.Array:
        """Mix."""
        agents = q.shape[-1]
        w1 = self._hyper("w1", agents * self.embed_dim)(state)
        w1 = w1.reshape(*state.shape[:-1], agents, self.embed_dim)
        b1 = Linear(self.embed_dim, name="b1")(state)
        w2 = self._hyper("w2", self.embed_dim)(state)
        bias = Linear(1, name="v_out")(nn.relu(Linear(self.embed_dim, name="v_hidden")(state)))
        return mix_two_layers(q, w1, b1, w2, bias[..., 0])


def free_mixer(
    num_agents: int, state_dim: int, embed_dim: int, hypernet_dim: int, hypernet_layers: int
) -> Mixer:
    """`FreeMixer` of these sizes, with parameters by the names of QMIX's."""
    module = FreeMixer(embed_dim, hypernet_dim, hypernet_layers)

    return state_mixer(module, num_agents, state_dim)

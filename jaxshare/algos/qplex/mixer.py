"""QPLEX's duplex dueling mixer (Wang et al. 2021, sec. 3.2)."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxshare.models.base import Linear, apply_of, first_params, uniform_fan
from jaxshare.models.mixers import Mixer, MixerInputs
from jaxshare.trees import Tree


def duplex(
    q: jax.Array, q_max: jax.Array, weight: jax.Array, bias: jax.Array, importance: jax.Array
) -> jax.Array:
    """sum_i Q'_i + sum_i (lambda_i - 1) sg(Q'_i - V'_i), with Q'_i = w_i Q_i + b_i and V'_i = w_i
    V_i + b_i.

    In value sum_i V'_i + sum_i lambda_i (Q'_i - V'_i) (Wang et al. 2021, sec. 3.2). All [..., N]
    -> [...].
    """
    advantage = jax.lax.stop_gradient(weight * (q - q_max))  # b_i cancels
    return (weight * q + bias + (importance - 1.0) * advantage).sum(-1)


def kernel_sum(key: jax.Array, agents: jax.Array, actions: jax.Array) -> jax.Array:
    """sum_k (|key_k| + 1e-10) sigmoid(agents_k) sigmoid(actions_k).

    [..., K, 1], twice [..., K, N] -> [..., N].
    """
    return ((jnp.abs(key) + 1e-10) * nn.sigmoid(agents) * nn.sigmoid(actions)).sum(-2)


class Kernels(nn.Module):
    """K small networks on one input, side by side: x [..., D] -> [..., K, features].

    layers: 1 (linear), 2 or 3, with `hidden_dim` units and ReLU in between; initialised as K
    separate ones of torch.
    last_bias: whether the last of several layers has a bias.
    """

    kernels: int
    layers: int
    hidden_dim: int
    features: int
    last_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply all."""
        widths = (*[self.hidden_dim] * (self.layers - 1), self.features)
        y = Linear(self.kernels * widths[0], name="first")(x)
        y = y.reshape(*x.shape[:-1], self.kernels, widths[0])
        for i, (fan, width) in enumerate(itertools.pairwise(widths)):
            kernel = self.param(f"kernel_{i}", uniform_fan(fan), (self.kernels, fan, width))
            y = jnp.einsum("...kd,kdf->...kf", nn.relu(y), kernel)
            if self.last_bias or i < self.layers - 2:
                bias = self.param(f"bias_{i}", uniform_fan(fan), (self.kernels, width))
                y = y + bias.reshape((1,) * (x.ndim - 1) + bias.shape)
        return y


class Importance(nn.Module):
    """lambda_i(s, a) > 0 from the state and everybody's actions (Wang et al. 2021, sec. 3.2).

    state [..., G], action [..., N] int -> [..., N].
    """

    kernels: int
    layers: int
    hidden_dim: int
    num_actions: int

    @nn.compact
    def __call__(self, state: jax.Array, action: jax.Array) -> jax.Array:
        """Weigh the advantages."""
        agents = action.shape[-1]
        joint = jax.nn.one_hot(action, self.num_actions, dtype=state.dtype)
        joint = joint.reshape(*state.shape[:-1], agents * self.num_actions)
        both = jnp.concatenate([state, joint], axis=-1)

        def kernels(features: int, name: str) -> Kernels:
            return Kernels(self.kernels, self.layers, self.hidden_dim, features, name=name)

        key = kernels(1, "key")(state)
        of_agents = kernels(agents, "agents")(state)
        of_actions = kernels(agents, "actions")(both)
        return kernel_sum(key, of_agents, of_actions)


class HyperWeights(nn.Module):
    """w_i = |hyper_w(s)_i| + 1e-10 and b_i = hyper_b(s)_i, two layers each.

    q [..., N], state [..., G] -> (w, b) [..., N] and a penalty [...], which is 0.
    """

    hypernet_dim: int

    @nn.compact
    def __call__(self, q: jax.Array, state: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Make the transformation."""
        agents = q.shape[-1]

        def of_state(name: str) -> jax.Array:
            """A number for each agent, by a hidden layer: [..., N]."""
            hidden = Linear(self.hypernet_dim, name=f"{name}_hidden")(state)
            return Linear(agents, name=f"{name}_out")(nn.relu(hidden))

        w = of_state("w")
        b = of_state("b")
        return jnp.abs(w) + 1e-10, b, jnp.zeros_like(q[..., 0])


class AttentionWeights(nn.Module):
    """w_i from a multi-head attention of the state over the agents (Yang et al. 2020, arXiv
    2002.03939).

        w_i = sum_h c_h softmax_i(l_hi / sqrt(E)),   l_hi = q_h(s) . k_h(u_i),   b_i = c(s) / N

    where u_i is the i-th of N blocks of `unit_dim` numbers at the start of the state, and c_h = 1
    or, with `weighted_head`, |w_h(s)|. nonlinear: the keys read Q_i as well. Returns (w, b)
    [..., N] and the penalty [...], sum_h mean_i l_hi^2.
    """

    heads: int
    embed_dim: int
    hypernet_dim: int
    unit_dim: int
    weighted_head: bool
    nonlinear: bool

    @nn.compact
    def __call__(self, q: jax.Array, state: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Make the transformation."""
        agents = q.shape[-1]
        lead = q.shape[:-1]

        # the agents' parts of the state
        unit = state[..., : agents * self.unit_dim].reshape(*lead, agents, self.unit_dim)
        if self.nonlinear:
            unit = jnp.concatenate([unit, q[..., None]], axis=-1)

        # attention of the state over them
        size = unit.shape[-1]
        ask = Kernels(
            self.heads, 2, self.hypernet_dim, self.embed_dim, last_bias=False, name="query"
        )
        query = ask(state)
        kernel = self.param("key", uniform_fan(size), (size, self.heads, self.embed_dim))
        key = jnp.einsum("...d,dhe->...he", unit, kernel)
        logits = jnp.einsum("...he,...nhe->...hn", query, key)
        share = nn.softmax(logits / self.embed_dim**0.5, axis=-1)
        if self.weighted_head:
            hidden = nn.relu(Linear(self.hypernet_dim, name="head_hidden")(state))
            share = share * jnp.abs(Linear(self.heads, name="head_out")(hidden))[..., None]
        bias = Linear(1, name="v_out")(nn.relu(Linear(self.embed_dim, name="v_hidden")(state)))
        penalty = jnp.square(logits).mean(-1).sum(-1)
        return share.sum(-2) + 1e-10, jnp.broadcast_to(bias / agents, q.shape), penalty


def qplex_mixer(
    num_agents: int,
    state_dim: int,
    weights: HyperWeights | AttentionWeights,
    importance: Importance,
) -> Mixer:
    """QPLEX's duplex dueling mixer: `weights` makes w and b, `importance` lambda.

    Parameters by these two names.
    """

    def init(key: jax.Array) -> Tree:
        q = jnp.zeros((1, num_agents))
        state = jnp.zeros((1, state_dim))
        action = jnp.zeros((1, num_agents), jnp.int32)
        first, second = jax.random.split(key)
        # by the names of the two modules
        return {
            "weights": first_params(weights, first, q, state),
            "importance": first_params(importance, second, state, action),
        }

    def apply(params: Tree, q: jax.Array, inputs: MixerInputs) -> jax.Array:
        w, b, _ = transformation(weights, params, q, inputs.state)
        weight = apply_of(importance)(params["importance"], inputs.state, inputs.action)
        return duplex(q, inputs.q_max, w, b, weight)

    return Mixer(init, apply)


def transformation(
    weights: HyperWeights | AttentionWeights, params: Tree, q: jax.Array, state: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(w, b) [..., N] and the penalty [...] of a `qplex_mixer` with these parameters."""
    return apply_of(weights)(params["weights"], q, state)

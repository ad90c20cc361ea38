"""Networks with attention over agents: SIT's reward decomposition and its critic (Tian et al. 2023,
eqs. 1, 2, 8).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from jaxshare.algos.sit.equations import contributions, graph_weights, similarity
from jaxshare.models.base import Linear, Network, add_bias, apply_of, first_params, uniform_fan
from jaxshare.models.embedding import Embedding
from jaxshare.models.mixers import QMixer
from jaxshare.trees import Tree

DECOMPOSITIONS = ("attention", "sum", "monotone")
GRAPHS = ("attention", "mean", "none")


class Decomposition(nn.Module):
    """What each agent contributes to the team reward, and the reward that this explains.

    state [..., G], own [..., N, D] (observation and encoded action)
    -> contribution [..., N], total [...].

        attention: lambda = softmax_i((W_q e_s) . (W_k e_i)),
                   contribution lambda_i f(own_i), total their sum
        sum:       contribution f(own_i), total their sum
        monotone:  contribution f(own_i), total a monotone mixer of them (appendix E.1, "MNC")

    e_s, e_i and f are Linear-ReLU-Linear, f is one network for all agents. scaled: scores are
    divided by the square root of the attention's size, which the paper does not do.
    """

    kind: str  # of DECOMPOSITIONS
    reward_dim: int
    attention_dim: int
    scaled: bool

    @nn.compact
    def __call__(self, state: jax.Array, own: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Decompose."""
        reward = Embedding(self.reward_dim, 1, name="reward")(own)[..., 0]
        if self.kind == "monotone":
            # code: the sizes of PyMARL's qmix.yaml
            mixer = QMixer(embed_dim=32, hypernet_dim=64, hypernet_layers=2, name="mixer")
            return reward, mixer(reward, state)
        if self.kind == "sum":
            return reward, reward.sum(-1)
        size = self.attention_dim
        e_state = Embedding(size, size, name="state")(state)
        e_own = Embedding(size, size, name="own")(own)
        query = self.param("query", uniform_fan(size), (size, size))
        key = self.param("key", uniform_fan(size), (size, size))
        # W_k goes to the one query instead of the N keys
        score = similarity(e_state @ query @ key.T, e_own)
        contribution = contributions(score / size**0.5 if self.scaled else score, reward)
        return contribution, contribution.sum(-1)


def decomposition_ensemble(
    module: Decomposition, members: int, state_dim: int, agents: int, own_dim: int
) -> Network:
    """Members of independent first parameters.

    apply: (params, state, own) -> [M, ..., N], [M, ...].
    """

    def init(key: jax.Array) -> Tree:
        state = jnp.zeros((1, state_dim))
        return first_params(module, key, state, jnp.zeros((1, agents, own_dim)))

    def init_all(key: jax.Array) -> Tree:
        return jax.vmap(init)(jax.random.split(key, members))

    apply = jax.vmap(apply_of(module), in_axes=(0, None, None))
    return Network(init=init_all, apply=apply, param_sets=())


@struct.dataclass
class Question:
    """What a critic is asked: the values of `action`.

    index: the agent's place among the observations.
    """

    history: jax.Array  # [T, rows, D] own observation and encoded previous action
    action: jax.Array  # [T, rows, K, E] encoded
    obs: jax.Array  # [T, rows, N, O] of all agents, the own one among them
    index: jax.Array  # [T, rows] i32


class GraphCritic(nn.Module):
    """Q_i(tau_i, a, o_-i) = f_agg([f_local(tau_i, a) ; e_global]), e_global from a graph attention
    over observations.

        e_global = sum_j w_ij W_1 o_j
        w_ij = softmax_j LeakyReLU(W_2^T [W_1 o_i ; W_1 o_j])                               (eq. 8)

    The graph is complete, i itself included; the order of the others does not matter. Only the row
    of the own agent is computed. graph: attention | mean (w_ij = 1/N) | none (f_agg sees the local
    part alone).
    carry [rows, 0], Question -> (carry, values [T, rows, K]).
    """

    hidden_dim: int
    graph: str  # of GRAPHS

    @nn.compact
    def __call__(self, carry: jax.Array, asked: Question) -> tuple[jax.Array, jax.Array]:
        """Judge."""
        x = self._local(asked)  # [T, rows, K, H]
        if self.graph != "none":
            world = self._world(asked)[..., None, :]
            world = jnp.broadcast_to(world, (*x.shape[:-1], world.shape[-1]))
            x = jnp.concatenate([x, world], axis=-1)
        return carry, Embedding(self.hidden_dim, 1, name="aggregate")(x)[..., 0]

    def _local(self, asked: Question) -> jax.Array:
        """Linear-ReLU-Linear of [history ; action].

        The first product of the history is made once for all actions.
        """
        before = asked.history.shape[-1]
        size = asked.action.shape[-1]
        init = uniform_fan(before + size)
        kernel = self.param("local_kernel", init, (before + size, self.hidden_dim))
        bias = self.param("local_bias", init, (self.hidden_dim,))
        of_history = add_bias(asked.history @ kernel[:before], bias)[..., None, :]
        hidden = of_history + asked.action @ kernel[before:]
        return Linear(self.hidden_dim, name="local_out")(nn.relu(hidden))

    def _world(self, asked: Question) -> jax.Array:
        """e_global [T, rows, H]."""
        size = self.hidden_dim
        width = asked.obs.shape[-1]
        first = self.param("graph_kernel", uniform_fan(width), (width, size))
        values = asked.obs @ first  # [T, rows, N, H]
        if self.graph == "mean":
            return values.mean(-2)
        second = self.param("graph_score", uniform_fan(2 * size), (size, 2))
        score = values @ second
        of_agent = jnp.take_along_axis(score[..., 0], asked.index[..., None], axis=-1)
        weight = graph_weights(of_agent[..., 0], score[..., 1])
        return (weight[..., None] * values).sum(-2)


def first_question(agents: int, obs_dim: int, action_dim: int) -> Question:
    """A question of these sizes, to make parameters by."""
    history = jnp.zeros((1, 1, obs_dim + action_dim))
    action = jnp.zeros((1, 1, 1, action_dim))
    obs = jnp.zeros((1, 1, agents, obs_dim))
    index = jnp.zeros((1, 1), jnp.int32)
    return Question(history=history, action=action, obs=obs, index=index)

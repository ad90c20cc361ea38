"""Utilities of continuous actions for learners from data: mabcq and macql.

Two networks for an agent instead of one whose numbers are the choices: `agent` makes features of
what the agent has seen, e_i(tau_i), and `utility` judges an action beside them,
Q_i(tau_i, a_i) = utility(e_i, a_i). The memory is that of actions taken, so that any number of
actions can be judged at a step by one unroll. Actions are encoded, in the box [-1, 1]^U.

ours: the papers say nothing of these networks; the features are as wide as the hidden layers.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxshare.learners import offline as family
from jaxshare.learners.offline import OfflineConfig
from jaxshare.learners.records import Acting, View
from jaxshare.models import inputs
from jaxshare.models.agents import AgentNetwork, FeedForwardQ, team_network
from jaxshare.models.base import sharing_sets
from jaxshare.trees import Params, Tree
from jaxshare.types import Array, EnvSpec


def networks(name: str, config: OfflineConfig, spec: EnvSpec) -> dict[str, AgentNetwork]:
    """`agent` and `utility`. Raises RefusedError for actions without finite bounds."""
    inputs.bounded(name, spec)
    agent = family.agent_network(config, spec, outputs=config.hidden_dim)
    return {"agent": agent, "utility": judge(config, spec, outputs=1)}


def judge(config: OfflineConfig, spec: EnvSpec, outputs: int) -> AgentNetwork:
    """A network without memory that reads features and an action."""
    module = FeedForwardQ(config.hidden_dim, outputs)
    width = config.hidden_dim + inputs.action_dim(spec)
    return team_network(module, width, 0, sharing_sets(config.share_params, spec.groups))


def features(view: View, params: Params) -> Array:
    """e_i in every slot, [T+1, B, N, H]."""
    return family.unrolled(view, "agent", params)


def features_now(acting: Acting) -> tuple[Array, Array]:
    """(memory [B, N, H], e_i [B, N, H]) of agents that act."""
    agent = acting.learner.networks["agent"]
    memory, says = agent.unroll(acting.params["agent"], acting.memory["agent"], acting.x)
    return memory, says[0]


def says(network: AgentNetwork, params: Tree, e: Array, action: Array) -> Array:
    """What a `judge` says of actions: e [T, B, N, H], action [T, B, N, U] -> [T, B, N, Y]."""
    x = jnp.concatenate([e, action], axis=-1)
    return network.unroll(params, network.initial_carry(x.shape[1]), x)[1]


def values(view: View, params: Params, e: Array, action: Array) -> Array:
    """Q_i of one action in each of the first T slots, [T, B, N].

    e [T, B, N, H], action [T, B, N, U].
    """
    return says(view.learner.networks["utility"], params["utility"], e, action)[..., 0]


def values_of_each(view: View, params: Params, e: Array, actions: Array) -> Array:
    """Q_i of several actions in each slot, [K, T, B, N].

    e [T, B, N, H], actions [K, T, B, N, U].
    """
    return jax.vmap(lambda action: values(view, params, e, action))(actions)


def taken_utilities(view: View) -> dict[str, Array]:
    """Q_i of the actions taken, for people to look at, [T, B, N]."""
    action = inputs.encode(view.batch.action, view.spec)
    return {"q_taken": values(view, view.params, features(view, view.params)[:-1], action)}

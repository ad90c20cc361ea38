"""SIT's parameter sets and buffers: who learns from whose trajectories."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp

from jaxshare.algos.sit.networks import GraphCritic, Question, first_question
from jaxshare.algos.sit.settings import Config
from jaxshare.models import inputs
from jaxshare.models.agents import AgentNetwork, q_network
from jaxshare.models.base import apply_of, first_params, lift_apply, lift_init, sharing_sets
from jaxshare.trees import Tree
from jaxshare.types import Array, EnvSpec


@dataclass(frozen=True)
class Sets:
    """The networks of all S parameter sets, and the buffers that they learn from.

    buffers: which buffer each agent's trajectories are in; names: of the buffers;
    param_sets: parameter set of each agent;
    actor: unroll gives logits [T, B, S, A], or numbers [T, B, S, U] whose tanh is the mean of a
    policy;
    critic: a Question with rows [B, S] -> values [T, B, S, K].
    """

    buffers: tuple[int, ...]
    names: tuple[str, ...]
    param_sets: tuple[int, ...]
    actor: AgentNetwork
    critic: AgentNetwork

    @property
    def num_sets(self) -> int:
        """S."""
        return max(self.param_sets) + 1

    @property
    def set_buffers(self) -> tuple[int, ...]:
        """The buffer that each parameter set learns from."""
        return tuple(self.buffers[self.param_sets.index(s)] for s in range(self.num_sets))

    @property
    def members(self) -> list[list[int]]:
        """The agents of each buffer."""
        return [self._members(buffer) for buffer in range(len(self.names))]

    def _members(self, buffer: int) -> list[int]:
        return [agent for agent in range(len(self.buffers)) if self.buffers[agent] == buffer]

    def judge(self, params: Tree, asked: Question) -> Array:
        """Q_i [T, B, S, K] of a Question with rows [B, S]."""
        carry = self.critic.initial_carry(asked.history.shape[1])
        unroll: Callable[..., tuple[Array, Array]] = self.critic.unroll  # it reads questions
        return unroll(params, carry, asked)[1]


def sets_of(config: Config, spec: EnvSpec) -> Sets:
    """As `share_params` says.

    Agents of a type have a buffer, all have one where they share a policy.
    """
    param_sets = sharing_sets(config.share_params, spec.groups)
    shared = config.share_params == "all"
    each = tuple(range(max(param_sets) + 1))
    actor = _network("actor", config, spec, each)
    critic = _network("critic", config, spec, each)
    return Sets(
        buffers=param_sets if shared else spec.groups,
        names=("all",) if shared else spec.group_names,
        param_sets=param_sets,
        actor=actor,
        critic=critic,
    )


def shared_network(kind: str, config: Config, spec: EnvSpec) -> AgentNetwork:
    """The actors or the critics of the team: rows [B, N]."""
    return _network(kind, config, spec, sharing_sets(config.share_params, spec.groups))


def _network(kind: str, config: Config, spec: EnvSpec, param_sets: tuple[int, ...]) -> AgentNetwork:
    if kind == "critic":
        return _critics(config, spec, param_sets)
    size = inputs.action_dim(spec)
    return q_network(
        spec.obs_dim + size, size, config.hidden_dim, recurrent=True, param_sets=param_sets
    )


def _critics(config: Config, spec: EnvSpec, param_sets: tuple[int, ...]) -> AgentNetwork:
    critic = GraphCritic(config.critic_dim, config.graph)
    example = first_question(spec.num_agents, spec.obs_dim, inputs.action_dim(spec))

    # how it is drawn, and its memory, of which there is none
    def init(key: Array) -> Tree:
        return first_params(critic, key, jnp.zeros((1, 0)), example)

    def initial_carry(batch: int) -> Array:
        return jnp.zeros((batch, len(param_sets), 0))

    unroll: Callable[..., tuple[Array, Array]] = lift_apply(apply_of(critic), param_sets)
    return AgentNetwork(
        init=lift_init(init, param_sets),
        initial_carry=initial_carry,
        unroll=unroll,
        param_sets=param_sets,
    )

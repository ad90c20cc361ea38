"""MADDPG: every agent's critic reads what all do (Lowe et al. 2017, arXiv 1706.02275).

    y_i = r_i + discount Q'_i(z', a'_1, ..., a'_N),  a'_j = pi'_j(tau_j')                    (eq. 6)
    L(Q_i) = sum m (y_i - Q_i(z, a_1, ..., a_N))^2 / sum m
    L(pi_i) = - sum m Q_i(z, a_1, ..., pi_i(tau_i), ..., a_N) / sum m + c mean(l^2)          (eq. 5)

z is the state, or everybody's observation; only agent i's own action is varied in its critic.
Continuous actions are tanh of the actor's numbers, with c on their mean square; discrete ones are
hard Gumbel-softmax samples and l their logits. The defaults are EPyMARL's (Papoudakis et al. 2021);
presets maddpg/openai, maddpg/pred_prey, maddpg/mamujoco and maddpg/smax are those of Lowe et
al. and of FACMAC's code.

Departures. code: EPyMARL trains on padding and never on the step that ends an episode, and its
target actors start with an empty memory at t = 1; ours: every valid step, and memory from t = 0
(its published numbers come from its code).
code: in the actors' loss it replaces the others' actions by present ones, openai/maddpg keeps the
stored ones; `others`. code: openai/maddpg stores the relaxed samples that it plays, and clips each
tensor; ours: the actions taken, and one norm of all of an agent's network. Not done: policies of
other agents that are inferred, ensembles of policies.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax.numpy as jnp

from jaxshare.learners.deterministic import Critics, deterministic_learner
from jaxshare.learners.deterministic_settings import DeterministicConfig
from jaxshare.learners.learner import Learner
from jaxshare.learners.value_losses import individual_td_loss
from jaxshare.models import inputs
from jaxshare.models.critics import joint_actions, world
from jaxshare.settings.fields import flag, static
from jaxshare.types import Array, EnvSpec


@dataclass(frozen=True)
class Config(DeterministicConfig):
    """Settings of the family, and what the critics read. code: EPyMARL's maddpg.yaml."""

    others: str = static(
        "current",
        choices=("current", "buffer"),
        help="others' actions in the actors' loss: of the current policies, or those in the buffer",
        source="code: EPyMARL, samples; openai/maddpg and FACMAC have buffer",
    )
    critic_reads: str = static(
        "state",
        choices=("state", "obs"),
        help="what critics read: the state (where there is none all observations), or those",
        source="code: EPyMARL; openai/maddpg has obs",
    )
    critic_agent_id: bool = flag(
        True,
        help="critics read the agent's index, one-hot",
        source="code: EPyMARL",
    )
    over_agents: str = static(
        "mean",
        choices=("mean", "sum"),
        help="what is minimised: the mean of the agents' losses, or their sum",
        source="code: EPyMARL; openai/maddpg: each agent minimises its own (sum)",
    )


def make(config: Config, spec: EnvSpec) -> Learner:
    """Critics of the joint action, one for every agent."""
    use_state = config.critic_reads == "state" and spec.state_dim > 0
    size = spec.state_dim if use_state else spec.num_agents * spec.obs_dim
    size += spec.num_agents * (inputs.action_dim(spec) + config.critic_agent_id)
    weight = float(spec.num_agents) if config.over_agents == "sum" else 1.0
    critics = Critics(
        reads=partial(critic_input, config, use_state),
        input_dim=size,
        others=config.others,
        weight=weight,
    )
    return deterministic_learner("maddpg", config, spec, critics, individual_td_loss)


def critic_input(
    config: Config, use_state: bool, obs: Array, state: Array, own: Array, others: Array
) -> Array:
    """[z, joint action as critic i sees it, index i]: [T, B, N, D]."""
    parts = [world(obs, state, use_state), joint_actions(own, others)]
    if config.critic_agent_id:
        agents = obs.shape[2]
        parts.append(jnp.broadcast_to(jnp.eye(agents), (*obs.shape[:3], agents)))
    return jnp.concatenate(parts, axis=-1)

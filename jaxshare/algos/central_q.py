"""Central Q-learning: one agent that sees what all see chooses the joint action.

    Q(h, a) of every joint action a = (a_1, ..., a_N) given the joint history h
    L = sum_t m_t (Q(h_t, a_t) - y_t)^2 / sum_t m_t,   y = r + gamma (1 - d) max_a Q'(h', a)

The central learning of Albrecht, Christianos and Schäfer's lecture on their book: training and
execution are both centralised, and a network has A^N outputs. DQN with a GRU, in the settings of
the value family (deep recurrent Q-learning, Hausknecht and Stone 2015); the reward is the agents'
sum, or the common one.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.learners.joint import JointAgent, for_team, joint_spec
from jaxshare.learners.learner import Learner
from jaxshare.learners.value import value_learner
from jaxshare.learners.value_losses import individual_td_loss
from jaxshare.learners.value_settings import ValueConfig
from jaxshare.settings.fields import default
from jaxshare.types import EnvSpec


@dataclass(frozen=True)
class Config(JointAgent, ValueConfig):
    """Settings of the value family, and of the one agent."""

    obs_last_action: bool = default(False, "ours: one-hot it has A^N numbers")
    obs_agent_id: bool = default(False, "ours: there is one agent")


def make(config: Config, spec: EnvSpec) -> Learner:
    """One agent. Raises RefusedError for too many joint actions."""
    joint = joint_spec("central_q", config, spec)
    learner = value_learner("central_q", config, joint, mixer=None, loss=individual_td_loss)
    return for_team(config, spec, learner)

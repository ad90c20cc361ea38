"""Central A2C: one agent that sees what all see draws the joint action from one policy.

    L = -mean[sg(R - V(h)) log pi(a | h)] + mean[(R - V(h))^2] - c_e mean[H(pi(. | h))]

with a = (a_1, ..., a_N) and the joint history h: ia2c.py for a team of one, as in Albrecht,
Christianos and Schäfer's lecture on their book of 2024 (central learning). The policy may correlate
the agents' actions, which no product of their own policies can. Settings are EPyMARL's ia2c; the
reward is the agents' sum, or the common one.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.learners.actor_critic import actor_critic
from jaxshare.learners.actor_critic_losses import a2c_loss, prepare_own
from jaxshare.learners.actor_critic_settings import EPYMARL_RUN, EpymarlConfig
from jaxshare.learners.joint import JointAgent, for_team, joint_spec
from jaxshare.learners.learner import Learner
from jaxshare.settings.fields import default
from jaxshare.types import EnvSpec

RUN = EPYMARL_RUN


@dataclass(frozen=True)
class Config(JointAgent, EpymarlConfig):
    """See `EpymarlConfig`, and the settings of the one agent."""

    obs_agent_id: bool = default(False, "ours: there is one agent")


def make(config: Config, spec: EnvSpec) -> Learner:
    """One agent. Raises RefusedError for too many joint actions."""
    joint = joint_spec("central_a2c", config, spec)
    learner = actor_critic("central_a2c", config, joint, prepare_own, a2c_loss)
    return for_team(config, spec, learner)

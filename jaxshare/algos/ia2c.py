"""Independent A2C, IA2C, as EPyMARL runs it (Papoudakis et al. 2021, arXiv 2006.07869).

    L_i = -mean[sg(R_i - V_i(o_i)) log pi_i(a_i | h_i)] + mean[(R_i - V_i(o_i))^2] - c_e
    mean[H(pi_i(. | h_i))]

The equation of iac.py with other settings: whole episodes, one recurrent network for all agents
that reads their index, 5-step returns from a slowly moving target critic, an optimiser each for
actors and critics, standardised rewards (`modifiers=[standardise]`; without it the rewards are as
they come). share_params=none is EPyMARL's ia2c_ns.

Departures. code: EPyMARL bootstraps from the last observation of an episode that truly ended, and
its statistics of the rewards include padding; ours: neither.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.learners.actor_critic import actor_critic
from jaxshare.learners.actor_critic_losses import a2c_loss, prepare_own
from jaxshare.learners.actor_critic_settings import EPYMARL_RUN, EpymarlConfig
from jaxshare.learners.learner import Learner
from jaxshare.types import EnvSpec

RUN = EPYMARL_RUN


@dataclass(frozen=True)
class Config(EpymarlConfig):
    """See `EpymarlConfig`."""


def make(config: Config, spec: EnvSpec) -> Learner:
    """Agents share a network that knows who they are."""
    return actor_critic("ia2c", config, spec, prepare_own, a2c_loss)

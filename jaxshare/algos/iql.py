"""Independent Q-learning, IQL, IDQN: all learn alone on their rewards (Tan 1993).

With deep networks: Tampuu et al. 2017.

    L = sum_t,i m_t (Q_i(tau_i, a_i) - y_i)^2 / (N sum_t m_t),   y_i = r_i + gamma (1 - d) Q_i'

Departures: parameters are shared unless `share_params=none` (PyMARL; the MARL book's lecture has
one network each). Dead agents keep being trained on their only action, as in PyMARL.

preset=lecture/idqn has the lecture's form: a network for each agent, single transitions, the
target's own maximum. Each agent's replay is there its own part of the joint steps that are drawn,
at the same times for all: as no loss has two agents in it, each learns as from a replay of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.learners.learner import Learner
from jaxshare.learners.value import independent_learner
from jaxshare.learners.value_losses import individual_td_loss
from jaxshare.learners.value_settings import IndependentConfig
from jaxshare.types import EnvSpec


@dataclass(frozen=True)
class Config(IndependentConfig):
    """Settings of the value family, and whose gradients are clipped together."""


def make(config: Config, spec: EnvSpec) -> Learner:
    """No mixer, one loss per agent."""
    return independent_learner("iql", config, spec, individual_td_loss)

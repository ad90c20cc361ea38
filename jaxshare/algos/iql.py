"""Independent Q-learning, IQL, IDQN: all learn alone on their rewards (Tan 1993).

With deep networks: Tampuu et al. 2017.

    L = sum_t,i m_t (Q_i(tau_i, a_i) - y_i)^2 / (N sum_t m_t),   y_i = r_i + gamma (1 - d) Q_i'

Departures: parameters are shared unless `share_params=none` (PyMARL; the MARL book's lecture has
one network each). Dead agents keep being trained on their only action, as in PyMARL.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.learners.learner import Learner
from jaxshare.learners.value import value_learner
from jaxshare.learners.value_losses import individual_td_loss
from jaxshare.learners.value_settings import ValueConfig
from jaxshare.types import EnvSpec


@dataclass(frozen=True)
class Config(ValueConfig):
    """Settings of the value family, unchanged."""


def make(config: Config, spec: EnvSpec) -> Learner:
    """No mixer, one loss per agent."""
    return value_learner("iql", config, spec, mixer=None, loss=individual_td_loss)

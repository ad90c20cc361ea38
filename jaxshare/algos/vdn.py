"""Value-decomposition networks (Sunehag et al. 2018, arXiv 1706.05296).

Q_tot(tau, a) = sum_i Q_i(tau_i, a_i)                                                   (eq. 3)
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.learners.learner import Learner
from jaxshare.learners.value import value_learner
from jaxshare.learners.value_losses import team_td_loss
from jaxshare.learners.value_settings import ValueConfig
from jaxshare.models.mixers import vdn_mixer
from jaxshare.types import EnvSpec


@dataclass(frozen=True)
class Config(ValueConfig):
    """Settings of the value family, unchanged."""


def make(config: Config, spec: EnvSpec) -> Learner:
    """The sum as mixer, one team loss."""
    return value_learner("vdn", config, spec, mixer=vdn_mixer(), loss=team_td_loss)

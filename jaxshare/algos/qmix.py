"""QMIX: monotonic value-function factorisation (Rashid et al. 2018, arXiv 1803.11485).

    Q_tot = ELU(q |W1(s)| + b1(s)) . |W2(s)| + V(s),   so that dQ_tot/dQ_i >= 0      (eq. 5, fig. 2)

ELU is convex and the weights are non-negative: for a fixed state Q_tot is convex and non-decreasing
in the utilities.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.learners.learner import Learner
from jaxshare.learners.value import monotone_mixer, value_learner
from jaxshare.learners.value_losses import team_td_loss
from jaxshare.learners.value_settings import ValueConfig
from jaxshare.settings.shared import HyperNetwork
from jaxshare.types import EnvSpec


@dataclass(frozen=True)
class Config(HyperNetwork, ValueConfig):
    """Settings of the value family, and the mixer's. code: PyMARL's qmix.yaml, also DIFFER's."""


def make(config: Config, spec: EnvSpec) -> Learner:
    """The monotone mixer, one team loss."""
    mixer = monotone_mixer(config, spec)
    return value_learner("qmix", config, spec, mixer=mixer, loss=team_td_loss)

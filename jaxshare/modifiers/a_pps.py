"""A-PPS: every agent's parameters become their mean, every so often.

Zhang et al. 2024, "PPS-QMIX: Periodically Parameter Sharing for Accelerating Convergence of
Multi-Agent Reinforcement Learning". For any learner whose agents have parameters of their own
(algo.share_params=none). Every `period` updates

    w_g = (1/N) sum_i w_i,   and every agent goes on from w_g                             (sec. 4.1)

Departures: periodic/__init__.py. code: A-PPS is commented out in the released file; there its first
average falls on update 0, before anything is learned, which is `init=average` here.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.learners.learner import Learner
from jaxshare.modifiers.periodic.averages import periodic
from jaxshare.modifiers.periodic.settings import PeriodicConfig


@dataclass(frozen=True)
class Config(PeriodicConfig):
    """Settings of A-PPS."""


def make(config: Config, learner: Learner) -> Learner:
    """Average all agents alike. Raises RefusedError if agents share parameters already."""
    return periodic("a_pps", config, learner)

"""RS-PPS: parameters become a mean that counts agents with more reward for more, every so often.

Zhang et al. 2024, "PPS-QMIX: Periodically Parameter Sharing for Accelerating Convergence of
Multi-Agent Reinforcement Learning". For any learner whose agents have parameters of their own
(algo.share_params=none). Every `period` updates

    w_g = sum_i (R_i / sum_k R_k) w_i                                                     (sec. 4.2)
    R_i = sum of agent i's rewards during the interval

Departures: periodic/__init__.py. paper: under a common reward all R_i are the same, which makes
this A-PPS; code: R_i is then the return of solo episodes and the weights are their softmax, though
the released file never switches that on. ours: solo episodes with shifted ratios (ops/pps.py) where
the reward is common, each agent's own reward where it is not.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.learners.learner import Learner
from jaxshare.modifiers.periodic.averages import periodic
from jaxshare.modifiers.periodic.settings import ScoredConfig


@dataclass(frozen=True)
class Config(ScoredConfig):
    """Settings of RS-PPS. What is `swept` a sweep may vary, the others are static."""


def make(config: Config, learner: Learner) -> Learner:
    """Average agents by their scores.

    Raises RefusedError if they share parameters already or cannot be told apart.
    """
    return periodic("rs_pps", config, learner)

"""PP-PPS: a part of every agent's parameters is averaged as in RS-PPS, the rest stays personal.

Zhang et al. 2024, "PPS-QMIX: Periodically Parameter Sharing for Accelerating Convergence of
Multi-Agent Reinforcement Learning". For any learner whose agents have parameters of their own
(algo.share_params=none). Every `period` updates

    w_{i,j} = sum_k (R_k / sum_l R_l) w_{k,j}   for j in the shared set                   (sec. 4.3)
    w_{i,j} stays                               for all others

Departures: periodic/__init__.py, rs_pps.py. paper: the representation is personal and the value
layers are shared (share=head), with Table 1's "personalized layer 4"; code: the first four tensors
are the shared ones, with equal weights, which is share=[embed,gru.*_kernel] rule=uniform here
(preset=pps/qmix_pp_code). The paper's four, read as tensors, leave share=[gru.*_bias,head]
(preset=pps/qmix_pp_layer4).
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.learners.learner import Learner
from jaxshare.modifiers.periodic.averages import periodic
from jaxshare.modifiers.periodic.settings import ScoredConfig
from jaxshare.settings.fields import FreeText, default


@dataclass(frozen=True)
class Config(ScoredConfig):
    """Settings of PP-PPS. What is `swept` a sweep may vary, the others are static."""

    share: FreeText = default("head", "paper: PPS")


def make(config: Config, learner: Learner) -> Learner:
    """Average a part by scores.

    Raises RefusedError if agents share parameters already or cannot be told apart.
    """
    return periodic("pp_pps", config, learner)

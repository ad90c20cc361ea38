"""Shared network actor-critic, SNAC: one network (Christianos et al. 2020, section 5.2).

It learns from everybody's experience.

    L = sum_i L_i,   L_i of iac.py with the same parameters for all agents

paper: the sum over agents, not the mean: it comes before the gradient is clipped, so that the two
are not the same. Without importance weights, and no agent's index is appended, so that agents act
alike. code: SEAC's has no SNAC.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.learners.actor_critic import actor_critic
from jaxshare.learners.actor_critic_losses import a2c_loss, prepare_own
from jaxshare.learners.actor_critic_settings import ActorCriticConfig
from jaxshare.learners.learner import Learner
from jaxshare.settings.fields import default
from jaxshare.types import EnvSpec

RUN = {"num_envs": 4}  # paper: SEAC Table 2


@dataclass(frozen=True)
class Config(ActorCriticConfig):
    """See `ActorCriticConfig`."""

    share_params: str = default("all", "paper: SEAC, its baseline SNAC")


def make(config: Config, spec: EnvSpec) -> Learner:
    """All agents are one network."""
    return actor_critic("snac", config, spec, prepare_own, a2c_loss)

"""A2C with central critics, MAA2C (Papoudakis et al. 2021).

The centralised A2C of the MARL book's lecture.

    L_i = -mean[sg(y_i - V_i(z)) log pi_i(a_i | h_i)] + mean[(y_i - V_i(z))^2] - c_e
    mean[H(pi_i(. | h_i))]

The actors are ia2c's; the critic reads z, the state and the agent's index, which actors never see.
y_i is the 5-step return along agent i's rewards, bootstrapped by a slowly moving target critic; the
advantage is taken with the critic before its step. Other settings than ia2c's: only the entropy
coefficient.

Departures. The lecture's slides leave out the minus sign of the actors' loss, and write V(h_i, z):
`critic_obs=true` adds o_i. code: EPyMARL bootstraps from the last observation of an episode that
truly ended; ours: never.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.learners.actor_critic import actor_critic
from jaxshare.learners.actor_critic_losses import a2c_loss, prepare_own
from jaxshare.learners.actor_critic_settings import (
    EPYMARL_RUN,
    CentralConfig,
    EpymarlConfig,
    EpymarlHParams,
)
from jaxshare.learners.central import central_critic
from jaxshare.learners.learner import Learner
from jaxshare.settings.fields import default, nested
from jaxshare.types import EnvSpec

RUN = EPYMARL_RUN


@dataclass(frozen=True)
class HParams(EpymarlHParams):
    """Swept scalars. code: EPyMARL's maa2c.yaml."""

    entropy_coef: float = default(0.01, "code: EPyMARL's maa2c.yaml")


@dataclass(frozen=True)
class Config(EpymarlConfig, CentralConfig):
    """Static settings. code: EPyMARL's maa2c.yaml."""

    hparams: HParams = nested(HParams)


def make(config: Config, spec: EnvSpec) -> Learner:
    """Agents that act on what they see, and critics that see everything."""
    critic = central_critic(config, spec)
    return actor_critic("maa2c", config, spec, prepare_own, a2c_loss, critic)

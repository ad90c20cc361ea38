"""Multi-agent PPO with central critics, MAPPO (Yu et al. 2022, https://arxiv.org/abs/2103.01955).

The equations of ippo.py with V(z) for V(h_i): z is the state (everybody's observation where there
is none) and the agent's index; the actors never see it. Actors and critics have an optimiser each.
Settings and networks are those of JaxMARL (Rutherford et al. 2023) for SMAX; presets mappo/* have
its other ones and EPyMARL's.

Departures, besides those of ippo.py. paper: values are standardised by running moments (PopArt),
and the critic of a dead agent sees only its index; code: JaxMARL has neither, and we follow it;
`mask_dead=true` leaves dead agents out of the losses, as the paper's own code does. code: JaxMARL
multiplies the critic's loss by c_v before its own optimiser, where only the clipping of the
gradient and Adam's eps notice: so do we.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.learners import ppo
from jaxshare.learners.actor_critic import actor_critic
from jaxshare.learners.actor_critic_settings import CentralConfig
from jaxshare.learners.central import central_critic
from jaxshare.learners.learner import Learner
from jaxshare.settings.fields import default, nested
from jaxshare.types import EnvSpec

RUN = ppo.RUN

CODE = "code: JaxMARL's mappo_homogenous_rnn_smax"


@dataclass(frozen=True)
class HParams(ppo.PPOHParams):
    """Swept scalars. code: JaxMARL's mappo_homogenous_rnn_smax."""

    lr: float = default(2e-3, CODE)
    critic_lr: float = default(2e-3, CODE)
    entropy_coef: float = default(0.0, CODE)
    clip_eps: float = default(0.2, CODE)


@dataclass(frozen=True)
class Config(ppo.PPOConfig, CentralConfig):
    """Static settings. code: JaxMARL's mappo_homogenous_rnn_smax."""

    optimizers: str = default("separate", CODE)
    hparams: HParams = nested(HParams)


def make(config: Config, spec: EnvSpec) -> Learner:
    """Agents that act on what they see, and critics that see everything."""
    critic = central_critic(config, spec)
    return actor_critic("mappo", config, spec, ppo.prepare, ppo.loss, critic)

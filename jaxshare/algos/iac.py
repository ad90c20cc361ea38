"""Independent actor-critic, IAC: n-step, without sharing (Christianos et al. 2020, section 3).

Mnih et al. 2016, asynchronous advantage actor-critic.

    L_i = -mean[sg(R_i - V_i(o_i)) log pi_i(a_i | o_i)] + c_v mean[(R_i - V_i(o_i))^2] - c_e
    mean[H(pi_i(. | o_i))]

R_i is the n-step return of agent i along its own rewards, bootstrapped by its own critic; every
agent has its own networks, optimiser and clipped gradient. The defaults are SEAC's; `algo=ia2c` is
the same with EPyMARL's.

Departures. code: SEAC's throws a step away that the time limit cuts; ours: it bootstraps from the
true successor.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.learners.actor_critic import actor_critic
from jaxshare.learners.actor_critic_losses import a2c_loss, prepare_own
from jaxshare.learners.actor_critic_settings import ActorCriticConfig
from jaxshare.learners.learner import Learner
from jaxshare.types import EnvSpec

RUN = {"num_envs": 4}  # paper: SEAC Table 2


@dataclass(frozen=True)
class Config(ActorCriticConfig):
    """See `ActorCriticConfig`."""


def make(config: Config, spec: EnvSpec) -> Learner:
    """Every agent learns alone."""
    return actor_critic("iac", config, spec, prepare_own, a2c_loss)

"""Independent PPO, IPPO (de Witt et al. 2020, https://arxiv.org/abs/2011.09533).

PPO: Schulman et al. 2017, https://arxiv.org/abs/1707.06347.

    r = pi(a_i | h_i) / pi_old(a_i | h_i)
    A_i = GAE(lambda) of agent i's rewards with its own critic V(h_i)
    R_i = A_i + V_old,   standardised in each minibatch:   A <- (A - mean) / (std + 1e-8)
    L = -mean min(r A, clip(r, 1 - eps, 1 + eps) A)                         (Schulman et al., eq. 7)
        + c_v mean max((V - R)^2, (V_old + clip(V - V_old, -eps, eps) - R)^2) / 2 - c_e mean H(pi)

Settings and networks are those of JaxMARL (Rutherford et al. 2023) for SMAX; presets ippo/* have
its other ones and EPyMARL's. Feed-forward with recurrent=false critic_recurrent=false. An
environment on the host needs rollout=episodes.

Departures. code: JaxMARL takes the time limit for a true end, and has no other step to bootstrap
from, since its environments reset themselves; ours: a cut episode bootstraps from its true
successor. code: its recurrent IPPO has one trunk for actor and critic; ours: each has its own,
under one optimiser. code: it deals single agents' streams (feed-forward: single steps) into
minibatches; ours: whole streams with all their agents.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.learners import ppo
from jaxshare.learners.actor_critic import actor_critic
from jaxshare.learners.learner import Learner
from jaxshare.types import EnvSpec

RUN = ppo.RUN


@dataclass(frozen=True)
class Config(ppo.PPOConfig):
    """See `PPOConfig`."""


def make(config: Config, spec: EnvSpec) -> Learner:
    """Every agent alone, as a rule with one network for all."""
    return actor_critic("ippo", config, spec, ppo.prepare, ppo.loss)

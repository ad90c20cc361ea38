"""Independent A2C as EPyMARL runs it (Papoudakis et al. 2021, https://arxiv.org/abs/2006.07869), and the lecture's IA2C.

    L_i = -mean[sg(R_i - V_i(o_i)) log pi_i(a_i | h_i)] + mean[(R_i - V_i(o_i))^2] - c_e mean[H(pi_i(. | h_i))]

The equation of iac.py with other settings: whole episodes, one recurrent network for all agents that reads their
index, 5-step returns from a slowly moving target critic, an optimiser each for actors and critics, standardised rewards
(`modifiers=[standardise]`; without it the rewards are as they come). share_params=none is EPyMARL's ia2c_ns.

Departures. code: EPyMARL bootstraps from the last observation of an episode that truly ended, and its statistics of the
rewards include padding; ours: neither.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxshare.algos import _actor_critic as family
from jaxshare.algos._actor_critic import ActorCritic, a2c_loss, actor_critic, prepare_own
from jaxshare.types import EnvSpec

RUN = {"num_envs": 10}  # code: EPyMARL's batch_size_run


@dataclass(frozen=True)
class HParams(family.HParams):
    """Swept scalars. code: EPyMARL's ia2c.yaml."""

    lr: float = 5e-4
    critic_lr: float = 5e-4
    entropy_coef: float = 0.001
    value_coef: float = 1.0
    grad_clip: float = 10.0
    adam_eps: float = 1e-8


@dataclass(frozen=True)
class Config(family.ActorCriticConfig):
    """Static settings. code: EPyMARL's ia2c.yaml and default.yaml."""

    rollout: str = "episodes"
    n_step: int = 5
    hidden_dim: int = 128
    recurrent: bool = True
    body: bool = False
    init: str = "torch"
    share_params: str = "all"
    obs_agent_id: bool = True
    optimizers: str = "separate"
    clip: str = "all"
    over_agents: str = "mean"
    target_update: str = "soft"
    hparams: HParams = field(default_factory=HParams)


def make(config: Config, spec: EnvSpec) -> ActorCritic:
    """Agents share a network that knows who they are."""
    return actor_critic("ia2c", config, spec, prepare_own, a2c_loss)

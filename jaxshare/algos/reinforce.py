"""Independent REINFORCE: every agent follows the gradient of its own returns (Williams 1992).

    G_t,i = sum_k gamma^k r_t+k,i to the end of the episode
    L_i = -mean[(G_i - b_i) log pi_i(a_i | h_i)] - c_e mean[H(pi_i(. | h_i))]
          + c_v mean[(G_i - V_i(h_i))^2],     b_i = 0 (baseline=none), or V_i(h_i) (baseline=value)

Independent learning as in Albrecht, Christianos and Schäfer's lecture on their book: training and
execution are decentralised, every agent has its own networks, optimiser and clipped gradient, and
nothing is bootstrapped, so that it learns from whole episodes; one that the time limit cuts counts
with the rewards until then. Settings are EPyMARL's ia2c: the lecture gives none.

Departures. The gradient of the discounted return has gamma^t before step t; here it has not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax.numpy as jnp

from jaxshare.learners import actor_critic_losses as family
from jaxshare.learners import actor_critic_streams as streams
from jaxshare.learners.actor_critic import Critic, actor_critic
from jaxshare.learners.actor_critic_losses import Aims
from jaxshare.learners.actor_critic_settings import EPYMARL_RUN, EpymarlConfig, EpymarlHParams
from jaxshare.learners.learner import Learner
from jaxshare.learners.records import View
from jaxshare.settings.fields import default, nested, static
from jaxshare.types import Array, EnvSpec, Metrics, RefusedError

RUN = EPYMARL_RUN
ALONE = "paper: the MARL-book lecture, each agent alone"
# what returns to the end of an episode leave no choice in
ONLY = {"rollout": "episodes", "n_step": 0, "returns": "n_step", "target_update": "none"}
ONCE = {"epochs": 1, "minibatches": 1}


@dataclass(frozen=True)
class HParams(EpymarlHParams):
    """Swept scalars."""

    entropy_coef: float = default(0.0, "ours: plain REINFORCE has none")


@dataclass(frozen=True)
class Config(EpymarlConfig):
    """See `EpymarlConfig`."""

    baseline: str = static(
        "none",
        choices=("none", "value"),
        help="what is taken from returns: nothing, or the value that a critic of the agent learns",
        source="ours: plain REINFORCE has none",
    )
    n_step: int = default(0, "ours: returns go to the end of an episode")
    share_params: str = default("none", ALONE)
    obs_agent_id: bool = default(False, ALONE)
    clip: str = default("set", ALONE)
    over_agents: str = default("sum", ALONE)
    target_update: str = default("none", "ours: nothing is bootstrapped")
    hparams: HParams = nested(HParams)

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, only in (ONLY | ONCE).items():
            if getattr(self, key) != only:
                raise RefusedError(
                    f"algo.{key}={getattr(self, key)}: reinforce has {key}={only} only; its "
                    "returns go to the end of an episode, and serve one update."
                )
        if self.critic_recurrent and self.baseline == "none":
            raise RefusedError(
                "algo.critic_recurrent=true: reinforce has no critic without a baseline. Use "
                "algo.baseline=value."
            )


def make(config: Config, spec: EnvSpec) -> Learner:
    """Every agent learns alone."""
    critic = Critic() if config.baseline == "value" else None
    return actor_critic("reinforce", config, spec, prepare, loss, critic)


def prepare(view: View) -> Aims:
    """Returns to the end of the episode, less the baseline."""
    nothing = jnp.zeros_like(view.batch.reward)
    returns = family.returns_of(view, nothing)
    value = nothing
    if view.config.baseline == "value":
        value, _ = streams.values(view, view.params["critic"], after=False)
    advantage = returns - value
    if view.config.standardise_advantage:
        advantage = family.standardised(view, advantage)
    return Aims(returns=returns, advantage=advantage, log_prob=nothing, value=value)


def loss(view: View) -> tuple[Array, Metrics]:
    """L, the sum (or mean) over agents of L_i."""
    h = view.hparams
    aims: Aims = view.targets
    policy = streams.policies(view)
    mean = partial(family.agent_means, view)
    actor = mean(-aims.advantage * policy.log_prob(streams.taken(view.batch)))
    entropy = mean(policy.entropy())
    total = actor - h["entropy_coef"] * entropy
    losses = {"actor": actor, "entropy": entropy}

    # the baseline learns the same returns
    if view.config.baseline == "value":
        value, _ = streams.values(view, view.params["critic"], after=False)
        critic = mean(jnp.square(aims.returns - value))
        total = total + h["value_coef"] * critic
        losses["critic"] = critic
    return total, family.report(view, aims, **losses)

"""What the PPO learners, ippo and mappo, share.

Equations: jaxshare/ops/ppo.py; sources: algos/ippo.py.

Everything of an iteration is learned from `epochs` times, in `minibatches` parts of whole streams,
so that memory can be rebuilt from where it stood when the part began.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp

from jaxshare.learners import actor_critic_losses as family
from jaxshare.learners import actor_critic_streams as streams
from jaxshare.learners.actor_critic_losses import Aims
from jaxshare.learners.actor_critic_settings import ActorCriticConfig, HParams
from jaxshare.learners.records import View
from jaxshare.ops import ppo
from jaxshare.ops.masking import masked_mean
from jaxshare.settings.fields import default, flag, nested, swept
from jaxshare.types import Array, Metrics

RUN = {"num_envs": 128}  # code: JaxMARL's ippo_rnn_smax, mappo_homogenous_rnn_smax

JAXMARL = "code: JaxMARL's ippo_rnn_smax"


@dataclass(frozen=True)
class PPOHParams(HParams):
    """Swept scalars. code: JaxMARL's ippo_rnn_smax."""

    lr: float = default(4e-3, JAXMARL)
    critic_lr: float = default(4e-3, JAXMARL)
    value_coef: float = default(0.5, JAXMARL, help="weight of the critics' loss (R - V)^2 / 2")
    grad_clip: float = default(0.25, JAXMARL)
    adam_eps: float = default(1e-5, JAXMARL)
    lr_anneal: float = default(1.0, JAXMARL)
    clip_eps: float = swept(
        0.05,
        least=0,
        help="how far the ratio may be from 1, and with value_clip the value from the last one",
        source=JAXMARL,
    )


@dataclass(frozen=True)
class PPOConfig(ActorCriticConfig):
    """Static settings. code: JaxMARL's ippo_rnn_smax and the networks in its file."""

    segment_length: int = default(128, JAXMARL)
    returns: str = default("gae", JAXMARL)
    hidden_dim: int = default(128, JAXMARL)
    recurrent: bool = default(True, JAXMARL)
    critic_recurrent: bool = default(True, JAXMARL)
    body_gain: float = default(
        2.0,
        "code: JaxMARL; sqrt 2 in its feed-forward networks",
        help="gain of the layer after the GRU",
    )
    value_gain: float = default(1.0, JAXMARL)
    share_params: str = default("all", JAXMARL)
    over_agents: str = default("mean", JAXMARL)
    standardise_advantage: bool = default(
        True, JAXMARL, help="advantages with mean 0 and deviation 1 in each minibatch"
    )
    value_clip: bool = flag(
        True,
        help="the squared error is also of the clipped value; false: the plain one",
        source="code: JaxMARL; EPyMARL has the plain one",
    )
    mask_dead: bool = flag(
        False,
        help="steps of dead agents are left out",
        source="code: JaxMARL and EPyMARL; MAPPO's own leaves them out",
    )
    epochs: int = default(4, JAXMARL)
    minibatches: int = default(4, JAXMARL)
    hparams: PPOHParams = nested(PPOHParams)


def prepare(view: View) -> Aims:
    """Aims with what the policy says before the update; advantages as they are, not yet
    standardised.
    """
    aims = family.own_aims(view)
    log_prob = streams.policies(view).log_prob(streams.taken(view.batch))
    return aims.replace(log_prob=log_prob)


def loss(view: View) -> tuple[Array, Metrics]:
    """mean[policy_loss] + c_v mean[value_loss] - c_e mean[H] over the valid steps of all agents
    (or their sum).
    """
    config = view.config
    h = view.hparams
    segment = view.batch
    aims: Aims = view.targets
    mask = family.over_agents(segment.mask, segment)
    if config.mask_dead:
        mask = jnp.where(segment.alive, mask, 0.0)
    scale = view.spec.num_agents if config.over_agents == "sum" else 1

    # the actors
    policy = streams.policies(view)
    log_ratio = policy.log_prob(streams.taken(segment)) - aims.log_prob
    ratio = jnp.exp(log_ratio)
    advantage = aims.advantage
    if config.standardise_advantage:
        advantage = ppo.standardise(advantage, mask)
    actor = scale * masked_mean(ppo.policy_loss(ratio, advantage, h["clip_eps"]), mask)
    entropy = scale * masked_mean(policy.entropy(), mask)

    # the critics
    value, _ = streams.values(view, view.params["critic"], after=False)
    error = ppo.value_loss(value, aims.returns)
    if config.value_clip:
        error = ppo.clipped_value_loss(value, aims.value, aims.returns, h["clip_eps"])
    critic = scale * masked_mean(error, mask)

    outside = (jnp.abs(ratio - 1.0) > h["clip_eps"]).astype(jnp.float32)
    metrics = family.report(view, aims, actor=actor, critic=critic, entropy=entropy)
    metrics["policy/kl"] = masked_mean(ppo.approximate_kl(log_ratio), mask)
    metrics["policy/clipped"] = masked_mean(outside, mask)
    return actor + h["value_coef"] * critic - h["entropy_coef"] * entropy, metrics

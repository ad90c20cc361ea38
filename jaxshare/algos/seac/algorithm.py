"""Shared experience actor-critic, SEAC (Christianos et al. 2020, arXiv 2006.07169).

Christianos, Schaefer and Albrecht.

Every agent i learns from what every agent k did, weighted by how likely it would have done so
itself:

    rho_ik  = sg[ pi_i(a_k | o_k) / (pi_k(a_k | o_k) + 1e-7) ],   rho_ii = 1
    delta_ik = y_ik - V_i(o_k),     y_ik = n-step return of k, bootstrapped by V_i       (eqs. 4, 5)
    L_i = sum_k w_ik { -mean[rho_ik sg(delta_ik) log pi_i(a_k | o_k)]
                       + c_v mean[rho_ik delta_ik^2] }
          - c_e mean[H(pi_i(. | o_i))],     w_ii = 1, w_ik = lambda

lambda = 0 is `iac`; equal parameters give rho = 1, the loss of `snac` but for the others' entropy.
The ratio is of one step and is not clipped. Agents share within their type only (types see and do
things of different sizes).

Departures. code: y_ik is the owner's own return, bootstrapped by V_k: `bootstrap=owner`; and a step
that the time limit cuts is thrown away, ours: it bootstraps from its true successor. All agents
evaluate everything in one batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from flax import struct

from jaxshare.algos.seac import equations as sharing
from jaxshare.learners import actor_critic_losses as family
from jaxshare.learners import actor_critic_settings as family_settings
from jaxshare.learners import actor_critic_streams as streams
from jaxshare.learners.actor_critic import actor_critic
from jaxshare.learners.actor_critic_losses import Aims
from jaxshare.learners.learner import Learner
from jaxshare.learners.records import View
from jaxshare.models import distributions
from jaxshare.settings.fields import nested, static, swept
from jaxshare.types import Array, EnvSpec, Metrics, RefusedError

RUN = {"num_envs": 4}  # paper: Table 2
# of the ratios, as shares of all of them; the last bin is open
BINS = (0.0, 0.5, 0.8, 1.25, 1.5, 2.0)


@dataclass(frozen=True)
class HParams(family_settings.HParams):
    """Swept scalars; paper: Table 2."""

    sharing: float = swept(
        1.0,
        least=0,
        help="weight lambda of others' experience; 0 is IAC",
        source="paper: SEAC, flat from about 0.3 on (Fig. 10)",
    )


@dataclass(frozen=True)
class Config(family_settings.ActorCriticConfig):
    """See `ActorCriticConfig`."""

    bootstrap: str = static(
        "learner",
        choices=("learner", "owner"),
        help="whose value ends returns of others' steps: the learner's, or the steps' owner's",
        source="paper: SEAC; its code has owner",
    )
    rho_clip: float = static(
        0.0,
        least=0,
        note="0 stands for none.",
        help="largest importance ratio of others' steps; 0: none",
        source="paper: SEAC",
    )
    hparams: HParams = nested(HParams)

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, only in {
            "epochs": 1,
            "minibatches": 1,
            "returns": "n_step",
            "target_update": "none",
        }.items():
            if getattr(self, key) != only:
                raise RefusedError(f"algo.{key}={getattr(self, key)}: seac has {key}={only} only.")


class Shared(struct.PyTreeNode):
    """Aims of all learners; S parameter sets."""

    returns: Array  # [T, B, N, S] y of agent k's steps for learner s
    own: Aims  # what agents have from themselves


def make(config: Config, spec: EnvSpec) -> Learner:
    """Every agent learns from every agent of its type."""
    return actor_critic("seac", config, spec, prepare, loss)


def prepare(view: View) -> Shared:
    """Returns of every agent's steps, for every learner."""
    critic = view.learner.networks["critic"]
    stream = streams.critic_stream(view, after=True)
    read = critic.every(view.params["critic"], view.batch.carry["critic"], stream)
    value = read.y[..., 0]
    after = read.after[..., 0]

    # of every agent's own steps with its own critic
    sets = critic.param_sets
    own_value = sharing.own_sets(value, sets)
    own_returns = family.returns_of(view, sharing.own_sets(after, sets))
    own_aims = Aims(
        returns=own_returns,
        advantage=own_returns - own_value,
        log_prob=jnp.zeros_like(own_value),
        value=own_value,
    )

    # of everybody's steps with every critic
    if view.config.bootstrap == "owner":
        returns = jnp.broadcast_to(own_returns[None], value.shape)
    else:
        returns = jax.vmap(partial(family.returns_of, view))(after)
    return Shared(returns=jnp.moveaxis(returns, 0, -1), own=own_aims)


def loss(view: View) -> tuple[Array, Metrics]:
    """The N x N loss, summed over learners."""
    h = view.hparams
    segment = view.batch
    aims: Shared = view.targets
    actor_net = view.learner.networks["actor"]
    sets = actor_net.param_sets

    # what every parameter set says about every agent's steps
    carry = segment.carry
    read = actor_net.every(view.params["actor"], carry["actor"], streams.actor_stream(view))
    count = read.y.shape[0]
    avail = jnp.broadcast_to(segment.avail[None], (count, *segment.avail.shape))
    policy = distributions.policy(read.y, avail, view.spec)
    drawn = streams.taken(segment)
    log_prob = policy.log_prob(jnp.broadcast_to(drawn[None], (count, *drawn.shape)))
    stream = streams.critic_stream(view, after=False)
    critic_net = view.learner.networks["critic"]
    value = critic_net.every(view.params["critic"], carry["critic"], stream).y[..., 0]

    # losses of each learner on each agent's steps, [S, N]
    ratio = sharing.ratios(log_prob, sets, view.config.rho_clip)
    delta = jnp.moveaxis(aims.returns, -1, 0) - value
    mean = partial(_means, mask=segment.mask)
    actor = mean(sharing.policy_loss(ratio, delta, log_prob))
    critic = mean(ratio * jnp.square(delta))
    entropy = mean(policy.entropy())

    # own steps count 1, others' `sharing`
    groups = view.spec.groups
    weight = sharing.weights(sets, groups, h["sharing"])
    own_weight = sharing.weights(sets, groups, jnp.float32(0.0))
    total = (weight * (actor + h["value_coef"] * critic)).sum()
    total = total - h["entropy_coef"] * (own_weight * entropy).sum()
    scale = 1.0
    if view.config.over_agents == "mean":
        total = total / view.spec.num_agents
        scale = 1.0 / view.spec.num_agents
    losses = {"actor": actor, "critic": critic, "entropy": entropy}
    own_losses = {name: (own_weight * each).sum() * scale for name, each in losses.items()}
    metrics = family.report(view, aims.own, **own_losses)
    return total, {**metrics, **_histogram(ratio, weight - own_weight, segment.mask)}


def _means(x: Array, mask: Array) -> Array:
    """Of the valid steps: [S, T, B, N] -> [S, N]."""
    total = jnp.where(mask[None, ..., None] > 0, x, 0.0).sum((1, 2))
    return total / jnp.maximum(mask.sum(), 1.0)


def _histogram(ratio: Array, shared: Array, mask: Array) -> Metrics:
    """Where the importance ratios of others' steps lie, as shares of all of them.

    Their mean and the largest as well.
    """
    used = (shared > 0)[:, None, None, :] & (mask > 0)[None, :, :, None]
    count = jnp.maximum(used.sum(), 1)
    metrics: Metrics = {}
    for low, top in zip(BINS, (*BINS[1:], jnp.inf), strict=True):
        inside = used & (ratio >= low) & (ratio < top)
        metrics[f"ratio/from_{round(100 * low)}_percent"] = inside.sum() / count
    others = jnp.where(used, ratio, 0.0)
    return {**metrics, "ratio/mean": others.sum() / count, "ratio/max": others.max()}

"""Shared experience actor-critic, SEAC (Christianos, Schaefer and Albrecht 2020, https://arxiv.org/abs/2006.07169).

Every agent i learns from what every agent k did, weighted by how likely it would have done so itself:

    rho_ik  = sg[ pi_i(a_k | o_k) / (pi_k(a_k | o_k) + 1e-7) ],   rho_ii = 1
    delta_ik = y_ik - V_i(o_k),     y_ik = n-step return of k, bootstrapped by V_i                      (eqs. 4, 5)
    L_i = sum_k w_ik { -mean[rho_ik sg(delta_ik) log pi_i(a_k | o_k)] + c_v mean[rho_ik delta_ik^2] }
          - c_e mean[H(pi_i(. | o_i))],     w_ii = 1, w_ik = lambda

lambda = 0 is `iac`; equal parameters give rho = 1, the loss of `snac` but for the others' entropy. The ratio is of one
step and is not clipped. Agents share within their type only (types see and do things of different sizes).

Departures. code: y_ik is the owner's own return, bootstrapped by V_k: `bootstrap=owner`; and a step that the time limit
cuts is thrown away, ours: it bootstraps from its true successor. All agents evaluate everything in one batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxshare.algos import _actor_critic as family
from jaxshare.algos._actor_critic import ActorCritic, actor_critic
from jaxshare.models import distributions
from jaxshare.ops import shared_experience as sharing
from jaxshare.settings.fields import nested, static, swept
from jaxshare.types import Array, Context, EnvSpec, LearnerState, Metrics, RefusedError, Segment

RUN = {"num_envs": 4}  # paper: Table 2
BINS = (
    0.0,
    0.5,
    0.8,
    1.25,
    1.5,
    2.0,
)  # of the ratios, as shares of all of them; the last bin is open


@dataclass(frozen=True)
class HParams(family.HParams):
    """Swept scalars; paper: Table 2."""

    sharing: float = swept(
        1.0,
        least=0,
        help="weight lambda of others' experience; 0 is IAC",
        source="paper: SEAC, flat from about 0.3 on (Fig. 10)",
    )


@dataclass(frozen=True)
class Config(family.ActorCriticConfig):
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


@struct.dataclass
class Shared:
    """Targets of all learners; S parameter sets."""

    returns: Array  # [T, B, N, S] y of agent k's steps for learner s
    own: family.Targets  # what agents have from themselves


def make(config: Config, spec: EnvSpec) -> ActorCritic:
    """Every agent learns from every agent of its type."""
    return actor_critic("seac", config, spec, prepare, loss)


def prepare(
    parts: ActorCritic, learner: LearnerState, segment: Segment, ctx: Context, key: Array
) -> Shared:
    """Returns of every agent's steps, for every learner."""
    stream = family.critic_stream(parts, segment, after=True)
    read = parts.critic.every(learner.params["critic"], segment.carry.critic, stream)
    value, after = read.y[..., 0], read.after[..., 0]  # type: ignore[index]
    sets = parts.critic.groups
    own_value, own_after = sharing.own_sets(value, sets), sharing.own_sets(after, sets)
    own_returns = family.returns_of(parts, segment, own_after, ctx)
    own = family.Targets(
        returns=own_returns,
        advantage=own_returns - own_value,
        log_prob=jnp.zeros_like(own_value),
        value=own_value,
    )
    if parts.config.bootstrap == "owner":  # type: ignore[attr-defined]
        returns = jnp.broadcast_to(own_returns[None], value.shape)
    else:
        returns = jax.vmap(lambda next_value: family.returns_of(parts, segment, next_value, ctx))(
            after
        )
    return Shared(returns=jnp.moveaxis(returns, 0, -1), own=own)


def loss(
    parts: ActorCritic,
    params: dict[str, Any],
    segment: Segment,
    targets: Shared,
    ctx: Context,
    key: Array,
) -> tuple[Array, Metrics]:
    """The N x N loss, summed over learners."""
    h, sets = ctx.hparams, parts.actor.groups
    read = parts.actor.every(
        params["actor"], segment.carry.actor, family.actor_stream(parts, segment)
    )
    avail = jnp.broadcast_to(segment.avail[None], (read.y.shape[0], *segment.avail.shape))
    policy = distributions.policy(read.y, avail, parts.spec)
    drawn = family.taken(segment)
    log_prob = policy.log_prob(jnp.broadcast_to(drawn[None], (read.y.shape[0], *drawn.shape)))
    stream = family.critic_stream(parts, segment, after=False)
    value = parts.critic.every(params["critic"], segment.carry.critic, stream).y[..., 0]
    ratio = sharing.ratios(log_prob, sets, parts.config.rho_clip)  # type: ignore[attr-defined]
    delta = jnp.moveaxis(targets.returns, -1, 0) - value
    weight = sharing.weights(sets, parts.spec.groups, h["sharing"])
    mean = partial(_means, mask=segment.mask)  # [S, T, B, N] -> [S, N]
    actor, critic = (
        mean(sharing.policy_loss(ratio, delta, log_prob)),
        mean(ratio * jnp.square(delta)),
    )
    entropy = mean(policy.entropy())
    own = sharing.weights(sets, parts.spec.groups, jnp.float32(0.0))
    total = (weight * (actor + h["value_coef"] * critic)).sum() - h["entropy_coef"] * (
        own * entropy
    ).sum()
    if parts.config.over_agents == "mean":
        total = total / parts.spec.num_agents
    found = {
        name: (own * x).sum()
        for name, x in (("actor", actor), ("critic", critic), ("entropy", entropy))
    }
    scale = 1.0 if parts.config.over_agents == "sum" else 1.0 / parts.spec.num_agents
    metrics = family.report(
        parts, segment, targets.own, **{name: x * scale for name, x in found.items()}
    )
    return total, {**metrics, **_histogram(ratio, weight - own, segment.mask)}


def _means(x: Array, mask: Array) -> Array:
    return jnp.where(mask[None, ..., None] > 0, x, 0.0).sum((1, 2)) / jnp.maximum(mask.sum(), 1.0)


def _histogram(ratio: Array, shared: Array, mask: Array) -> Metrics:
    """Where the importance ratios of others' steps lie, as shares of all of them, their mean and the largest."""
    used = (shared > 0)[:, None, None, :] & (mask > 0)[None, :, :, None]
    count = jnp.maximum(used.sum(), 1)
    tops = (*BINS[1:], jnp.inf)
    found = {
        f"ratio/from_{round(100 * low)}_percent": (used & (ratio >= low) & (ratio < top)).sum()
        / count
        for low, top in zip(BINS, tops, strict=True)
    }
    inside = jnp.where(used, ratio, 0.0)
    return {**found, "ratio/mean": inside.sum() / count, "ratio/max": inside.max()}

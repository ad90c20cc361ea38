"""Behaviour cloning: what SIT's baselines start from (Tian et al. 2023, arXiv 2211.15612).

    L(pi_i) = - E log pi_i(a_i | tau_i),   a mean over valid steps and agents               (eq. 11)

Of continuous actions pi_i = N(tanh mu_i(tau_i), s^2) with a fixed s, where the box is [-1, 1]: L is
the squared error of tanh mu over 2 s^2, and a constant. Evaluations play the likeliest action, or
the mean; with eval.policy=stochastic they draw from pi, which is the behaviour itself.

Departures. code: OG-MARL's mean is over padding as well, its policy may give weight to actions that
are not available, and its evaluations draw; ours: none of it. paper: silent about continuous
policies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax.numpy as jnp

from jaxshare.learners import offline as family
from jaxshare.learners.learner import Learner
from jaxshare.learners.offline import OfflineConfig, OfflineHParams, offline_learner
from jaxshare.learners.packed import packable
from jaxshare.learners.records import Step, View
from jaxshare.models import inputs
from jaxshare.ops.masking import masked_argmax, masked_mean
from jaxshare.settings.fields import nested
from jaxshare.settings.shared import PolicyWidth
from jaxshare.types import Array, Discrete, EnvSpec, Metrics

RUN = {
    "total_updates": 15_000,
    "eval": {"every": 1_000},
}  # paper: Table 11; the evaluations are ours


@dataclass(frozen=True)
class HParams(PolicyWidth, OfflineHParams):
    """Swept scalars."""


@dataclass(frozen=True)
class Config(OfflineConfig):
    """Settings of the family."""

    hparams: HParams = nested(HParams)


def make(config: Config, spec: EnvSpec) -> Learner:
    """One policy network. Raises RefusedError for continuous actions without bounds."""
    actor = family.policy_network("bc", config, spec)
    steps = {"actor": Step(loss, {"actor": ("actor",)})}
    learner = offline_learner("bc", config, spec, {"actor": actor}, steps)
    return replace(learner, inspect=(shown,))


@packable
def loss(view: View) -> tuple[Array, Metrics]:
    """Eq. 11."""
    batch = view.batch
    value, y = family.cloning_loss(view, "actor")
    mask = family.per_agent(view, batch.mask)
    if isinstance(view.spec.action, Discrete):
        right = (masked_argmax(y, batch.avail[:-1]) == batch.action).astype(y.dtype)
        return value, {"loss/actor": value, "policy/accuracy": masked_mean(right, mask)}
    mean = jnp.tanh(y)
    action = inputs.encode(batch.action, view.spec)
    off = jnp.abs(mean - action).mean(-1)
    return value, {"loss/actor": value, "policy/error": masked_mean(off, mask)}


def shown(view: View) -> dict[str, Array]:
    """log pi_i(a_i | tau_i) of the actions taken, for people to look at, [T, B, N]."""
    y = family.unrolled(view, "actor", view.params)[:-1]
    return {"log_prob": family.log_probability(view, y)}

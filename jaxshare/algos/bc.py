"""Behaviour cloning: what SIT's baselines start from (Tian et al. 2023, https://arxiv.org/abs/2211.15612).

    L(pi_i) = - E log pi_i(a_i | tau_i),   a mean over valid steps and agents                      (eq. 11)

Evaluations play the likeliest action; with eval.policy=stochastic they draw from pi, which is the behaviour itself.

Departures. code: OG-MARL's mean is over padding as well, its policy may give weight to actions that are not available,
and its evaluations draw; ours: none of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.algos import _offline as family
from jaxshare.algos._offline import OfflineConfig, OfflineLearner, Params, Step
from jaxshare.ops.masking import masked_mean, take_last
from jaxshare.types import Array, Context, EnvSpec, Episode, LearnerState, Metrics

RUN = {"total_updates": 15_000, "eval": {"every": 1_000}}  # paper: Table 11; the evaluations are ours


@dataclass(frozen=True)
class Config(OfflineConfig):
    """Settings of the family."""


def make(config: Config, spec: EnvSpec) -> OfflineLearner:
    """One policy network. Raises RefusedError for continuous actions."""
    return OfflineLearner(
        "bc",
        config,
        spec,
        actor=family.agent_network("bc", config, spec),
        steps={"actor": Step(loss, ("actor",))},
        acting=("actor",),
        choose=family.likeliest,
        inspect=(shown,),
    )


def loss(parts: OfflineLearner, params: Params, target: Params, batch: Episode, ctx: Context) -> tuple[Array, Metrics]:
    """Eq. 11."""
    found, log_pi = family.cloning_loss(parts, "actor", params, batch)
    right = (log_pi.argmax(-1) == batch.action).astype(log_pi.dtype)
    return found, {"loss/actor": found, "policy/accuracy": masked_mean(right, family.per_agent(parts, batch.mask))}


def shown(parts: OfflineLearner, learner: LearnerState, batch: Episode, ctx: Context) -> dict[str, Array]:
    """log pi_i(a_i | tau_i) of the actions taken, for people to look at, [T, B, N]."""
    return {"log_prob": take_last(family.cloning_loss(parts, "actor", learner.params, batch)[1], batch.action)}

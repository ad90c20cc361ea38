"""MABCQ: batch-constrained Q-learning of a team, as SIT's baseline (Tian et al. 2023, https://arxiv.org/abs/2211.15612).

    mu_i by behaviour cloning;   Q(tau, a) = sum_i w_i(s) Q_i(tau_i, a_i) + b(s),  w_i >= 0
    A_i(tau) = {a available: mu_i(a | tau) / max mu_i > zeta}, the likeliest action always among them
    y = R + discount Q'(tau', a*),   a*_i = argmax of Q_i over A_i(tau_i')
    L = sum m (y - Q)^2 / sum m                                                                    (eq. 12)

With w_i >= 0 the joint maximum is the agents' own. They act by argmax of Q_i over A_i as well (Fujimoto et al. 2019).

Departures. paper: mu is trained first, for a number of updates that it does not give; code: OG-MARL trains both at the
same time, `behaviour_updates=0`. paper: as printed the maximum is of Q'; ours: the online networks choose, as in the
other baselines, `double_q=false` is as printed. paper: w is a linear mixer after ICQ, whose code divides by the sum of
the weights and leaves out b; ours: divided, with b. code: OG-MARL has QMIX's mixer, zeta = 0.4 and >=. paper:
continuous actions have a perturbation model xi; ours: discrete ones only.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax

from jaxshare.algos import _offline as family
from jaxshare.algos._offline import SIT, OfflineHParams, OfflineLearner, Params, Step, TeamConfig
from jaxshare.models.offline import LinearMixer, linear_mixer
from jaxshare.ops import offline
from jaxshare.ops.masking import masked_argmax, masked_mean, masked_mean_square, take_last
from jaxshare.settings.fields import COUNT, flag, nested, static, swept
from jaxshare.types import Array, Context, EnvSpec, Episode, Metrics

RUN = {
    "total_updates": 15_000,
    "eval": {"every": 1_000},
}  # paper: Table 11; the evaluations are ours


@dataclass(frozen=True)
class HParams(OfflineHParams):
    """Swept scalars."""

    zeta: float = swept(
        0.3,
        least=0,
        below=1,
        help="least share of the likeliest action's probability that an action needs",
        source=SIT,
    )


@dataclass(frozen=True)
class Config(TeamConfig):
    """Settings of the family, and how the behaviour is learned."""

    double_q: bool = flag(
        True,
        help="the online networks choose the next actions",
        source="ours; paper: SIT has false",
    )
    behaviour_updates: int = static(
        0,
        least=0,
        most=COUNT,
        help="updates of the behaviour mu alone, which then stays; 0: together throughout",
        source="code: OG-MARL",
    )
    hparams: HParams = nested(HParams)


def make(config: Config, spec: EnvSpec) -> OfflineLearner:
    """Utilities, behaviour policies and a linear mixer. Raises RefusedError for continuous actions."""
    network, first = family.agent_network("mabcq", config, spec), config.behaviour_updates
    mixer = linear_mixer(spec.num_agents, spec.state_dim, config.embed_dim, bias=True)
    early, late = (lambda ctx: ctx.clock.updates < first), (lambda ctx: ctx.clock.updates >= first)
    return OfflineLearner(
        "mabcq",
        config,
        spec,
        agent=network,
        behaviour=network,
        modules={"mixer": mixer},
        steps={
            "behaviour": Step(behaviour_loss, ("behaviour",), due=early if first else None),
            "joint": Step(loss, ("agent", "mixer"), due=late if first else None),
        },
        slow=("agent", "mixer"),
        acting=("agent", "behaviour"),
        choose=choose,
        inspect=(family.utilities,),
    )


def behaviour_loss(
    parts: OfflineLearner, params: Params, target: Params, batch: Episode, ctx: Context
) -> tuple[Array, Metrics]:
    """Eq. 11 of mu."""
    found, _ = family.cloning_loss(parts, "behaviour", params, batch)
    return found, {"loss/behaviour": found}


def loss(
    parts: OfflineLearner, params: Params, target: Params, batch: Episode, ctx: Context
) -> tuple[Array, Metrics]:
    """Eq. 12."""
    mixer: LinearMixer = parts.modules["mixer"]
    q = family.unrolled(parts, "agent", params, batch)
    slow_q = jax.lax.stop_gradient(family.unrolled(parts, "agent", target, batch))
    mu = jax.lax.stop_gradient(family.unrolled(parts, "behaviour", params, batch))
    allowed = familiar(mu, batch.avail, ctx)
    chooser = jax.lax.stop_gradient(q) if parts.config.double_q else slow_q
    next_q = take_last(slow_q[1:], masked_argmax(chooser[1:], allowed[1:]))
    y = family.one_step_target(
        parts, mixer.apply(target["mixer"], next_q, batch.state[1:]), batch, ctx
    )
    q_taken = take_last(q[:-1], batch.action)
    q_tot = mixer.apply(params["mixer"], q_taken, batch.state[:-1])
    share = allowed[:-1].sum(-1) / batch.avail[:-1].sum(-1)
    error = masked_mean_square(y - q_tot, batch.mask)
    return error, {
        "loss/td": error,
        **family.td_metrics(parts, y, q_tot, q_taken, batch),
        "behaviour/allowed": masked_mean(share, family.per_agent(parts, batch.mask)),
    }


def familiar(mu: Array, avail: Array, ctx: Context) -> Array:
    """A_i of logits mu, [..., A] bool."""
    return offline.familiar(offline.log_policy(mu, avail), avail, ctx.hparams["zeta"])


def choose(said: dict[str, Array], avail: Array, ctx: Context, key: Array, explore: bool) -> Array:
    """argmax of Q_i over A_i, also where others would explore: [B, N]."""
    return masked_argmax(said["agent"], familiar(said["behaviour"], avail, ctx))

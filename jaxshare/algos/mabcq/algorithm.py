"""MABCQ: batch-constrained Q-learning of a team, as SIT's baseline (Tian et al. 2023).

https://arxiv.org/abs/2211.15612.

    mu_i by behaviour cloning;   Q(tau, a) = sum_i w_i(s) Q_i(tau_i, a_i) + b(s),  w_i >= 0
    A_i(tau) = {a available: mu_i(a | tau) / max mu_i > zeta}, and always the likeliest action
    y = R + discount Q'(tau', a*),   a*_i = argmax of Q_i over A_i(tau_i')
    L = sum m (y - Q)^2 / sum m                                                             (eq. 12)

With w_i >= 0 the joint maximum is the agents' own. They act by argmax of Q_i over A_i as well
(Fujimoto et al. 2019).

Departures. paper: mu is trained first, for a number of updates that it does not give; code: OG-MARL
trains both at the same time, `behaviour_updates=0`. paper: as printed the maximum is of Q'; ours:
the online networks choose, as in the other baselines, `double_q=false` is as printed. paper: w is a
linear mixer after ICQ, whose code divides by the sum of the weights and leaves out b; ours:
divided, with b. code: OG-MARL has QMIX's mixer, zeta = 0.4 and >=. Continuous actions, which have a
perturbation model xi: continuous.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax

from jaxshare.algos.mabcq import continuous
from jaxshare.learners import action_utilities as utilities
from jaxshare.learners import offline as family
from jaxshare.learners.learner import Learner
from jaxshare.learners.offline import SIT, OfflineHParams, TeamConfig, offline_learner
from jaxshare.learners.packed import packable
from jaxshare.learners.records import Acting, Net, Step, View
from jaxshare.models import inputs
from jaxshare.models.offline import LinearMixer, linear_mixer
from jaxshare.ops import offline
from jaxshare.ops.masking import masked_argmax, masked_mean, masked_mean_square, take_last
from jaxshare.settings.fields import COUNT, UNITS, flag, nested, static, swept
from jaxshare.settings.shared import PolicyWidth
from jaxshare.types import Array, Box, Clock, EnvSpec, HParams, Metrics

Due = Callable[[Clock], Array] | None

# paper: Table 11; the evaluations are ours
RUN = {"total_updates": 15_000, "eval": {"every": 1_000}}


@dataclass(frozen=True)
class MabcqHParams(PolicyWidth, OfflineHParams):
    """Swept scalars."""

    zeta: float = swept(
        0.3,
        least=0,
        below=1,
        help="least share of the likeliest action's probability that an action needs",
        source=SIT,
    )
    perturbation: float = swept(
        0.05,
        least=0,
        most=2,
        help="largest change Phi of a drawn continuous action, where the box is [-1, 1]",
        source="code: BCQ (Fujimoto et al. 2019); paper: SIT names the model only",
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
    action_samples: int = static(
        10,
        least=1,
        most=UNITS,
        help="continuous actions drawn from the behaviour, of which the best is taken",
        source="code: BCQ, for learning; paper: SIT has m",
    )
    hparams: MabcqHParams = nested(MabcqHParams)


def make(config: Config, spec: EnvSpec) -> Learner:
    """Utilities, behaviour policies and a linear mixer, and a perturbation of continuous actions.

    Raises RefusedError for continuous actions without bounds.
    """
    network = family.policy_network("mabcq", config, spec)
    mixer = linear_mixer(spec.num_agents, spec.state_dim, config.embed_dim, bias=True)
    networks: dict[str, Net] = {"agent": network, "behaviour": network, "mixer": mixer}
    early, late = _dues(config.behaviour_updates)
    cloning = Step(behaviour_loss, {"behaviour": ("behaviour",)}, due=early)
    if isinstance(spec.action, Box):
        return _continuous_learner(config, spec, networks, (cloning, late))

    # first what the data do, then what is best of it
    steps = {"behaviour": cloning, "joint": Step(loss, {"joint": ("agent", "mixer")}, due=late)}
    learner = offline_learner("mabcq", config, spec, networks, steps)
    return replace(
        learner,
        main="joint",
        policy=family.acting_by(choose, "agent", "behaviour"),
        targets=family.slow(config, "agent", "mixer"),
        inspect=(family.taken_utilities,),
    )


def _continuous_learner(
    config: Config, spec: EnvSpec, networks: dict[str, Net], first: tuple[Step, Due]
) -> Learner:
    """Utilities that read actions, and what changes those that the behaviour draws.

    networks: behaviour policies and mixer are taken from them; first: the step of the behaviour,
    and when all else learns.
    """
    cloning, late = first
    networks = {
        **networks,
        **utilities.networks("mabcq", config, spec),
        "perturbation": utilities.judge(config, spec, outputs=inputs.action_dim(spec)),
    }

    # the perturbation learns from the new utilities
    judges = ("agent", "utility", "mixer")
    drift = {"perturbation": ("perturbation",)}
    steps = {
        "behaviour": cloning,
        "joint": Step(continuous.loss, {"joint": judges}, due=late),
        "perturbation": Step(continuous.perturbation_loss, drift, due=late),
    }
    learner = offline_learner("mabcq", config, spec, networks, steps)
    return replace(
        learner,
        main="joint",
        policy=continuous.POLICY,
        targets=family.slow(config, *judges, "perturbation"),
        inspect=(utilities.taken_utilities,),
    )


def _dues(first: int) -> tuple[Due, Due]:
    """When the behaviour learns, and when all else does: together, or one after the other."""
    if not first:
        return None, None

    # with a number of first updates the behaviour is learned alone, and stays
    def early(clock: Clock) -> Array:
        return clock.updates < first

    def late(clock: Clock) -> Array:
        return clock.updates >= first

    return early, late


@packable
def behaviour_loss(view: View) -> tuple[Array, Metrics]:
    """Eq. 11 of mu."""
    value, _ = family.cloning_loss(view, "behaviour")
    return value, {"loss/behaviour": value}


@packable
def loss(view: View) -> tuple[Array, Metrics]:
    """Eq. 12."""
    batch = view.batch
    mixer: LinearMixer = view.learner.mixer
    q = family.unrolled(view, "agent", view.params)
    slow_q = jax.lax.stop_gradient(family.unrolled(view, "agent", view.target_params))
    mu = jax.lax.stop_gradient(family.unrolled(view, "behaviour", view.params))

    # the best next actions among those that the data's agents would take
    allowed = familiar(mu, batch.avail, view.hparams)
    chooser = jax.lax.stop_gradient(q) if view.config.double_q else slow_q
    next_q = take_last(slow_q[1:], masked_argmax(chooser[1:], allowed[1:]))
    next_value = mixer.apply(view.target_params["mixer"], next_q, batch.state[1:])
    y = family.one_step_target(view, next_value)

    q_taken = take_last(q[:-1], batch.action)
    q_tot = mixer.apply(view.params["mixer"], q_taken, batch.state[:-1])
    share = allowed[:-1].sum(-1) / batch.avail[:-1].sum(-1)
    error = masked_mean_square(y - q_tot, batch.mask)
    metrics = family.td_metrics(view, y, q_tot, q_taken)
    mean_share = masked_mean(share, family.per_agent(view, batch.mask))
    return error, {"loss/td": error, **metrics, "behaviour/allowed": mean_share}


def familiar(mu: Array, avail: Array, hparams: HParams) -> Array:
    """A_i of logits mu, [..., A] bool."""
    return offline.familiar(offline.log_policy(mu, avail), avail, hparams["zeta"])


def choose(acting: Acting, says: dict[str, Array]) -> Array:
    """argmax of Q_i over A_i, also where others would explore: [B, N]."""
    allowed = familiar(says["behaviour"], acting.timestep.avail, acting.ctx.hparams)
    return masked_argmax(says["agent"], allowed)

"""ICQ-MA: implicit constraint Q-learning of a team (Yang et al. 2021, arXiv 2106.03400).

A critic of the data's own actions, and a policy that clones those of them that the critic finds
good:

    Q_tot(s, a) = sum_i k_i(s) Q_i(s, o_i, a_i) [+ b(s)],   k_i >= 0,  sum_i k_i = 1
    G_t = TD(lambda) over R and  F_c(Q'_tot(s_t+1, a_t+1)) Q'_tot(s_t+1, a_t+1)
    L(Q) = mean (G - Q_tot)^2
    L(pi) = - mean k_i(s) F(A_i) log pi_i(a_i | tau_i),   A_i = Q_i(a_i) - sum_a pi_i(a) Q_i(a)

F(x) = n e^(x / beta) / sum e^(x / beta) over the n valid steps of the batch, apart for each agent;
F_c over those that are followed, with critic_beta. k, F and A are constants to the policy. First
the critic steps, then the policy with the new critic (code). That is `form=code`; with `form=paper`
it is eq. 14 of SIT (Tian et al. 2023, https://arxiv.org/abs/2211.15612): F(k_i Q_i) in place of k_i
F(A_i), one beta for both, and b(s). Of continuous actions pi_i = N(tanh mu_i(tau_i), s^2), the
critic reads the action, and sum_a pi_i(a) Q_i(a) is a mean over `filter_samples` draws, as in
sit.py.

The code trains the policy that would explore, which nobody plays: (1 - eps) pi + eps / A over all
actions, of which the available ones are left and normalised, in A_i and in log pi_i, eps from 0.5
to 0.05 in 5000 updates (`mixture=true`). With eps = 0.5 the gradient of the policy is half another
one. ours, mixture=false: pi itself.

Departures. paper: eq. 14 prints a sum of squared one-step errors, each under (gamma lambda)^t; code
and ours: TD(lambda). code: critic_beta = 1000, which is next to no weight; with the paper's 0.1
targets grow up to n-fold. code: sums are over the episodes at the same time, padding included:
`softmax_axis=batch`; ours: over all valid steps. code: the critic makes one step for each time
index, and targets follow every 600 of those; ours: one of all, and `target_update_period`. code:
the norm is clipped at 20; ours: SIT's Table 11. code: behind a time limit it reads the action in
the next slot; ours: there is none, so that step bootstraps from sum_a pi_i(a) Q'_i(a). code:
OG-MARL's has a gradient from the policy into k. ours: continuous actions; the code has discrete
ones only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxshare.algos.icq import values
from jaxshare.learners import offline as family
from jaxshare.learners.learner import Learner
from jaxshare.learners.offline import SIT, OfflineHParams, TeamConfig, offline_learner
from jaxshare.learners.packed import packable
from jaxshare.learners.records import Step, View
from jaxshare.models import inputs
from jaxshare.models.agents import AgentNetwork, FeedForwardQ, team_network
from jaxshare.models.base import sharing_sets
from jaxshare.models.offline import DuelingQ, linear_mixer
from jaxshare.ops import offline
from jaxshare.ops.masking import masked_mean, masked_mean_square, take_last
from jaxshare.settings.fields import UNITS, default, flag, nested, size, static, swept
from jaxshare.settings.shared import CriticRate, EpsilonRange, Lambda, PolicyWidth
from jaxshare.types import Array, Discrete, EnvSpec, Metrics, RefusedError

RUN = {
    "total_updates": 15_000,
    "eval": {"every": 1_000},
}  # paper: Table 11; the evaluations are ours


@dataclass(frozen=True)
class HParams(EpsilonRange, PolicyWidth, Lambda, CriticRate, OfflineHParams):
    """Swept scalars."""

    critic_lr: float = default(1e-4, "paper: SIT Table 11; code: ICQ")
    td_lambda: float = default(
        0.8,
        "paper: SIT Table 11; code: ICQ has 0.75, whatever its settings say",
    )
    beta: float = swept(
        0.1,
        above=0,
        help="temperature of the policy's weights, and of the critic's with form=paper",
        source=SIT,
    )
    critic_beta: float = swept(
        1000.0,
        above=0,
        help="temperature of the critic's weights; only with form=code",
        source="code: ICQ",
    )
    epsilon_start: float = default(
        0.5,
        "code: ICQ",
        help="share of random actions in the mixture at the start; only with mixture=true",
    )
    epsilon_end: float = default(
        0.05,
        "code: ICQ",
        help="share of random actions in the mixture at the end; only with mixture=true",
    )
    epsilon_anneal_updates: float = swept(
        5_000.0,
        least=0,
        help="updates until epsilon_end is reached; only with mixture=true",
        source="code: ICQ, 500,000 at 100 an update",
    )


@dataclass(frozen=True)
class Config(TeamConfig):
    """Settings of the family, and the critic's."""

    form: str = static(
        "code",
        choices=("code", "paper"),
        help="whose loss of the critic: of ICQ's code, or of SIT's eq. 14",
        source="code: ICQ",
    )
    filter: str = static(
        "softmax",
        choices=offline.FILTERS,
        help="weights F of the policy; crr is min(e^(x / beta), 20), binary is 1[x > 0]",
        source="code: ICQ; binary: Wang et al. 2020",
    )
    softmax_axis: str = static(
        "batch_time",
        choices=offline.AXES,
        help="what the softmax is over: all valid steps of the batch, or those of each time index",
        source="ours: batch_time; code: ICQ has batch",
    )
    critic_dim: int = size(
        256,
        help="units of the critic's layers",
        source="code: ICQ; paper: SIT Table 11 has 32",
    )
    mixture: bool = flag(
        False,
        help="what is trained is (1 - epsilon) pi + epsilon / A, in the place of pi",
        source="ours: off; code: ICQ has true",
    )
    filter_samples: int = static(
        4,
        least=1,
        most=UNITS,
        help="actions drawn for the mean value of a continuous policy",
        source="ours: as of sit",
    )
    hparams: HParams = nested(HParams)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form == "paper" and self.filter != "softmax":
            raise RefusedError(
                f"algo.filter={self.filter} is of advantages, and algo.form=paper has none. Use "
                "algo.form=code."
            )


def make(config: Config, spec: EnvSpec) -> Learner:
    """Policies, a critic and a linear mixer.

    Raises RefusedError for continuous actions without bounds.
    """
    if config.mixture and not isinstance(spec.action, Discrete):
        raise RefusedError(
            f"algo.mixture=true is of discrete actions, and env={spec.name} has continuous ones. "
            "Use algo.mixture=false."
        )
    has_bias = config.form == "paper"
    mixer = linear_mixer(spec.num_agents, spec.state_dim, config.embed_dim, bias=has_bias)
    actor = family.policy_network("icq", config, spec)
    critic = _critic(config, spec)
    networks: dict[str, Any] = {"actor": actor, "critic": critic, "mixer": mixer}

    # first the critic, then the policy with the new critic
    steps = {
        "critic": Step(critic_loss, {"critic": ("critic", "mixer")}, rate="critic_lr"),
        "actor": Step(actor_loss, {"actor": ("actor",)}),
    }
    learner = offline_learner("icq", config, spec, networks, steps)
    return replace(learner, targets=family.slow(config, "critic", "mixer"), inspect=(taken_values,))


def _critic(config: Config, spec: EnvSpec) -> AgentNetwork:
    """Of all actions, or where they are continuous of one that it reads."""
    param_sets = sharing_sets(config.share_params, spec.groups)
    width = spec.state_dim + spec.obs_dim + spec.num_agents
    actions = inputs.action_dim(spec)
    if isinstance(spec.action, Discrete):
        return team_network(DuelingQ(config.critic_dim, actions), width, 0, param_sets)
    return team_network(FeedForwardQ(config.critic_dim, 1), width + actions, 0, param_sets)


@packable
def critic_loss(view: View) -> tuple[Array, Metrics]:
    """The mean of (G - Q_tot)^2 over valid steps."""
    config = view.config
    batch = view.batch
    mixer = view.learner.mixer

    # the value of what the data do next, weighed by how good it is
    next_q = values.next_values(view)
    slow = mixer.apply(view.target_params["mixer"], next_q, batch.state[1:])
    next_value = jax.lax.stop_gradient(slow)
    beta = view.hparams["beta" if config.form == "paper" else "critic_beta"]
    valid = batch.mask * (1.0 - batch.terminated)
    weight = values.filter_weights(view, "softmax", next_value, valid, beta)
    y = family.lambda_target(view, weight * next_value)

    q_taken = values.of_data(view, view.params)
    q_tot = mixer.apply(view.params["mixer"], q_taken, batch.state[:-1])
    loss = masked_mean_square(y - q_tot, batch.mask)
    return loss, {"loss/critic": loss, **family.td_metrics(view, y, q_tot, q_taken)}


@packable
def actor_loss(view: View) -> tuple[Array, Metrics]:
    """-mean k_i F(A_i) log pi_i, or -mean F(k_i Q_i) log pi_i, over valid steps and agents."""
    config = view.config
    batch = view.batch
    mask = family.per_agent(view, batch.mask)
    y = family.unrolled(view, "actor", view.params)
    k, _ = view.learner.mixer.weights(view.params["mixer"], batch.state[:-1])
    q = values.of_data(view, view.params)

    # how good the critic finds what the data did
    if config.form == "paper":
        score = k * q
        front = jnp.ones_like(k)
    else:
        score = q - values.of_policies(view, view.params, y)[:-1]
        front = k
    beta = view.hparams["beta"]
    weight = values.filter_weights(view, config.filter, score, mask, beta)
    weight, front = jax.lax.stop_gradient((weight, front))

    if config.mixture:
        taken = take_last(values.log_policy(view, y[:-1], batch.avail[:-1]), batch.action)
    else:
        taken = family.log_probability(view, y[:-1])
    loss = -masked_mean(front * weight * taken, mask)

    # what is reported
    cloning = -masked_mean(taken, mask)
    effective = offline.effective_share(weight, mask)
    return loss, {
        "loss/actor": loss,
        "loss/cloning": cloning,
        "weight/effective": effective,
        "weight/max": jnp.max(weight),
    }


def taken_values(view: View) -> dict[str, Array]:
    """Q_i of the actions taken, for people to look at, [T, B, N]."""
    return {"q_taken": values.of_data(view, view.params)}

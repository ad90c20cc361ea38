"""ICQ-MA: implicit constraint Q-learning of a team (Yang et al. 2021, https://arxiv.org/abs/2106.03400).

A critic of the data's own actions, and a policy that clones those of them that the critic finds good:

    Q_tot(s, a) = sum_i k_i(s) Q_i(s, o_i, a_i) [+ b(s)],   k_i >= 0,  sum_i k_i = 1
    G_t = TD(lambda) over R and  F_c(Q'_tot(s_t+1, a_t+1)) Q'_tot(s_t+1, a_t+1),   L(Q) = mean (G - Q_tot)^2
    L(pi) = - mean k_i(s) F(A_i) log pi_i(a_i | tau_i),   A_i = Q_i(a_i) - sum_a pi_i(a) Q_i(a)

F(x) = n e^(x / beta) / sum e^(x / beta) over the n valid steps of the batch, apart for each agent; F_c over those that
are followed, with critic_beta. k, F and A are constants to the policy. First the critic steps, then the policy with the
new critic (code). That is `form=code`; with `form=paper` it is eq. 14 of SIT (Tian et al. 2023,
https://arxiv.org/abs/2211.15612): F(k_i Q_i) in place of k_i F(A_i), one beta for both, and b(s).

Departures. paper: eq. 14 prints a sum of squared one-step errors, each under (gamma lambda)^t; code and ours:
TD(lambda). code: critic_beta = 1000, which is next to no weight; with the paper's 0.1 targets grow up to n-fold. code:
sums are over the episodes at the same time, padding included: `softmax_axis=batch`; ours: over all valid steps. code:
the critic makes one step for each time index, and targets follow every 600 of those; ours: one of all, and
`target_update_period`. code: the norm is clipped at 20; ours: SIT's Table 11. code: behind a time limit it reads the
action in the next slot; ours: there is none, so that step bootstraps from sum_a pi_i(a) Q'_i(a). code: OG-MARL's has a
gradient from the policy into k.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from jaxshare.algos import _offline as family
from jaxshare.algos._offline import OfflineHParams, OfflineLearner, Params, Step, TeamConfig
from jaxshare.models.agents import team_network
from jaxshare.models.base import sharing_groups
from jaxshare.models.offline import DuelingQ, linear_mixer
from jaxshare.ops import coma, offline
from jaxshare.ops.masking import masked_mean, masked_mean_square, take_last
from jaxshare.types import Array, Context, Discrete, EnvSpec, Episode, LearnerState, Metrics, RefusedError

RUN = {"total_updates": 15_000, "eval": {"every": 1_000}}  # paper: Table 11; the evaluations are ours


@dataclass(frozen=True)
class HParams(OfflineHParams):
    """Swept scalars."""

    critic_lr: float = 1e-4  # paper: Table 11, code: ICQ
    td_lambda: float = 0.8  # paper: Table 11, code: ICQ
    beta: float = 0.1  # of the policy, and of the critic with form=paper; paper: Table 11, code: ICQ
    critic_beta: float = 1000.0  # with form=code; code: ICQ


@dataclass(frozen=True)
class Config(TeamConfig):
    """Settings of the family, and the critic's."""

    form: str = "code"  # code: ICQ's | paper: eq. 14 of SIT
    filter: str = "softmax"  # F: softmax (ICQ) | crr, min(e^(x / beta), 20) | binary, 1[x > 0] (Wang et al. 2020)
    softmax_axis: str = "batch_time"  # batch_time (ours) | batch (code)
    critic_dim: int = 256  # code: ICQ; paper: Table 11 has 32 for mixers and critics
    hparams: HParams = field(default_factory=HParams)

    def __post_init__(self) -> None:
        super().__post_init__()
        family.refuse_below(self, critic_dim=1)
        family.refuse_unknown(self, form=("code", "paper"), filter=offline.FILTERS, softmax_axis=offline.AXES)
        for key in ("beta", "critic_beta"):
            if getattr(self.hparams, key) <= 0:
                raise RefusedError(f"algo.hparams.{key}={getattr(self.hparams, key)} must be positive.")
        if self.form == "paper" and self.filter != "softmax":
            raise RefusedError(
                f"algo.filter={self.filter} is of advantages, and algo.form=paper has none. Use algo.form=code."
            )


def make(config: Config, spec: EnvSpec) -> OfflineLearner:
    """Policies, a critic and a linear mixer. Raises RefusedError for continuous actions."""
    actor = family.agent_network("icq", config, spec)
    assert isinstance(spec.action, Discrete)
    module = DuelingQ(config.critic_dim, spec.action.num_actions)
    groups = sharing_groups(config.share_params, spec.groups)
    return OfflineLearner(
        "icq",
        config,
        spec,
        actor=actor,
        critic=team_network(module, spec.state_dim + spec.obs_dim + spec.num_agents, 0, groups),
        modules={"mixer": linear_mixer(spec.num_agents, spec.state_dim, config.embed_dim, bias=config.form == "paper")},
        steps={
            "critic": Step(critic_loss, ("critic", "mixer"), rate="critic_lr"),
            "actor": Step(actor_loss, ("actor",)),
        },
        slow=("critic", "mixer"),
        acting=("actor",),
        choose=family.likeliest,
        inspect=(shown,),
    )


def judged(parts: OfflineLearner, params: Params, batch: Episode) -> Array:
    """Q_i of every action in every slot, [T+1, B, N, A]. code: the critic reads [s, o_i, i] and has no memory."""
    agents, critic = parts.spec.num_agents, parts.networks["critic"]
    shape = batch.obs.shape[:3]
    state = jnp.broadcast_to(batch.state[:, :, None], (*shape, batch.state.shape[-1]))
    x = jnp.concatenate([state, batch.obs, jnp.broadcast_to(jnp.eye(agents), (*shape, agents))], axis=-1)
    return critic.unroll(params["critic"], critic.initial_carry(x.shape[1]), x)[1]


def critic_loss(
    parts: OfflineLearner, params: Params, target: Params, batch: Episode, ctx: Context
) -> tuple[Array, Metrics]:
    """The mean of (G - Q_tot)^2 over valid steps."""
    config, mixer = parts.config, parts.modules["mixer"]
    next_q = followed(parts, params, judged(parts, target, batch), batch)
    next_value = jax.lax.stop_gradient(mixer.apply(target["mixer"], next_q, batch.state[1:]))
    beta = ctx.hparams["beta" if config.form == "paper" else "critic_beta"]
    valid = batch.mask * (1.0 - batch.terminated)
    weight = offline.filter_weights("softmax", next_value, valid, beta, config.softmax_axis)
    y = family.lambda_target(parts, weight * next_value, batch, ctx)
    q_taken = take_last(judged(parts, params, batch)[:-1], batch.action)
    q_tot = mixer.apply(params["mixer"], q_taken, batch.state[:-1])
    loss = masked_mean_square(y - q_tot, batch.mask)
    return loss, {"loss/critic": loss, **family.td_metrics(parts, y, q_tot, q_taken, batch)}


def followed(parts: OfflineLearner, params: Params, slow_q: Array, batch: Episode) -> Array:
    """Q'_i of what the data do next, [T, B, N]; behind a time limit its mean under the policies. slow_q [T+1, ...]."""
    log_pi = offline.log_policy(family.unrolled(parts, "actor", params, batch)[1:], batch.avail[1:])
    expected = jnp.sum(jnp.exp(log_pi) * slow_q[1:], axis=-1)
    taken = take_last(slow_q[1:-1], batch.action[1:])
    taken = jnp.concatenate([taken, expected[-1:]])  # nothing follows the last slot
    return jnp.where(family.per_agent(parts, batch.truncated), expected, taken)


def actor_loss(
    parts: OfflineLearner, params: Params, target: Params, batch: Episode, ctx: Context
) -> tuple[Array, Metrics]:
    """-mean k_i F(A_i) log pi_i, or -mean F(k_i Q_i) log pi_i, over valid steps and agents."""
    config, mask = parts.config, family.per_agent(parts, batch.mask)
    log_pi = offline.log_policy(family.unrolled(parts, "actor", params, batch)[:-1], batch.avail[:-1])
    k, _ = parts.modules["mixer"].weights(params["mixer"], batch.state[:-1])
    q = judged(parts, params, batch)[:-1]
    if config.form == "paper":
        score, front = k * take_last(q, batch.action), jnp.ones_like(k)
    else:
        score, front = coma.counterfactual(q, jnp.exp(log_pi), batch.action)[0], k
    weight = offline.filter_weights(config.filter, score, mask, ctx.hparams["beta"], config.softmax_axis)
    weight, front = jax.lax.stop_gradient((weight, front))
    taken = take_last(log_pi, batch.action)
    loss = -masked_mean(front * weight * taken, mask)
    return loss, {
        "loss/actor": loss,
        "loss/cloning": -masked_mean(taken, mask),
        "weight/effective": offline.effective_share(weight, mask),
        "weight/max": jnp.max(weight),
    }


def shown(parts: OfflineLearner, learner: LearnerState, batch: Episode, ctx: Context) -> dict[str, Array]:
    """Q_i of the actions taken, for people to look at, [T, B, N]."""
    return {"q_taken": take_last(judged(parts, learner.params, batch)[:-1], batch.action)}

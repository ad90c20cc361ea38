"""Counterfactual multi-agent policy gradients, COMA (Foerster et al. 2018, https://arxiv.org/abs/1705.08926).

    Q(z_i, .): one value for each action of agent i; z_i = [state, actions of the others, index]
    b_i = sum_a pi_i(a | h_i) Q(z_i, a),   A_i = sg(Q(z_i, a_i) - b_i)                                       (eq. 4)
    L_i = -mean[A_i log pi_i(a_i | h_i)] - c_e mean[H(pi_i)] + c_v mean[(y_i - Q(z_i, a_i))^2]        (eqs. 3 and 8)
    y_i = G_t^lambda,   G_t = r_t + discount_t {(1 - lambda) Q'(z_i', a_i') + lambda G_{t+1}}      (TD(lambda), sec. 4)

Q' is a copy of the critic, made anew every 200 updates; A uses the critic before its step. The reward must be common.
a' is the next joint action of the episode; where the time limit cuts it, one of the present policy.

Settings are EPyMARL's (Papoudakis et al. 2021) with the returns of the paper; returns=n_step n_step=10 are EPyMARL's.
The authors' code explores with (1 - eps) pi + eps uniform: hparams.epsilon_start=0.5 epsilon_end=0.01.

Departures. paper, code: the authors fit the critic one time step after the other, backwards, a gradient step each, with
RMSprop; ours: one batch, as in EPyMARL, and Adam. code: EPyMARL's critic loss is the sum over agents, here their mean;
it does not bootstrap where the time limit cuts an episode, and its n-step return takes a value for the last reward.
code: the authors mix eps in before actions that are not available are taken out; ours: after that.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxshare.algos import _actor_critic as family
from jaxshare.algos import _central as central
from jaxshare.algos._actor_critic import ActorCritic, CentralConfig, Targets, central_actor_critic
from jaxshare.models import distributions
from jaxshare.ops import coma as ops
from jaxshare.ops import pareto, returns
from jaxshare.ops.masking import take_last
from jaxshare.ops.schedules import linear
from jaxshare.settings.fields import static, swept
from jaxshare.types import Array, Context, EnvSpec, LearnerState, Metrics, RefusedError, Segment

RUN = family.EPYMARL_RUN


@dataclass(frozen=True)
class HParams(family.EpymarlHParams):
    """Swept scalars. code: EPyMARL's coma.yaml."""

    lr: float = 3e-4
    critic_lr: float = 3e-4
    td_lambda: float = swept(0.8, least=0, most=1)  # paper; only with returns=td_lambda
    # share of uniformly random play; code: EPyMARL has none, the authors' 0.5
    epsilon_start: float = swept(0.0, least=0, most=1)
    epsilon_end: float = swept(0.0, least=0, most=1)  # code: the authors' 0.01
    epsilon_anneal_steps: float = swept(100_000.0, least=0)  # environment steps; code: the authors'


@dataclass(frozen=True)
class Config(family.EpymarlConfig, CentralConfig):
    """Static settings. code: EPyMARL's coma.yaml."""

    # td_lambda (paper) | n_step (EPyMARL, with n_step=10)
    returns: str = static("td_lambda", choices=("td_lambda", "n_step"))
    n_step: int = 10  # only with returns=n_step
    hidden_dim: int = 64
    target_update: str = "hard"
    hparams: HParams = field(default_factory=HParams)

    def __post_init__(self) -> None:
        super().__post_init__()
        central.check("coma", self)


def make(config: Config, spec: EnvSpec) -> ActorCritic:
    """Agents with one critic of joint actions. Raises RefusedError without a common reward."""
    actions = central.num_choices("coma", spec)
    if not spec.common_reward:
        raise RefusedError(
            f"algo=coma needs a common reward; env={spec.name} pays each agent its own. Use env.reward=sum (mpe: "
            "env.local_ratio=0, jaxmarl: env.common_reward=true) where the environment has it, or algo=maa2c."
        )
    more = spec.num_agents * actions
    parts = central_actor_critic("coma", config, spec, prepare, loss, critic_dim=actions, more=more)
    return replace(parts, explore=explore, value=baseline)


def explore(y: Array, avail: Array, ctx: Context) -> Array:
    """Logits of the policy that plays: y [..., A], avail [..., A] bool -> [..., A]."""
    h = ctx.hparams
    epsilon = linear(h["epsilon_start"], h["epsilon_end"], ctx.env_steps, h["epsilon_anneal_steps"])
    return ops.mix_uniform(y, avail, epsilon)


def played(parts: ActorCritic, params: dict[str, Any], segment: Segment, ctx: Context) -> Any:
    """The policies that played the segment, exploration included; ctx is of that time, see `before`."""
    _, read = parts.actor.unroll(params["actor"], segment.carry.actor, family.actor_stream(parts, segment))
    return distributions.policy(explore(read.y, segment.avail, ctx), segment.avail, parts.spec)


def before(ctx: Context, segment: Segment) -> Context:
    """The context as it was when the segment was collected."""
    return ctx.replace(env_steps=ctx.env_steps - segment.mask.sum().astype(jnp.int32))  # type: ignore[attr-defined]


def action_values(parts: ActorCritic, params: Any, z: Array, action: Array) -> Array:
    """Q(z, .) beside what the others did: z [T, B, N, D], action [T, B, N] -> [T, B, N, A]."""
    return central.ask(parts.critic, params, z, pareto.others_only(action, central.num_choices("coma", parts.spec)))


def prepare(parts: ActorCritic, learner: LearnerState, segment: Segment, ctx: Context, key: Array) -> Targets:
    """TD(lambda) targets of the target critic, advantages of the critic."""
    then = before(ctx, segment)
    q = action_values(parts, learner.params["critic"], central.here(parts, segment), segment.action)
    policy = played(parts, learner.params, segment, then)
    advantage, value = ops.counterfactual(q, policy.probs, segment.action)
    action = central.next_actions(parts, learner, segment, then, key)
    following = action_values(parts, central.slow_critic(parts, learner), central.beyond(parts, segment), action)
    target = returns_of(parts, segment, take_last(following, action), ctx)
    return Targets(returns=target, advantage=advantage, log_prob=jnp.zeros_like(value), value=value)


def returns_of(parts: ActorCritic, segment: Segment, next_value: Array, ctx: Context) -> Array:
    """The critic's targets, [T, B, N]."""
    if parts.config.returns == "n_step":
        return family.returns_of(parts, segment, next_value, ctx)
    end = family.over_agents(segment.end, segment)
    discount = family.discounts(parts, segment, ctx)
    return returns.td_lambda(segment.reward, discount, next_value, end, ctx.hparams["td_lambda"])


def loss(
    parts: ActorCritic, params: dict[str, Any], segment: Segment, targets: Targets, ctx: Context, key: Array
) -> tuple[Array, Metrics]:
    """L, the mean (or sum) over agents of L_i."""
    policy = played(parts, params, segment, before(ctx, segment))
    q = action_values(parts, params["critic"], central.here(parts, segment), segment.action)
    mean = partial(family.agent_means, parts, mask=segment.mask)
    actor = mean(-targets.advantage * policy.log_prob(segment.action))
    critic, entropy = mean(jnp.square(targets.returns - take_last(q, segment.action))), mean(policy.entropy())
    total = actor + ctx.hparams["value_coef"] * critic - ctx.hparams["entropy_coef"] * entropy
    return total, family.report(parts, segment, targets, actor=actor, critic=critic, entropy=entropy)


def baseline(parts: ActorCritic, learner: LearnerState, segment: Segment) -> Array:
    """b of every step, [T, B, N], for inspection: of the policy without exploration."""
    q = action_values(parts, learner.params["critic"], central.here(parts, segment), segment.action)
    probs: jax.Array = family.policies(parts, learner.params, segment).probs
    return ops.counterfactual(q, probs, segment.action)[1]

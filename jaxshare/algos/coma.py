"""Counterfactual multi-agent policy gradients, COMA (Foerster et al. 2018, https://arxiv.org/abs/1705.08926).

    Q(z_i, .): one value for each action of agent i; z_i = [state, actions of the others, index]
    b_i = sum_a pi_i(a | h_i) Q(z_i, a),   A_i = sg(Q(z_i, a_i) - b_i)                                       (eq. 4)
    L_i = -mean[A_i log pi_i(a_i | h_i)] - c_e mean[H(pi_i)] + c_v mean[(y_i - Q(z_i, a_i))^2]        (eqs. 3 and 8)
    y_i = G_t^lambda,   G_t = r_t + discount_t {(1 - lambda) Q'(z_i', a_i') + lambda G_{t+1}}      (TD(lambda), sec. 4)

Q' is a copy of the critic, made anew every 200 updates; A uses the critic before its step. The reward must be common.
a' is the next joint action of the episode; where the time limit cuts it, one of the present policy.

Settings are EPyMARL's (Papoudakis et al. 2021) with the returns of the paper; returns=n_step n_step=10 are EPyMARL's.
The authors' code, PyMARL's (Samvelyan et al. 2019), is preset=differ/fig13_coma. There

    critic_steps=slices: the critic makes an optimiser step for each time step of the batch, from the last to the first,
        each with the mean over the episodes that are still on. Targets are those of before; A takes what the critic
        said of a time step just before it learned from it. The target is copied after a batch if 200
        (target_update_period) critic steps have been made since it last was: they are counted, not the batches;
    mask_before_softmax=false: exploration, (1 - eps) pi + eps / A, is over all actions, of which those that are
        available are left and normalised; ours, true: pi and uniform play are over the available ones;
    optimizer=rmsprop, critic_dim=128, and a critic that also reads agent i's observation and all last actions.

Departures. code: EPyMARL's critic loss is the sum over agents, here their mean; it does not bootstrap where the time
limit cuts an episode (neither do the authors), and its n-step return takes a value for the last reward.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxshare.algos import _actor_critic as family
from jaxshare.algos import _central as central
from jaxshare.algos._actor_critic import ActorCritic, CentralConfig, Targets, central_actor_critic
from jaxshare.models import distributions
from jaxshare.ops import coma as ops
from jaxshare.ops import pareto, returns
from jaxshare.ops.masking import take_last
from jaxshare.ops.schedules import exploration_rate
from jaxshare.settings.fields import default, flag, nested, static
from jaxshare.settings.shared import PYMARL, Epsilon, Lambda, Optimizer, RMSprop
from jaxshare.types import Array, Context, EnvSpec, LearnerState, Metrics, RefusedError, Segment

RUN = family.EPYMARL_RUN

CODE = "code: EPyMARL's coma.yaml"


@dataclass(frozen=True)
class HParams(RMSprop, Epsilon, Lambda, family.EpymarlHParams):
    """Swept scalars. code: EPyMARL's coma.yaml."""

    lr: float = default(3e-4, CODE)
    critic_lr: float = default(3e-4, CODE)
    td_lambda: float = default(
        0.8,
        "paper: COMA",
        help="lambda of the lambda-returns; only with returns=td_lambda",
    )
    epsilon_start: float = default(0.0, "code: EPyMARL has none; the authors' 0.5")
    epsilon_end: float = default(0.0, "code: EPyMARL has none; the authors' 0.01")
    epsilon_anneal_steps: float = default(100_000.0, "code: the authors'")
    rms_decay: float = default(0.99, PYMARL)


@dataclass(frozen=True)
class Config(Optimizer, family.EpymarlConfig, CentralConfig):
    """Static settings. code: EPyMARL's coma.yaml."""

    returns: str = static(
        "td_lambda",
        choices=("td_lambda", "n_step"),
        help="targets of the critic: lambda-returns, or n-step returns",
        source="paper: COMA; EPyMARL has n_step",
    )
    n_step: int = default(10, CODE, help="steps of a return; only with returns=n_step")
    hidden_dim: int = default(64, CODE)
    target_update: str = default("hard", CODE)
    critic_steps: str = static(
        "batch",
        choices=("batch", "slices"),
        help="steps of the critic's optimiser: one for all (batch), or one for each time step",
        source="code: EPyMARL; the authors' has slices",
    )
    mask_before_softmax: bool = flag(
        True,
        help="unavailable actions are left out before the softmax; false: after it",
        source="code: EPyMARL; the authors' has false",
    )
    optimizer: str = default("adam", CODE)
    hparams: HParams = nested(HParams)

    def __post_init__(self) -> None:
        super().__post_init__()
        central.check("coma", self)
        if self.critic_steps == "slices":
            self._check_slices()

    def _check_slices(self) -> None:
        for key, only in {"optimizers": "separate", "rollout": "episodes"}.items():
            if getattr(self, key) != only:
                raise RefusedError(
                    f"algo.critic_steps=slices with algo.{key}={getattr(self, key)}: the critic steps alone, through "
                    f"whole episodes. Use algo.{key}={only}, or algo.critic_steps=batch."
                )


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
    parts = replace(parts, explore=partial(explore, config), value=baseline)
    if config.critic_steps == "batch":
        return parts
    follow = partial(copied, config) if config.target_update == "hard" else None
    return replace(parts, fit=fit, follow=follow).extend(
        stats={"coma": Steps(jnp.int32(0), jnp.int32(0))}
    )


def explore(config: Config, y: Array, avail: Array, ctx: Context) -> Array:
    """Logits of the policy that plays: y [..., A], avail [..., A] bool -> [..., A]."""
    epsilon = exploration_rate(ctx.hparams, ctx.env_steps, ctx.total_env_steps)
    mixed = ops.mix_uniform if config.mask_before_softmax else ops.mix_all
    return mixed(y, avail, epsilon)


def played(parts: ActorCritic, params: dict[str, Any], segment: Segment, ctx: Context) -> Any:
    """The policies that played the segment, exploration included; ctx is of that time, see `before`."""
    _, read = parts.actor.unroll(
        params["actor"], segment.carry.actor, family.actor_stream(parts, segment)
    )
    assert isinstance(parts.config, Config)
    return distributions.policy(
        explore(parts.config, read.y, segment.avail, ctx), segment.avail, parts.spec
    )


def before(ctx: Context, segment: Segment) -> Context:
    """The context as it was when the segment was collected."""
    return ctx.replace(env_steps=ctx.env_steps - segment.mask.sum().astype(jnp.int32))  # type: ignore[attr-defined]


def action_values(parts: ActorCritic, params: Any, z: Array, action: Array) -> Array:
    """Q(z, .) beside what the others did: z [T, B, N, D], action [T, B, N] -> [T, B, N, A]."""
    return central.ask(
        parts.critic, params, z, pareto.others_only(action, central.num_choices("coma", parts.spec))
    )


def prepare(
    parts: ActorCritic, learner: LearnerState, segment: Segment, ctx: Context, key: Array
) -> Targets:
    """TD(lambda) targets of the target critic, advantages of the critic."""
    then = before(ctx, segment)
    q = action_values(parts, learner.params["critic"], central.here(parts, segment), segment.action)
    policy = played(parts, learner.params, segment, then)
    advantage, value = ops.counterfactual(q, policy.probs, segment.action)
    action = central.next_actions(parts, learner, segment, then, key)
    following = action_values(
        parts, central.slow_critic(parts, learner), central.beyond(parts, segment), action
    )
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
    parts: ActorCritic,
    params: dict[str, Any],
    segment: Segment,
    targets: Targets,
    ctx: Context,
    key: Array,
) -> tuple[Array, Metrics]:
    """L, the mean (or sum) over agents of L_i."""
    policy = played(parts, params, segment, before(ctx, segment))
    mean = partial(family.agent_means, parts, mask=segment.mask)
    actor = mean(-targets.advantage * policy.log_prob(segment.action))
    critic, entropy = jnp.float32(0.0), mean(policy.entropy())
    if not parts.fit:
        q = action_values(parts, params["critic"], central.here(parts, segment), segment.action)
        critic = mean(jnp.square(targets.returns - take_last(q, segment.action)))
    total = actor + ctx.hparams["value_coef"] * critic - ctx.hparams["entropy_coef"] * entropy
    return total, family.report(
        parts, segment, targets, actor=actor, critic=critic, entropy=entropy
    )


@struct.dataclass
class Steps:
    """What is counted with critic_steps=slices."""

    made: Array  # [] i32, steps of the critic
    copied: Array  # [] i32, how many there were when the target was last copied


def fit(
    parts: ActorCritic, learner: LearnerState, segment: Segment, targets: Targets, ctx: Context
) -> tuple[LearnerState, Targets, Metrics]:
    """A critic step for each time step, backwards. code: PyMARL's coma_learner, `_train_critic`."""
    z, stats = central.here(parts, segment), learner.stats["coma"]

    def error(params: Any, at: tuple[Array, ...]) -> tuple[Array, Array]:
        z, action, returns, mask = (x[None] for x in at)
        q = action_values(parts, params, z, action)
        square = jnp.square(returns - take_last(q, action))
        return ctx.hparams["value_coef"] * family.agent_means(parts, square, mask), q[0]

    def step(
        carry: tuple[Any, Any, Array], at: tuple[Array, ...]
    ) -> tuple[Any, tuple[Array, Array]]:
        params, state, made = carry
        grads, q = jax.grad(error, has_aux=True)(params, at)
        updates, after = update({"critic": grads}, state)
        on = jnp.any(at[-1] > 0)
        stepped = (optax.apply_updates(params, updates["critic"]), after)
        params, state = jax.tree.map(
            lambda new, old: jnp.where(on, new, old), stepped, (params, state)
        )
        return (params, state, made + on.astype(made.dtype)), (q, optax.tree.norm(grads))

    update = family.update_of(parts, ctx, "critic", ("critic",))
    first = (learner.params["critic"], learner.opt_state["critic"], stats.made)
    slices = (z, segment.action, targets.returns, segment.mask)
    (params, state, made), (q, norms) = jax.lax.scan(step, first, slices, reverse=True)
    policy = played(parts, learner.params, segment, before(ctx, segment))
    advantage, value = ops.counterfactual(q, policy.probs, segment.action)
    learner = learner.replace(  # type: ignore[attr-defined]
        params={**learner.params, "critic": params},
        opt_state={**learner.opt_state, "critic": state},
        stats={**learner.stats, "coma": stats.replace(made=made)},
    )
    loss = family.agent_means(
        parts, jnp.square(targets.returns - take_last(q, segment.action)), segment.mask
    )
    scale = 1.0 / parts.spec.num_agents if parts.config.over_agents == "sum" else 1.0
    metrics = {
        "loss/critic": loss * scale,
        "grad_norm/critic": norms.sum() / jnp.maximum(made - stats.made, 1),
        "coma/critic_steps": made.astype(jnp.float32),
        "coma/target_age": (made - stats.copied).astype(jnp.float32),  # in critic steps
    }
    targets = targets.replace(advantage=advantage, value=value)  # type: ignore[attr-defined]
    return learner, targets, metrics


def copied(config: Config, learner: LearnerState) -> LearnerState:
    """The target copied if as many critic steps as a period has were made since it last was."""
    stats = learner.stats["coma"]
    due = stats.made - stats.copied >= config.target_update_period
    own = {name: learner.params[name] for name in learner.target_params}
    target = jax.tree.map(lambda new, old: jnp.where(due, new, old), own, learner.target_params)
    stats = stats.replace(copied=jnp.where(due, stats.made, stats.copied))
    return learner.replace(target_params=target, stats={**learner.stats, "coma": stats})  # type: ignore[attr-defined]


def baseline(parts: ActorCritic, learner: LearnerState, segment: Segment) -> Array:
    """b of every step, [T, B, N], for inspection: of the policy without exploration."""
    q = action_values(parts, learner.params["critic"], central.here(parts, segment), segment.action)
    probs: jax.Array = family.policies(parts, learner.params, segment).probs
    return ops.counterfactual(q, probs, segment.action)[1]

"""What on-policy actor-critics share: iac, seac, maa2c, ppo and others.

They learn from the `Segment` that was just collected: pieces of streams of episodes
(rollout=segments), or whole episodes (rollout=episodes). `prepare` makes the targets with the
parameters before the update, the loss is minimised once, or over epochs and minibatches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import struct

from jaxshare.learners.actor_critic_settings import ActorCriticConfig
from jaxshare.learners.learner import Learner
from jaxshare.learners.records import (
    Acting,
    Chosen,
    Loss,
    Optimizer,
    Phase,
    Policy,
    Source,
    Step,
    Targets,
    View,
)
from jaxshare.models import distributions, inputs
from jaxshare.models.base import sharing_sets
from jaxshare.models.inputs import Reads
from jaxshare.models.streams import Shape, Stream, StreamNetwork, stream_network
from jaxshare.ops import returns
from jaxshare.ops.masking import masked_mean
from jaxshare.types import Array, Box, Context, EnvSpec, Metrics, Segment

POLICY = "policy"  # the step


class Aims(struct.PyTreeNode):
    """What an update aims at; made with the parameters before it."""

    returns: Array  # [T, B, N]
    advantage: Array  # [T, B, N]
    log_prob: Array  # [T, B, N] of the action taken
    value: Array  # [T, B, N]


# (obs [T, B, N, O], state [T, B, G], encoded previous action [T, B, N, A]) -> [T, B, N, D]
CriticInput = Callable[[Array, Array, Array], Array]


@dataclass(frozen=True)
class Critic:
    """What a critic is made of.

    reads: what it is given, None: what the actor reads; input_dim: D of that;
    out_dim: numbers that it says, a value as a rule.
    """

    reads: CriticInput | None = None
    input_dim: int = 0
    out_dim: int = 1


def actor_critic(
    name: str,
    config: ActorCriticConfig,
    spec: EnvSpec,
    prepare: Callable[[View], Any],
    loss: Loss,
    critic: Critic = Critic(),
) -> Learner:
    """A learner with the family's networks. prepare: View -> a tree of [T, B, ...], what the loss
    aims at.
    """
    reads = Reads(spec, config.obs_last_action, config.obs_agent_id)
    step = Step(loss=a2c_loss, optimizer_groups={}, rest="joint")
    rates = {}
    if config.optimizers == "separate":
        groups = {"actor": ("actor",), "critic": ("critic",)}
        step = Step(loss=a2c_loss, optimizer_groups=groups, rest="modules")
        rates = {"critic": "critic_lr"}
    segments = config.rollout == "segments"
    learner = Learner(
        name=name,
        spec=spec,
        config=config,
        networks=_networks(config, reads, critic),
        reads=reads,
        critic_reads=critic.reads or _local(reads),
        policy=Policy(networks=("actor", "critic"), choose=choose),
        phases=(
            Phase(
                steps={POLICY: step},
                prepare=prepare,
                epochs=config.epochs,
                minibatches=config.minibatches,
            ),
        ),
        main=POLICY,
        source=Source(
            experience="segment" if segments else "episode",
            sample=None,
            segment_length=config.segment_length if segments else 0,
        ),
        targets=Targets(
            networks=() if config.target_update == "none" else ("critic",),
            update=config.target_update,
            period=config.target_update_period,
        ),
        optimizer=Optimizer(
            kind=getattr(config, "optimizer", "adam"),
            clip="set" if config.clip == "set" else "group",
            rates=rates,
        ),
        schedule=annealed,
        inspect=(shown_values,),
    )
    return learner.with_own_loss(loss, a2c_loss)


def _networks(config: ActorCriticConfig, reads: Reads, critic: Critic) -> dict[str, StreamNetwork]:
    """Actor and critic."""
    spec = reads.spec
    param_sets = sharing_sets(config.share_params, spec.groups)
    out_dim, log_std = distributions.output_dim(spec)
    common: dict[str, Any] = {
        "activation": config.activation,
        "init": config.init,
        "body": config.body,
        "body_gain": config.body_gain,
    }
    actor_shape = Shape(
        **common,
        hidden_dim=config.hidden_dim,
        recurrent=config.recurrent,
        out_dim=out_dim,
        head_gain=0.01,
        log_std=log_std,
    )
    critic_shape = Shape(
        **common,
        hidden_dim=config.critic_dim or config.hidden_dim,
        recurrent=config.critic_recurrent,
        out_dim=critic.out_dim,
        head_gain=config.value_gain,
    )
    return {
        "actor": stream_network(actor_shape, reads.dim, param_sets),
        "critic": stream_network(critic_shape, critic.input_dim or reads.dim, param_sets),
    }


def _local(reads: Reads) -> CriticInput:
    """What an agent sees itself."""
    return lambda obs, state, previous: reads.build(obs, previous)


# ------------------------------------------------------------------------------------ acting


def choose(acting: Acting) -> Chosen:
    """A sample of every agent's policy, or its mode; a continuous action is cut to its bounds."""
    learner = acting.learner
    spec = learner.spec
    avail = acting.timestep.avail
    actor = learner.networks["actor"]
    hidden, read = actor.unroll(acting.params["actor"], acting.memory["actor"], Stream(x=acting.x))
    y = read.y[0]
    if acting.explore and learner.policy.explore:
        y = learner.policy.explore(y, avail, acting.ctx)
    policy = distributions.policy(y, avail, spec)
    action = policy.sample(seed=acting.key) if acting.explore else policy.mode()
    memory = {"actor": hidden, "critic": acting.memory["critic"]}
    if learner.config.critic_recurrent and acting.explore:
        memory["critic"] = _critic_memory(acting)
    if not isinstance(spec.action, Box):
        return Chosen(action=action, memory=memory)
    low, high = distributions.action_bounds(spec.action, action)
    cut = jnp.clip(inputs.decode(action, spec.action), low, high)
    return Chosen(action=cut, memory=memory, extras={"drawn": action})


def _critic_memory(acting: Acting) -> Array:
    """The critic's memory after this step, for the start of the next piece, [B, N, H]."""
    learner = acting.learner
    assert learner.critic_reads is not None
    timestep = acting.timestep
    x = learner.critic_reads(timestep.obs[None], timestep.state[None], acting.previous[None])
    critic = learner.networks["critic"]
    return critic.unroll(acting.params["critic"], acting.memory["critic"], Stream(x=x))[0]


# ----------------------------------------------------------------------------- what is read


def previous_actions(view: View) -> Array:
    """Encoded previous action of each step, zeros at the first of an episode: [T, B, N, A or U]."""
    segment = view.batch
    encoded = inputs.encode(segment.action, view.spec)
    shifted = jnp.concatenate([segment.carry["previous"][None], encoded[:-1]])
    return jnp.where(segment.first[..., None, None], 0.0, shifted)


def actor_stream(view: View) -> Stream:
    """What the actors read at every step."""
    x = view.learner.reads.build(view.batch.obs, previous_actions(view))
    return Stream(x=x, keep=_keep(view) if view.config.recurrent else None)


def critic_here(view: View) -> Array:
    """What the critics read at every step, [T, B, N, D]."""
    reads = view.learner.critic_reads
    assert reads is not None
    return reads(view.batch.obs, view.batch.state, previous_actions(view))


def critic_beyond(view: View) -> Array:
    """What they would read at every step's true successor, [T, B, N, D]."""
    reads = view.learner.critic_reads
    assert reads is not None
    segment = view.batch
    encoded = inputs.encode(segment.action, view.spec)
    return reads(segment.next_obs, segment.next_state, encoded)


def critic_stream(view: View, after: bool) -> Stream:
    """What the critics read at every step, and with `after` at its true successor."""
    keep = _keep(view) if view.config.critic_recurrent else None
    x = critic_here(view)
    return Stream(x=x, keep=keep, after=critic_beyond(view) if after else None)


def _keep(view: View) -> Array:
    keep = 1.0 - view.batch.first.astype(jnp.float32)
    return jnp.broadcast_to(keep[..., None, None], (*keep.shape, view.spec.num_agents, 1))


# ------------------------------------------------------------------------- what networks say


def actor_says(view: View) -> Array:
    """What the actors say at every step, [T, B, N, Y]."""
    actor = view.learner.networks["actor"]
    _, read = actor.unroll(view.params["actor"], view.batch.carry["actor"], actor_stream(view))
    return read.y


def policies(view: View) -> Any:
    """The policy of every agent at every step: a distribution of batch shape [T, B, N]."""
    return distributions.policy(actor_says(view), view.batch.avail, view.spec)


def taken(segment: Segment) -> Array:
    """The action as the policy drew it: a continuous one before it was cut to its bounds.

    [T, B, N(, U)].
    """
    return segment.extras.get("drawn", segment.action)


def values(view: View, params: Any, after: bool = True) -> tuple[Array, Array]:
    """Values of every step and of its true successor, [T, B, N] each (zeros without `after`).
    params: the critics'.
    """
    critic = view.learner.networks["critic"]
    _, read = critic.unroll(params, view.batch.carry["critic"], critic_stream(view, after))
    value = read.y[..., 0]
    return value, jnp.zeros_like(value) if read.after is None else read.after[..., 0]


def shown_values(view: View) -> dict[str, Array]:
    """What the critics say of every step, [T, B, N], for people to look at."""
    return {"value": values(view, view.params["critic"], after=False)[0]}


# ------------------------------------------------------------------------------------- aims


def discounts(view: View) -> Array:
    """gamma * (1 - terminated), [T, B, N]."""
    segment = view.batch
    discount = view.hparams["gamma"] * (1.0 - segment.terminated.astype(jnp.float32))
    return jnp.broadcast_to(discount[..., None], segment.reward.shape)


def over_agents(x: Array, segment: Segment) -> Array:
    """A field of steps for every agent: [T, B] -> [T, B, N]."""
    return jnp.broadcast_to(x[..., None], (*x.shape, segment.reward.shape[-1]))


def returns_of(view: View, next_value: Array) -> Array:
    """n-step returns along every agent's rewards, [T, B, N]."""
    segment = view.batch
    n = view.config.n_step or segment.mask.shape[0]
    end = over_agents(segment.end, segment)
    return returns.n_step(segment.reward, discounts(view), next_value, end, n)


def own_aims(view: View) -> Aims:
    """Aims of every agent from its own rewards and its own critic (the target critic, if there is
    one).
    """
    segment = view.batch
    value, next_value = values(view, view.params["critic"])
    if view.config.target_update != "none":
        _, next_value = values(view, view.target_params["critic"])
    if view.config.returns == "gae":
        end = over_agents(segment.end, segment)
        advantage = returns.gae(
            segment.reward, discounts(view), value, next_value, end, view.hparams["gae_lambda"]
        )
        target = advantage + value
    else:
        target = returns_of(view, next_value)
        advantage = target - value
    log_prob = jnp.zeros_like(value)
    return Aims(returns=target, advantage=advantage, log_prob=log_prob, value=value)


def prepare_own(view: View) -> Aims:
    """`own_aims`, with standardised advantages and what the policies said, as settings ask for."""
    aims = own_aims(view)
    segment = view.batch
    if view.config.standardise_advantage:
        mask = over_agents(segment.mask, segment)
        mean = masked_mean(aims.advantage, mask)
        std = jnp.sqrt(masked_mean(jnp.square(aims.advantage - mean), mask))
        aims = aims.replace(advantage=(aims.advantage - mean) / (std + 1e-8))
    if view.config.epochs * view.config.minibatches > 1:
        aims = aims.replace(log_prob=policies(view).log_prob(taken(segment)))
    return aims


def annealed(view: View) -> Context:
    """The context with the learning rates of this batch: a line from the first batch on, as in
    JaxMARL's PPO.
    """
    h = view.hparams
    before = view.env_steps - view.batch.mask.sum().astype(jnp.int32)
    share = jnp.clip(before / view.ctx.total_env_steps, 0.0, 1.0)
    left = 1.0 - h["lr_anneal"] * share
    rates = {name: h[name] * left for name in ("lr", "critic_lr")}
    return view.ctx.replace(hparams={**h, **rates})


# ------------------------------------------------------------------------------------ losses


def agent_means(view: View, x: Array) -> Array:
    """Mean over valid steps of each agent, then the sum or the mean over agents.

    [T, B, N] -> [].
    """
    mask = view.batch.mask
    each = jnp.where(mask[..., None] > 0, x, 0.0).sum((0, 1)) / jnp.maximum(mask.sum(), 1.0)
    return each.sum() if view.config.over_agents == "sum" else each.mean()


def a2c_loss(view: View) -> tuple[Array, Metrics]:
    """sum_i {-mean[sg(A_i) log pi_i(a_i)] + c_v mean[(R_i - V_i)^2] - c_e mean[H(pi_i)]} (Mnih et
    al. 2016, sec. 4.3).

    The lecture's slides leave the minus sign of the first term out.
    """
    h = view.hparams
    aims: Aims = view.targets
    policy = policies(view)
    value, _ = values(view, view.params["critic"], after=False)
    mean = partial(agent_means, view)
    actor = mean(-aims.advantage * policy.log_prob(taken(view.batch)))
    critic = mean(jnp.square(aims.returns - value))
    entropy = mean(policy.entropy())
    loss = actor + h["value_coef"] * critic - h["entropy_coef"] * entropy
    return loss, report(view, aims, actor=actor, critic=critic, entropy=entropy)


def report(view: View, aims: Aims, **losses: Array) -> Metrics:
    """The metrics that all losses of the family have. losses: actor, critic, entropy."""
    mask = over_agents(view.batch.mask, view.batch)
    names = {"actor": "loss/actor", "critic": "loss/critic", "entropy": "policy/entropy"}
    scale = 1.0 / view.spec.num_agents if view.config.over_agents == "sum" else 1.0
    return {
        **{names[name]: value * scale for name, value in losses.items()},
        "value/mean": masked_mean(aims.value, mask),
        "value/target_mean": masked_mean(aims.returns, mask),
        "advantage/abs_mean": masked_mean(jnp.abs(aims.advantage), mask),
    }

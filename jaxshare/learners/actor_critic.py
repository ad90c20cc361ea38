"""What on-policy actor-critics share: iac, seac, maa2c, ppo and others.

They learn from the `Segment` that was just collected: pieces of streams of episodes
(rollout=segments), or whole episodes (rollout=episodes). `prepare` makes the targets with the
parameters before the update, the loss is minimised once, or over epochs and minibatches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from jaxshare.learners.actor_critic_losses import a2c_loss
from jaxshare.learners.actor_critic_settings import ActorCriticConfig
from jaxshare.learners.actor_critic_streams import shown_values
from jaxshare.learners.learner import Learner
from jaxshare.learners.optimisers import annealed
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
from jaxshare.trees import Tree
from jaxshare.types import Array, Box, EnvSpec

POLICY = "policy"  # the step


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
    prepare: Callable[[View], Tree],
    loss: Loss,
    critic: Critic | None = Critic(),
) -> Learner:
    """A learner with the family's networks.

    prepare: View -> a tree of [T, B, ...], what the loss aims at; critic: None: there is none.
    """
    reads = Reads(spec, config.obs_last_action, config.obs_agent_id)

    # one optimiser for both networks, or one for each
    step = Step(loss=a2c_loss, optimizer_groups={}, rest="joint")
    rates = {}
    if config.optimizers == "separate":
        names = ("actor", "critic") if critic else ("actor",)
        groups = {name: (name,) for name in names}
        step = Step(loss=a2c_loss, optimizer_groups=groups, rest="modules")
        rates = {"critic": "critic_lr"}
    kind = getattr(config, "optimizer", "adam")
    clip = "set" if config.clip == "set" else "group"

    # passes over what was just collected
    phase = Phase(
        steps={POLICY: step},
        prepare=prepare,
        epochs=config.epochs,
        minibatches=config.minibatches,
    )
    networks = _networks(config, reads, critic)
    optimizer = Optimizer(kind=kind, clip=clip, rates=rates)
    critic_reads = critic.reads or _local(reads) if critic else None
    inspect = (shown_values,) if critic else ()
    policy = Policy(networks=tuple(networks), choose=choose)
    learner = Learner(
        name=name,
        spec=spec,
        config=config,
        networks=networks,
        reads=reads,
        critic_reads=critic_reads,
        policy=policy,
        phases=(phase,),
        main=POLICY,
        source=_source(config),
        targets=_targets(config),
        optimizer=optimizer,
        schedule=annealed,
        inspect=inspect,
    )
    return learner.with_own_loss(loss, a2c_loss)


def _targets(config: ActorCriticConfig) -> Targets:
    """Target critics, if settings ask for them."""
    return Targets(
        networks=() if config.target_update == "none" else ("critic",),
        update=config.target_update,
        period=config.target_update_period,
    )


def _source(config: ActorCriticConfig) -> Source:
    """Pieces of streams of episodes, or whole episodes."""
    if config.rollout == "segments":
        length = config.segment_length
        return Source(experience="segment", sample=None, segment_length=length)
    return Source(experience="episode", sample=None)


def _networks(
    config: ActorCriticConfig, reads: Reads, critic: Critic | None
) -> dict[str, StreamNetwork]:
    """Actor and critic, if there is one."""
    spec = reads.spec
    param_sets = sharing_sets(config.share_params, spec.groups)
    out_dim, log_std = distributions.output_dim(spec)
    common: dict[str, Any] = {
        "activation": config.activation,
        "init": config.init,
        "body": config.body,
        "body_gain": config.body_gain,
    }

    # a policy
    actor_shape = Shape(
        **common,
        hidden_dim=config.hidden_dim,
        recurrent=config.recurrent,
        out_dim=out_dim,
        head_gain=0.01,
        log_std=log_std,
    )
    actor = stream_network(actor_shape, reads.dim, param_sets)
    if critic is None:
        return {"actor": actor}

    # a value, unless the algorithm asks for more numbers
    critic_shape = Shape(
        **common,
        hidden_dim=config.critic_dim or config.hidden_dim,
        recurrent=config.critic_recurrent,
        out_dim=critic.out_dim,
        head_gain=config.value_gain,
    )
    return {
        "actor": actor,
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

    # what the policy does
    if acting.explore and learner.policy.explore:
        y = learner.policy.explore(y, avail, acting.ctx)
    policy = distributions.policy(y, avail, spec)
    action = policy.sample(seed=acting.key) if acting.explore else policy.mode()

    # what is carried, also for the critic that learns from the next piece
    memory = {**acting.memory, "actor": hidden}
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

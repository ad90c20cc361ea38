"""Critics that read what no agent sees: values of z (maa2c, mappo), and action values of all
(coma, pac).
"""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp

from jaxshare.learners.actor_critic import Critic
from jaxshare.learners.actor_critic_settings import ActorCriticConfig, CentralConfig
from jaxshare.learners.actor_critic_streams import actor_stream
from jaxshare.learners.records import View
from jaxshare.models import distributions, inputs
from jaxshare.models.streams import Stream, StreamNetwork
from jaxshare.trees import Tree
from jaxshare.types import Array, Discrete, EnvSpec, RefusedError


def central_critic(
    config: CentralConfig, spec: EnvSpec, out_dim: int = 1, extra_dim: int = 0
) -> Critic:
    """A critic of z, and of `extra_dim` numbers if it is fed by the algorithm itself."""
    return Critic(
        reads=partial(central_input, config, spec),
        input_dim=central_input_dim(config, spec) + extra_dim,
        out_dim=out_dim,
    )


def central_input(
    config: CentralConfig, spec: EnvSpec, obs: Array, state: Array, previous: Array
) -> Array:
    """z = [state, own observation, last actions, index], [T, B, N, D].

    Everybody's observation stands for the state where there is none.
    """
    agents = spec.num_agents

    # a field for every agent, and all agents' fields side by side
    def for_all(x: Array) -> Array:
        """[T, B, F] -> [T, B, N, F]."""
        shape = (*x.shape[:2], agents, x.shape[-1])
        return jnp.broadcast_to(x[:, :, None], shape)

    def joined(x: Array) -> Array:
        """[T, B, N, F] -> [T, B, N * F]."""
        return x.reshape(*x.shape[:2], -1)

    parts = [for_all(state if spec.state_dim else joined(obs))]
    if config.critic_obs:
        parts.append(obs)
    if config.critic_last_actions:
        parts.append(for_all(joined(previous)))
    if config.critic_agent_id:
        parts.append(jnp.broadcast_to(jnp.eye(agents), (*obs.shape[:3], agents)))
    return jnp.concatenate(parts, axis=-1)


def central_input_dim(config: CentralConfig, spec: EnvSpec) -> int:
    """D of `central_input`."""
    agents = spec.num_agents
    size = spec.state_dim or agents * spec.obs_dim
    if config.critic_obs:
        size += spec.obs_dim
    if config.critic_last_actions:
        size += agents * inputs.action_dim(spec)
    if config.critic_agent_id:
        size += agents
    return size


# ------------------------------------------------------------------------------ action values


def check(name: str, config: ActorCriticConfig) -> None:
    """Raise RefusedError for settings of the family that have no meaning for critics of actions."""
    once = "the loss has no ratio of policies, so what was collected serves one update"
    asked = "its critic is asked about actions that nobody took, which no memory can follow"
    size = "the size of its advantages is set against the entropy coefficient"
    reasons = {
        "epochs": (1, once),
        "minibatches": (1, once),
        "critic_recurrent": (False, asked),
        "standardise_advantage": (False, size),
    }
    for key, (only, reason) in reasons.items():
        if getattr(config, key) != only:
            raise RefusedError(
                f"algo.{key}={getattr(config, key)}: {name} has {key}={only} only; {reason}."
            )


def num_choices(name: str, spec: EnvSpec) -> int:
    """A. Raises RefusedError for continuous actions."""
    if not isinstance(spec.action, Discrete):
        raise RefusedError(
            f"algo={name} needs discrete actions; env={spec.name} has continuous ones (use "
            "algo=maddpg or facmac)."
        )
    return spec.action.num_actions


def ask(critic: StreamNetwork, params: Tree, z: Array, others: Array) -> Array:
    """Action values: z [T, B, N, D] and the others' one-hot actions [T, B, N, N * A]
    -> [T, B, N, A].
    """
    x = jnp.concatenate([z, others], axis=-1)
    return critic.unroll(params, critic.initial_carry(x.shape[1]), Stream(x=x))[1].y


def next_actions(view: View) -> Array:
    """What everybody does after each step, [T, B, N] i32.

    Inside an episode that is the action of step t + 1. After a step that ended its episode, and
    after the last one, where no action was taken, one is drawn from the present policy.
    """
    segment = view.batch
    learner = view.learner
    after = learner.reads.build(segment.next_obs, inputs.encode(segment.action, view.spec))
    stream = actor_stream(view).replace(after=after)
    actor = learner.networks["actor"]
    _, read = actor.unroll(view.params["actor"], segment.carry["actor"], stream)
    y = read.after
    if learner.policy.explore:
        y = learner.policy.explore(y, segment.next_avail, view.ctx)
    sample = distributions.policy(y, segment.next_avail, view.spec).sample(seed=view.key)
    drawn = sample.astype(segment.action.dtype)
    following = jnp.concatenate([segment.action[1:], drawn[-1:]])
    return jnp.where(segment.end[..., None], drawn, following)


def slow_critic(view: View) -> Tree:
    """Parameters of the critic that targets bootstrap from."""
    if view.config.target_update == "none":
        return view.params["critic"]
    return view.target_params["critic"]

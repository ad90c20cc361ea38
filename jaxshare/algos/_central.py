"""What the learners with central action values, coma and pac, have in common: who did what, and what comes next."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxshare.algos import _actor_critic as family
from jaxshare.algos._actor_critic import ActorCritic, ActorCriticConfig
from jaxshare.models import distributions, inputs
from jaxshare.models.streams import Stream, StreamNetwork
from jaxshare.types import Array, Context, Discrete, EnvSpec, LearnerState, RefusedError, Segment


def check(name: str, config: ActorCriticConfig) -> None:
    """Raise RefusedError for settings of the family that have no meaning here."""
    reasons = {
        "epochs": (1, "the loss has no ratio of policies, so what was collected serves one update"),
        "minibatches": (
            1,
            "the loss has no ratio of policies, so what was collected serves one update",
        ),
        "critic_recurrent": (
            False,
            "its critic is asked about actions that nobody took, which no memory can follow",
        ),
        "standardise_advantage": (
            False,
            "the size of its advantages is set against the entropy coefficient",
        ),
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
            f"algo={name} needs discrete actions; env={spec.name} has continuous ones (use algo=maddpg or facmac)."
        )
    return spec.action.num_actions


def here(parts: ActorCritic, segment: Segment) -> Array:
    """z of every step, [T, B, N, D]."""
    return parts.critic_input(
        segment.obs, segment.state, family.previous_actions(segment, parts.spec)
    )


def beyond(parts: ActorCritic, segment: Segment) -> Array:
    """z of every step's true successor, [T, B, N, D]."""
    return parts.critic_input(
        segment.next_obs, segment.next_state, inputs.encode(segment.action, parts.spec)
    )


def ask(critic: StreamNetwork, params: Any, z: Array, others: Array) -> Array:
    """Action values: z [T, B, N, D] and the others' one-hot actions [T, B, N, N * A] -> [T, B, N, A]."""
    x = jnp.concatenate([z, others], axis=-1)
    return critic.unroll(params, critic.initial_carry(x.shape[1]), Stream(x=x))[1].y


def next_actions(
    parts: ActorCritic, learner: LearnerState, segment: Segment, ctx: Context, key: Array
) -> Array:
    """What everybody does after each step, [T, B, N] i32.

    Inside an episode that is the action of step t + 1. After a step that ended its episode, and after the last one,
    where no action was taken, one is drawn from the present policy.
    """
    config, spec = parts.config, parts.spec
    previous = inputs.encode(segment.action, spec)
    after = inputs.build(
        segment.next_obs, previous, spec, config.obs_last_action, config.obs_agent_id
    )
    stream = family.actor_stream(parts, segment).replace(after=after)  # type: ignore[attr-defined]
    _, read = parts.actor.unroll(learner.params["actor"], segment.carry.actor, stream)
    assert read.after is not None
    y = parts.explore(read.after, segment.next_avail, ctx) if parts.explore else read.after
    drawn = (
        distributions.policy(y, segment.next_avail, spec)
        .sample(seed=key)
        .astype(segment.action.dtype)
    )
    followed = jnp.concatenate([segment.action[1:], drawn[-1:]])
    return jnp.where(segment.end[..., None], drawn, followed)


def slow_critic(parts: ActorCritic, learner: LearnerState) -> Any:
    """Parameters of the critic that targets bootstrap from."""
    return (learner.params if parts.config.target_update == "none" else learner.target_params)[
        "critic"
    ]

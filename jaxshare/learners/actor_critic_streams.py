"""What actors and critics read of a segment, and what they say."""

from __future__ import annotations

import jax.numpy as jnp

from jaxshare.learners.records import View
from jaxshare.learners.segments import keep, previous_actions
from jaxshare.models import distributions, inputs
from jaxshare.models.streams import Stream
from jaxshare.trees import Tree
from jaxshare.types import Array, Segment

# ----------------------------------------------------------------------------- what is read


def actor_stream(view: View) -> Stream:
    """What the actors read at every step."""
    x = view.learner.reads.build(view.batch.obs, previous_actions(view))
    return Stream(x=x, keep=keep(view) if view.config.recurrent else None)


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
    factor = keep(view) if view.config.critic_recurrent else None
    x = critic_here(view)
    return Stream(x=x, keep=factor, after=critic_beyond(view) if after else None)


# ------------------------------------------------------------------------- what networks say


def actor_says(view: View) -> Array:
    """What the actors say at every step, [T, B, N, Y]."""
    actor = view.learner.networks["actor"]
    _, read = actor.unroll(view.params["actor"], view.batch.carry["actor"], actor_stream(view))
    return read.y


def policies(view: View) -> distributions.Distribution:
    """The policy of every agent at every step: a distribution of batch shape [T, B, N]."""
    return distributions.policy(actor_says(view), view.batch.avail, view.spec)


def taken(segment: Segment) -> Array:
    """The action as the policy drew it: a continuous one before it was cut to its bounds.

    [T, B, N(, U)].
    """
    return segment.extras.get("drawn", segment.action)


def values(view: View, params: Tree, after: bool = True) -> tuple[Array, Array]:
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

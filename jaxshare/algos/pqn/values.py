"""What PQN reads of a segment, and how its agents act."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import struct

from jaxshare.learners.records import Acting, Chosen, View
from jaxshare.learners.segments import keep, previous_actions
from jaxshare.learners.utilities import explored
from jaxshare.learners.value import Values, discounts, mix_with, no_mix
from jaxshare.models import inputs
from jaxshare.models.mixers import MixerInputs
from jaxshare.models.streams import Read, Stream
from jaxshare.ops import returns
from jaxshare.ops.masking import masked_argmax, masked_max, take_last
from jaxshare.types import Array


def choose(acting: Acting) -> Chosen:
    """Epsilon-greedy on the utilities of all actions."""
    agent = acting.learner.networks["agent"]
    memory = acting.memory["agent"]
    hidden, read = agent.unroll(acting.params["agent"], memory, Stream(x=acting.x))
    return Chosen(action=explored(acting, read.y[0]), memory={"agent": hidden})


class Successors(struct.PyTreeNode):
    """What each step leads to, constants."""

    next_q: Array  # [T, B, N] of the best actions; without a mixer in the lambda-return
    next_action: Array  # [T, B, N]
    next_q_tot: Array  # [T, B] in the lambda-return; zeros without a mixer


def utilities(view: View, after: bool) -> Read:
    """What the agents say at every step, and with `after` at its true successor: [T, B, N, A]."""
    segment = view.batch
    build = view.learner.reads.build
    x = build(segment.obs, previous_actions(view))
    stream = Stream(x=x, keep=keep(view) if view.config.recurrent else None)
    if after:
        taken = inputs.encode(segment.action, view.spec)
        stream = stream.replace(after=build(segment.next_obs, taken))
    agent = view.learner.networks["agent"]
    return agent.unroll(view.params["agent"], segment.carry["agent"], stream)[1]


def prepare(view: View) -> Successors:
    """Successors by the parameters before an update, for all passes."""
    return successors(view, utilities(view, after=True))


def compute_values(view: View) -> Values:
    """What the losses look at; where nothing was prepared, successors by the present parameters."""
    segment = view.batch
    mixer = view.learner.mixer
    says = utilities(view, after=view.targets is None)
    later = successors(view, says) if view.targets is None else view.targets
    q_taken = take_last(says.y, segment.action)

    # of the team, if there is a mixer
    mix: Callable[[Array], Array] = no_mix
    q_tot = jnp.zeros(segment.mask.shape)
    if mixer is not None:
        q_max = masked_max(jax.lax.stop_gradient(says.y), segment.avail)
        now = MixerInputs(q_max, segment.action, segment.state)
        mix = partial(mix_with, mixer, view.params["mixer"], now)
        q_tot = mix(q_taken)
    return Values(
        q=says.y,
        q_taken=q_taken,
        next_q=later.next_q,
        q_tot=q_tot,
        next_q_tot=later.next_q_tot,
        discount=discounts(view),
        team_reward=view.spec.team_reward(segment.reward),
        mix=mix,
        next_action=later.next_action,
    )


def successors(view: View, says: Read) -> Successors:
    """What steps lead to. says: with `after`, [T, B, N, A]."""
    segment = view.batch
    mixer = view.learner.mixer
    assert says.after is not None
    next_q = masked_max(says.after, segment.next_avail)
    next_action = masked_argmax(says.after, segment.next_avail)

    # each agent's return, or the team's
    if mixer is None:
        next_q = lambda_value(view, segment.reward, next_q)
        return Successors(next_q, next_action, jnp.zeros(segment.mask.shape))
    reads = MixerInputs(next_q, next_action, segment.next_state)
    next_q_tot = mixer.apply(view.params["mixer"], next_q, reads)
    team = view.spec.team_reward(segment.reward)
    return Successors(next_q, next_action, lambda_value(view, team, next_q_tot))


def lambda_value(view: View, reward: Array, next_value: Array) -> Array:
    """What each step's successor is worth in the lambda-return, a constant.

    reward, next_value: [T, B], or of each agent [T, B, N].
    """
    end = view.batch.end
    discount = discounts(view)
    if reward.ndim > end.ndim:
        discount = jnp.broadcast_to(discount[..., None], reward.shape)
        end = jnp.broadcast_to(end[..., None], reward.shape)
    fixed = jax.lax.stop_gradient(next_value)
    return returns.lambda_successor(reward, discount, fixed, end, view.hparams["td_lambda"])

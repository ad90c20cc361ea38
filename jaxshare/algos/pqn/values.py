"""What PQN reads of a segment, and how its agents act."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

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


def utilities(view: View) -> Read:
    """What the agents say at every step, and, a constant, at its true successor: [T, B, N, A]."""
    segment = view.batch
    build = view.learner.reads.build
    stream = Stream(
        x=build(segment.obs, previous_actions(view)),
        keep=keep(view) if view.config.recurrent else None,
        after=build(segment.next_obs, inputs.encode(segment.action, view.spec)),
    )
    agent = view.learner.networks["agent"]
    return agent.unroll(view.params["agent"], segment.carry["agent"], stream)[1]


def compute_values(view: View) -> Values:
    """What the losses look at; next values are those of lambda-returns, see `lambda_value`."""
    segment = view.batch
    mixer = view.learner.mixer
    says = utilities(view)
    assert says.after is not None

    # of what was done, and of the best actions after it
    q_taken = take_last(says.y, segment.action)
    next_q = masked_max(says.after, segment.next_avail)
    next_action = masked_argmax(says.after, segment.next_avail)
    discount = discounts(view)
    team = view.spec.team_reward(segment.reward)

    # of the team, or of each agent alone
    mix: Callable[[Array], Array] = no_mix
    q_tot = jnp.zeros(segment.mask.shape)
    next_q_tot = q_tot
    if mixer is None:
        next_q = lambda_value(view, segment.reward, discount, next_q)
    else:
        q_max = masked_max(jax.lax.stop_gradient(says.y), segment.avail)
        now = MixerInputs(q_max, segment.action, segment.state)
        later = MixerInputs(next_q, next_action, segment.next_state)
        mix = partial(mix_with, mixer, view.params["mixer"], now)
        q_tot = mix(q_taken)
        next_q_tot = lambda_value(
            view, team, discount, mixer.apply(view.params["mixer"], next_q, later)
        )
    return Values(
        q=says.y,
        q_taken=q_taken,
        next_q=next_q,
        q_tot=q_tot,
        next_q_tot=next_q_tot,
        discount=discount,
        team_reward=team,
        mix=mix,
        next_action=next_action,
    )


def lambda_value(view: View, reward: Array, discount: Array, next_value: Array) -> Array:
    """What each step's successor is worth in the lambda-return, a constant, [T, B] or [T, B, N].

    reward, next_value: [T, B], or of each agent; discount: [T, B].
    """
    end = view.batch.end
    if reward.ndim > end.ndim:
        discount = jnp.broadcast_to(discount[..., None], reward.shape)
        end = jnp.broadcast_to(end[..., None], reward.shape)
    fixed = jax.lax.stop_gradient(next_value)
    return returns.lambda_successor(reward, discount, fixed, end, view.hparams["td_lambda"])

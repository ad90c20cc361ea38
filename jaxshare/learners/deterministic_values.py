"""What actors of deterministic policies would do, and what critics say of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from jaxshare.learners.packed import packable
from jaxshare.learners.records import View
from jaxshare.learners.utilities import unrolled
from jaxshare.learners.value import Values, discounts, no_mix
from jaxshare.models import inputs
from jaxshare.models.mixers import MixerInputs
from jaxshare.ops import gumbel
from jaxshare.ops.masking import NEG
from jaxshare.training import packing
from jaxshare.trees import Params
from jaxshare.types import Array, Discrete, EnvSpec

# ------------------------------------------------------------------------------------ actions


def actor_input(view: View) -> Array:
    """What the actors read, [T+1, B, N, D]."""
    batch = view.batch
    first = packing.first_slots(batch)
    previous = inputs.last_actions(batch.action, view.spec, first=first)  # no window reads it
    return view.learner.reads.build(batch.obs, previous)


def greedy_actions(spec: EnvSpec, y: Array, avail: Array) -> Array:
    """The best action of every policy, encoded: y [..., N, E], avail [..., N, A] -> [..., N, E]."""
    if isinstance(spec.action, Discrete):
        return gumbel.first_maximum(jnp.where(avail, y, NEG))
    return jnp.tanh(y)


def drawn_actions(view: View, y: Array, avail: Array) -> Array:
    """What the policies do, encoded, with a gradient.

    y [T, B, N, E], avail [T, B, N, A] -> [T, B, N, E].
    """
    if not isinstance(view.spec.action, Discrete):
        return jnp.tanh(y)
    # as whole episodes draw it, so that packing a batch keeps its draws
    batch = view.batch
    noise = gumbel.noise_per_step(view.key, packing.drawn_shape(batch, y))
    noise = packing.as_packed(batch, noise)
    soft = gumbel.relaxed(y, avail, noise, view.hparams["temperature"])
    return soft if view.config.relaxation == "soft" else gumbel.straight_through(soft)


def next_actions(view: View) -> Array:
    """Target actions of the slots after the first, [T, B, N, E]; without a key the best ones."""
    x = actor_input(view)
    # code: EPyMARL starts its target's memory at t = 1; ours: at t = 0, as the actors that played
    recurrent = view.config.recurrent
    y = unrolled(view, "actor", view.target_params, x if recurrent else x[1:])
    y = y[1:] if recurrent else y
    avail = view.batch.avail[1:]
    if view.config.target_action == "sample" and view.key is not None:
        return drawn_actions(view, y, avail)
    return greedy_actions(view.spec, y, avail)


# ------------------------------------------------------------------------------------ values


@dataclass(frozen=True)
class Actions:
    """Encoded actions [T, B, N, E] in the slots after, ..., after + T - 1.

    mine: of each critic's agent; others: of all others.
    """

    mine: Array
    others: Array
    after: int = 0


def action_values(view: View, params: Params, actions: Actions) -> Array:
    """Q_i [T, B, N] of actions by the critics of `params`."""
    batch = view.batch
    critic = view.learner.networks["critic"]
    steps = slice(actions.after, actions.after + len(actions.mine))
    reads = view.learner.critic_reads
    assert reads is not None
    x = reads(batch.obs[steps], batch.state[steps], actions.mine, actions.others)
    return critic.unroll(params["critic"], critic.initial_carry(x.shape[1]), x)[1][..., 0]


def mixed(view: View, params: Params, q: Array, after: int = 0) -> Array:
    """Q_tot [T, B] of q [T, B, N] in the slots after, ..., after + T - 1."""
    mixer = view.learner.mixer
    if mixer is None:
        return no_mix(q)
    batch = view.batch
    unread = jnp.full_like(q, jnp.nan)  # no mixer of this family looks at a maximum
    reads = MixerInputs(unread, batch.action, batch.state[after : after + len(q)])
    return mixer.apply(params["mixer"], q, reads)


@packable
def compute_values(view: View) -> Values:
    """What the critics' loss looks at: the `Values` of the value family, Q_i for utilities.

    There are no columns of actions. What is made for a mixer of utilities (differ) works on it too.
    Without a key target actions are the best ones.
    """
    batch = view.batch
    target = view.target_params
    taken = inputs.encode(batch.action, view.spec)
    later = next_actions(view)

    # Q_i of what was done, and of what would be done next
    q_taken = action_values(view, view.params, Actions(taken, taken))
    next_q = jax.lax.stop_gradient(action_values(view, target, Actions(later, later, after=1)))

    # the same of the team, if there is a mixer
    q_tot = jnp.zeros(batch.mask.shape)
    next_q_tot = jnp.zeros(batch.mask.shape)
    if view.learner.mixer is not None:
        q_tot = mixed(view, view.params, q_taken)
        next_q_tot = jax.lax.stop_gradient(mixed(view, target, next_q, after=1))
    nothing = jnp.zeros((*batch.avail.shape[:-1], 0))
    discount = discounts(view)
    team_reward = view.spec.team_reward(batch.reward)
    mix = partial(mixed, view, view.params)
    return Values(
        q=nothing,
        q_taken=q_taken,
        next_q=next_q,
        q_tot=q_tot,
        next_q_tot=next_q_tot,
        discount=discount,
        team_reward=team_reward,
        mix=mix,
        target_q=nothing,
        features=nothing,
    )

"""MACQL's P - Q: how far the values of actions that nobody took stand above those of the data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from jaxshare.learners.records import View
from jaxshare.models.mixers import MixerInputs
from jaxshare.ops import offline
from jaxshare.trees import Params
from jaxshare.types import Array


def mixed(view: View, params: Params, q: Array, state: Array) -> Array:
    """Q [..., T, B] of q [..., T, B, N], state [..., T, B, G]."""
    mixer = view.learner.mixer
    if view.config.mixer == "linear":
        return mixer.apply(params["mixer"], q, state)
    unread = jnp.full_like(q, jnp.nan)  # QMIX looks at no maximum, and at no action
    return mixer.apply(params["mixer"], q, MixerInputs(unread, unread, state))


def penalty(view: View, q: Array, q_taken: Array, q_tot: Array) -> Array:
    """P - Q of every step, [T, B]: q [T, B, N, A], q_taken [T, B, N], q_tot [T, B]."""
    batch = view.batch
    avail = batch.avail[:-1]
    state = batch.state[:-1]
    if view.config.penalty == "counterfactual":
        mix = partial(mixed, view, view.params, state=state)
        return counterfactual(mix, q, q_taken, avail) - q_tot
    weight, bias = view.learner.mixer.weights(view.params["mixer"], state)
    joint = offline.joint_excess(q, weight, avail, batch.action)
    if view.config.penalty == "printed":
        return joint + (view.spec.num_agents - 1) * bias
    return joint


def counterfactual(
    mix: Callable[[Array], Array],
    q: Array,
    q_taken: Array,
    avail: Array,
    log_density: Array | None = None,
) -> Array:
    """(1 / N) sum_i log sum_a e^Q(a, a_-i), [T, B].

    mix: over N; q and avail [T, B, N, A], q_taken [T, B, N].
    log_density: of drawn actions in the place of all, [T, B, N, A]; each counts 1 / density.
    """
    agents = q.shape[-2]

    def alone(i: Array) -> Array:
        """Agent i's sum, [T, B]; one agent at a time, as all at once are N A times the mixer."""
        mine = (jnp.arange(agents) == i)[None, None]

        def value(of_agent: Array) -> Array:
            return mix(jnp.where(mine, of_agent[..., None], q_taken))

        of_agent = jnp.take(q, i, axis=-2)  # [T, B, A]
        each = jax.vmap(value, in_axes=-1, out_axes=-1)(of_agent)
        if log_density is not None:
            each = each - jnp.take(log_density, i, axis=-2)
        return offline.masked_logsumexp(each, jnp.take(avail, i, axis=-2))

    return jax.lax.map(jax.checkpoint(alone), jnp.arange(agents)).mean(0)

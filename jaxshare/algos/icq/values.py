"""What ICQ's critic says: of all actions, of the data's, and of what the policies would do."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxshare.learners import offline as family
from jaxshare.learners.records import View
from jaxshare.learners.utilities import samples_per_step
from jaxshare.models import inputs
from jaxshare.ops import offline
from jaxshare.ops.coma import mix_all
from jaxshare.ops.masking import take_last
from jaxshare.ops.schedules import linear
from jaxshare.training import packing
from jaxshare.trees import Params
from jaxshare.types import Array, Discrete


def action_values(view: View, params: Params, action: Array | None = None) -> Array:
    """Q_i of every action in every slot, [T+1, B, N, A].

    action: encoded ones [T', B, N, U], of which Q_i in the first T' slots is given, [T', B, N].
    code: the critic reads [s, o_i, i] and has no memory. A continuous action comes after those.
    """
    batch = view.batch
    critic = view.learner.networks["critic"]
    agents = view.spec.num_agents
    slots = len(batch.obs) if action is None else len(action)
    obs = batch.obs[:slots]
    state = batch.state[:slots]
    shape = obs.shape[:3]

    # [s, o_i, i], and the action
    world = jnp.broadcast_to(state[:, :, None], (*shape, state.shape[-1]))
    index = jnp.broadcast_to(jnp.eye(agents), (*shape, agents))
    parts = [world, obs, index]
    if action is not None:
        parts.append(action)
    x = jnp.concatenate(parts, axis=-1)
    q = critic.unroll(params["critic"], critic.initial_carry(x.shape[1]), x)[1]
    return q if action is None else q[..., 0]


def log_policy(view: View, y: Array, avail: Array) -> Array:
    """log of the policy that learns, from what the actors say.

    y [..., A], avail [..., A] bool -> [..., A].
    """
    if view.config.mixture:
        h = view.hparams
        updates = view.clock.updates
        duration = h["epsilon_anneal_updates"]
        y = mix_all(y, avail, linear(h["epsilon_start"], h["epsilon_end"], updates, duration))
    return offline.log_policy(y, avail)


def of_data(view: View, params: Params) -> Array:
    """Q_i of the data's actions, [T, B, N]."""
    batch = view.batch
    if isinstance(view.spec.action, Discrete):
        return take_last(action_values(view, params)[:-1], batch.action)
    return action_values(view, params, inputs.encode(batch.action, view.spec))


def of_policies(view: View, params: Params, y: Array) -> Array:
    """The mean of Q_i under the policies in every slot, [T+1, B, N].

    y [T+1, B, N, A or U] from the actors.
    """
    if isinstance(view.spec.action, Discrete):
        probability = jnp.exp(log_policy(view, y, view.batch.avail))
        return jnp.sum(probability * action_values(view, params), axis=-1)

    # continuous: over some draws of each policy
    std = view.hparams["action_std"]
    count = view.config.filter_samples

    def draw(key: Array, y: Array) -> Array:
        return offline.noisy(key, jnp.tanh(y)[None], std, (count, *y.shape))

    drawn = samples_per_step(view, draw, y)
    return jax.vmap(lambda action: action_values(view, params, action))(drawn).mean(0)


def filter_weights(view: View, kind: str, x: Array, mask: Array, beta: Array) -> Array:
    """`offline.filter_weights` of the view's batch: x and mask [T, B, ...] -> [T, B, ...]."""
    axis = view.config.softmax_axis
    if axis != "batch" or packing.packing_in(view.batch) is None:
        return offline.filter_weights(kind, x, mask, beta, axis)
    # over the episodes at the same time, each in a row of its own
    batch = view.batch
    whole = packing.as_drawn(batch, x)
    weight = offline.filter_weights(kind, whole, packing.as_drawn(batch, mask), beta, axis)
    return jnp.where(mask > 0, packing.as_packed(batch, weight), 0.0)


def next_values(view: View) -> Array:
    """Q'_i of what the data do next, [T, B, N]; behind a time limit its mean under the policies."""
    target = view.target_params
    y = family.unrolled(view, "actor", view.params)
    expected = of_policies(view, target, y)[1:]
    taken = of_data(view, target)[1:]
    taken = jnp.concatenate([taken, expected[-1:]])  # nothing follows the last slot
    return jnp.where(family.per_agent(view, view.batch.truncated), expected, taken)

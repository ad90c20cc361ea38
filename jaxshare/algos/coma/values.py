"""What COMA's critic says of joint actions, and the policies that played."""

from __future__ import annotations

import jax.numpy as jnp

from jaxshare.learners import actor_critic_streams as streams
from jaxshare.learners import central
from jaxshare.learners.records import Settings, View
from jaxshare.models import distributions
from jaxshare.ops import coma as ops
from jaxshare.ops import pareto
from jaxshare.ops.schedules import exploration_rate
from jaxshare.trees import Tree
from jaxshare.types import Array, Context


def explore(config: Settings, y: Array, avail: Array, ctx: Context) -> Array:
    """Logits of the policy that plays.

    y [..., A], avail [..., A] bool -> [..., A]. config: COMA's settings.
    """
    epsilon = exploration_rate(ctx.hparams, ctx.env_steps, ctx.total_env_steps)
    mixed = ops.mix_uniform if config.mask_before_softmax else ops.mix_all
    return mixed(y, avail, epsilon)


def before(view: View) -> Context:
    """The context as it was when the segment was collected."""
    steps = view.batch.mask.sum().astype(jnp.int32)
    return view.ctx.replace(env_steps=view.env_steps - steps)


def played(view: View) -> distributions.Distribution:
    """The policies that played the segment, exploration at that time included."""
    avail = view.batch.avail
    y = explore(view.config, streams.actor_says(view), avail, before(view))
    return distributions.policy(y, avail, view.spec)


def action_values(view: View, params: Tree, z: Array, action: Array) -> Array:
    """Q(z, .) beside what the others did.

    z [T, B, N, D], action [T, B, N] -> [T, B, N, A]. params: the critic's.
    """
    others = pareto.others_only(action, central.num_choices("coma", view.spec))
    return central.ask(view.learner.networks["critic"], params, z, others)

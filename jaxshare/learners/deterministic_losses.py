"""Losses of critics that read actions, and of the actors that they judge."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxshare.learners.deterministic_values import (
    Actions,
    action_values,
    actor_input,
    drawn_actions,
    mixed,
)
from jaxshare.learners.packed import packable
from jaxshare.learners.records import View
from jaxshare.learners.utilities import unrolled
from jaxshare.learners.value_losses import mean_utility
from jaxshare.models import inputs
from jaxshare.ops import gumbel, returns
from jaxshare.ops.masking import masked_mean, masked_mean_square
from jaxshare.training import packing
from jaxshare.types import Array, Discrete, Metrics

# ------------------------------------------------------------------------------------ losses


@packable
def team_lambda_loss(view: View) -> tuple[Array, Metrics]:
    """The mean of (G - Q_tot)^2 over valid steps; G = `returns.td_lambda` of the target Q_tot.

    code: build_td_lambda_targets of PyMARL's COMA, on FACMAC's Q_tot.
    """
    values = view.values
    batch = view.batch
    end = packing.ends(batch)
    target = returns.td_lambda(
        values.team_reward, values.discount, values.next_q_tot, end, view.hparams["td_lambda"]
    )
    return _lambda_loss(target, values.q_tot, batch.mask)


@packable
def individual_lambda_loss(view: View) -> tuple[Array, Metrics]:
    """The same of every agent's Q_i on its own reward, a mean over agents."""
    values = view.values
    batch = view.batch

    def wide(x: Array) -> Array:
        return jnp.broadcast_to(x[..., None], values.q_taken.shape)

    end = wide(packing.ends(batch))
    target = returns.td_lambda(
        batch.reward, wide(values.discount), values.next_q, end, view.hparams["td_lambda"]
    )
    return _lambda_loss(target, values.q_taken, wide(batch.mask))


def _lambda_loss(target: Array, value: Array, mask: Array) -> tuple[Array, Metrics]:
    delta = jax.lax.stop_gradient(target) - value
    loss = masked_mean_square(delta, mask)
    return loss, {
        "loss/td": loss,
        "td_error/abs_mean": masked_mean(jnp.abs(delta), mask),
        "q/target_mean": masked_mean(target, mask),
    }


@packable
def critic_metrics(view: View, loss: Array) -> Metrics:
    """What the critics report whatever their loss [] is."""
    return {"loss/critic": loss, **mean_utility(view, loss)}


@packable
def actor_loss(whose: str, view: View) -> tuple[Array, Metrics]:
    """- mean of Q(., pi) + c mean of pi^2, over valid steps: a gradient for the actors only.

    With a mixer all policies are varied at once, Q_tot(pi_1, ..., pi_N); without, each in its own
    Q_i. whose: actions that the others take, as `Critics.others`.
    """
    batch = view.batch
    x = actor_input(view)[:-1]
    avail = batch.avail[:-1]
    y = unrolled(view, "actor", view.params, x)

    # what all do, and what each critic takes the others to do
    present = drawn_actions(view, y, avail)
    if whose == "buffer":
        others = inputs.encode(batch.action, view.spec)
    else:
        others = jax.lax.stop_gradient(present)
    q = action_values(view, view.params, Actions(present, others))

    # code: FACMAC's continuous learners and EPyMARL take the mean over padding as well
    if view.learner.mixer is None:
        best = masked_mean(q, jnp.broadcast_to(batch.mask[..., None], q.shape))
    else:
        best = masked_mean(mixed(view, view.params, q), batch.mask)
    if isinstance(view.spec.action, Discrete):
        size = gumbel.mean_square_logit(y, avail, batch.mask)
    else:
        each = jnp.broadcast_to(batch.mask[..., None, None], present.shape)
        size = masked_mean(jnp.square(present), each)
    loss = -best + view.hparams["action_reg"] * size
    return loss, {"loss/actor": loss, "q/policy_mean": best, "policy/mean_square": size}

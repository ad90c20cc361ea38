"""Losses of the value family, and what it reports."""

from __future__ import annotations

import jax.numpy as jnp

from jaxshare.learners.packed import packable
from jaxshare.learners.records import View
from jaxshare.ops import td
from jaxshare.ops.masking import (
    masked_mean,
    masked_mean_square,
)
from jaxshare.types import Array, Metrics

# ------------------------------------------------------------------------------------ losses


@packable
def team_td_loss(view: View) -> tuple[Array, Metrics]:
    """sum m delta^2 / sum m with delta = R + discount * Q_tot' - Q_tot (Rashid et al. 2018, eq. 6,
    as a mean).
    """
    values = view.values
    mask = view.batch.mask
    delta = td.td_error(values.team_reward, values.discount, values.next_q_tot, values.q_tot)
    loss = masked_mean_square(delta, mask)
    target = values.team_reward + values.discount * values.next_q_tot

    # means over valid steps
    error_mean = masked_mean(jnp.abs(delta), mask)
    tot_mean = masked_mean(values.q_tot, mask)
    target_mean = masked_mean(target, mask)
    return loss, {
        "loss/td": loss,
        "td_error/abs_mean": error_mean,
        "q/tot_mean": tot_mean,
        "q/target_mean": target_mean,
    }


@packable
def individual_td_loss(view: View) -> tuple[Array, Metrics]:
    """sum m (Q_i - y_i)^2 / (N sum m): every agent alone, on its own reward (the team's, if rewards
    are common).
    """
    values = view.values
    batch = view.batch
    shape = values.q_taken.shape
    discount = jnp.broadcast_to(values.discount[..., None], shape)
    mask = jnp.broadcast_to(batch.mask[..., None], shape)
    delta = td.td_error(batch.reward, discount, values.next_q, values.q_taken)
    loss = masked_mean_square(delta, mask)

    # means over valid steps and agents
    error_mean = masked_mean(jnp.abs(delta), mask)
    target = batch.reward + discount * values.next_q
    target_mean = masked_mean(target, mask)
    return loss, {"loss/td": loss, "td_error/abs_mean": error_mean, "q/target_mean": target_mean}


FAMILY_LOSSES = (team_td_loss, individual_td_loss)


@packable
def mean_utility(view: View, loss: Array) -> Metrics:
    """The mean utility [] of what was done, which every learner of the family reports."""
    q = view.values.q_taken
    return {"q/taken_mean": masked_mean(q, jnp.broadcast_to(view.batch.mask[..., None], q.shape))}


def taken_utilities(view: View) -> dict[str, Array]:
    """Utilities of what was done, [T, B, N], for people to look at."""
    return {"q_taken": view.values.q_taken}

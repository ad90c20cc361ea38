"""WQMIX: weighted QMIX, optimistic or central (Rashid et al. 2020, NeurIPS, arXiv 2006.10800).

QMIX fits the best monotone function to all joint actions alike, and may so lose the best one. Here
a second value Q*, mixed without the restriction, says what joint actions are worth, and QMIX is
fitted with less weight on the bad ones:

    y = R + discount Q*'(s', tau', u'),   u' = everybody's greedy action                   (eq. 5)
    L = mean[w (y - Q_tot)^2] + mean[(y - Q*)^2]                                      (eqs. 6 and 7)

    weighting=optimistic (OW-QMIX):  w = 1 where Q_tot < y, else alpha                       (eq. 8)
    weighting=central (CW-QMIX):     w = 1 where y > Q*'(s, tau, u*) or u = u*, else alpha   (eq. 9)

u* are the greedy actions now. Q* is made of utilities of their own, Q*_i(tau_i, u_i), one network
as the agents', and a feed-forward mixer of three layers. Nobody acts by it. With modifiers=[differ]
it is refused: its loss is its own.

Departures: paper: alpha is 0.5 (OW) and 0.75 (CW) in SMAC, 0.1 in predator-prey; code: 0.1 in its
file, 0.5 in its README. code and ours: the comparison of eq. 9 is with the Q* of the targets.
Not done: the attention of its `central_mixer=atten`, which the paper uses on one map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxshare.algos.wqmix.central import central_mixer
from jaxshare.learners.learner import Learner
from jaxshare.learners.packed import packable
from jaxshare.learners.records import View
from jaxshare.learners.utilities import agent_inputs, agent_network, unrolled
from jaxshare.learners.value import monotone_mixer, value_learner
from jaxshare.learners.value_settings import ValueConfig, ValueHParams
from jaxshare.models.mixers import MixerInputs
from jaxshare.ops.masking import masked_argmax, masked_mean, masked_mean_square, take_last
from jaxshare.settings.fields import default, nested, size, static, swept
from jaxshare.settings.shared import HyperNetwork
from jaxshare.trees import Params
from jaxshare.types import Array, EnvSpec, Metrics

CODE = "code: WQMIX's cw_qmix.yaml"


@dataclass(frozen=True)
class HParams(ValueHParams):
    """Swept scalars of the value family, and the weight."""

    alpha: float = swept(
        0.5,
        least=0,
        most=1,
        help="weight of joint actions that are not worth more than thought",
        source="paper: WQMIX, OW in SMAC; CW 0.75, both 0.1 in predator-prey",
    )


@dataclass(frozen=True)
class Config(HyperNetwork, ValueConfig):
    """Settings of the value family, of QMIX's mixer, and of Q*."""

    embed_dim: int = default(32, CODE)
    weighting: str = static(
        "optimistic",
        choices=("optimistic", "central"),
        help="whose weights: OW-QMIX's (optimistic), or CW-QMIX's (central)",
        source="paper: WQMIX has both",
    )
    central_dim: int = size(256, help="units of the layers of Q*'s mixer", source=CODE)
    hparams: HParams = nested(HParams)


def make(config: Config, spec: EnvSpec) -> Learner:
    """QMIX with a second value of the team beside it."""
    learner = value_learner("wqmix", config, spec, monotone_mixer(config, spec), loss)
    central = {
        "central": agent_network("wqmix", config, spec),
        "central_mixer": central_mixer(spec.num_agents, spec.state_dim, config.central_dim),
    }
    return learner.extend(networks=central)


class Central(NamedTuple):
    """What Q* says: [T, B] of what was done, and of the greedy actions now; target: y."""

    taken: Array
    best: Array
    target: Array


def central_values(view: View) -> Central:
    """Q* of what was done, with a gradient; Q*' of the greedy actions and the target, constants."""
    batch = view.batch
    values = view.values
    x = agent_inputs(view)
    q = unrolled(view, "central", view.params, x)
    slow = jax.lax.stop_gradient(unrolled(view, "central", view.target_params, x))
    next_q = take_last(slow[1:], values.next_action)
    best_q = take_last(slow[:-1], greedy_actions(view))
    next_value = mixed(view, view.target_params, next_q, batch.state[1:])
    target = values.team_reward + values.discount * next_value

    # of the team: with a gradient for what was done only
    now = batch.state[:-1]
    taken = mixed(view, view.params, take_last(q[:-1], batch.action), now)
    best = jax.lax.stop_gradient(mixed(view, view.target_params, best_q, now))
    return Central(taken=taken, best=best, target=jax.lax.stop_gradient(target))


def greedy_actions(view: View) -> Array:
    """Everybody's greedy action now, [T, B, N], chosen as those of the next step are."""
    values = view.values
    q = values.q if view.config.double_q else values.target_q
    return masked_argmax(jax.lax.stop_gradient(q)[:-1], view.batch.avail[:-1])


def mixed(view: View, params: Params, q: Array, state: Array) -> Array:
    """Q* [T, B] of utilities [T, B, N]; its mixer reads no maxima and no actions."""
    unread = jnp.full_like(q, jnp.nan)
    mixer = view.learner.networks["central_mixer"]
    return mixer.apply(params["central_mixer"], q, MixerInputs(unread, unread, state))


def weights(view: View, central: Central) -> Array:
    """w of every step, [T, B]."""
    if view.config.weighting == "optimistic":
        good = view.values.q_tot < central.target
    else:
        is_best = jnp.all(view.batch.action == greedy_actions(view), axis=-1)
        good = is_best | (central.target > central.best)
    return jnp.where(good, 1.0, view.hparams["alpha"])


@packable
def loss(view: View) -> tuple[Array, Metrics]:
    """The weighted error of Q_tot and the error of Q*, on the same targets."""
    values = view.values
    mask = view.batch.mask
    central = central_values(view)
    weight = jax.lax.stop_gradient(weights(view, central))
    delta = central.target - values.q_tot
    monotone = masked_mean(weight * jnp.square(jnp.where(mask > 0, delta, 0.0)), mask)
    error = masked_mean_square(central.target - central.taken, mask)

    # means over valid steps
    size = masked_mean(jnp.abs(delta), mask)
    total = monotone + error
    tot_mean = masked_mean(values.q_tot, mask)
    central_mean = masked_mean(central.taken, mask)
    target_mean = masked_mean(central.target, mask)
    weight_mean = masked_mean(weight, mask)
    return total, {
        "loss/td": monotone,
        "loss/central": error,
        "td_error/abs_mean": size,
        "q/tot_mean": tot_mean,
        "q/central_mean": central_mean,
        "q/target_mean": target_mean,
        "wqmix/weight_mean": weight_mean,
    }

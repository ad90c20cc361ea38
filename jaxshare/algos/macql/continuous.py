"""MACQL with continuous actions: sums over actions are integrals, the best action is an actor's.

    y = R + discount Q'(tau', pi'(tau'))
    L = mean[(y - Q)^2] / 2 + beta mean[P - Q(tau, a)]                                     (eq. 13)
    P of penalty=joint: sum_i log of the integral of e^(w_i Q_i(u)) over u + b
    L(pi) = - mean Q_i(tau_i, pi_i(tau_i)) over agents and valid steps, the utilities constant

The integral over the box [-1, 1]^U is estimated from actions u_k and their densities p_k:

    log of the integral of e^f = log mean_k e^(f(u_k) - log p_k)                   (CQL, appendix F)

`action_samples` each of the uniform distribution, of N(pi_i(tau_i), s^2), and of N(pi_i(tau_i'),
s^2), cut off at the bounds (ops/offline.py). printed and counterfactual differ from joint as with
discrete actions.

Departures. paper: eq. 13 is printed for discrete actions, and the text says no more of continuous
ones; ours: integrals and actors as in CQL (Kumar et al. 2020), actors that are deterministic, as
FACMAC's are.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from jaxshare.algos.macql.penalty import counterfactual, mixed
from jaxshare.learners import action_utilities as utilities
from jaxshare.learners import offline as family
from jaxshare.learners.packed import packable
from jaxshare.learners.records import View
from jaxshare.learners.utilities import three_ways_per_step
from jaxshare.models import inputs
from jaxshare.ops import offline
from jaxshare.ops.masking import masked_mean, masked_mean_square
from jaxshare.types import Array, Metrics


@packable
def loss(view: View) -> tuple[Array, Metrics]:
    """Eq. 13."""
    batch = view.batch
    target = view.target_params
    e = utilities.features(view, view.params)
    slow_e = jax.lax.stop_gradient(utilities.features(view, target))

    # what the target's actors do next
    later = jnp.tanh(family.unrolled(view, "actor", target)[1:])
    next_q = jax.lax.stop_gradient(utilities.values(view, target, slow_e[1:], later))
    next_value = mixed(view, target, next_q, batch.state[1:])
    target_of = family.one_step_target
    if view.config.target == "td_lambda":
        target_of = family.lambda_target
    y = target_of(view, next_value)

    # the error, and the price of what the data do not have
    taken = inputs.encode(batch.action, view.spec)
    q_taken = utilities.values(view, view.params, e[:-1], taken)
    q_tot = mixed(view, view.params, q_taken, batch.state[:-1])
    drawn, density = candidates(view)
    q = utilities.values_of_each(view, view.params, e[:-1], drawn)
    price = masked_mean(penalty(view, (q, density), q_taken, q_tot), batch.mask)
    error = masked_mean_square(y - q_tot, batch.mask)
    total = 0.5 * error + view.hparams["beta"] * price
    metrics = family.td_metrics(view, y, q_tot, q_taken)
    return total, {"loss/td": error, "loss/conservative": price, **metrics}


def candidates(view: View) -> tuple[Array, Array]:
    """Actions of the three distributions and their log densities, constants.

    [K, T, B, N, U] and [K, T, B, N].
    """
    mean = jnp.tanh(family.unrolled(view, "actor", view.params))
    return three_ways_per_step(view, mean, view.hparams["action_std"], view.config.action_samples)


def penalty(view: View, drawn: tuple[Array, Array], q_taken: Array, q_tot: Array) -> Array:
    """P - Q of every step, [T, B].

    drawn: Q_i of drawn actions and their log densities, [K, T, B, N] each; q_taken [T, B, N],
    q_tot [T, B].
    """
    q, density = drawn
    state = view.batch.state[:-1]
    if view.config.penalty == "counterfactual":
        # an integral is a sum over samples, each of which stands for 1 / (K p) of the box
        each = jnp.moveaxis(q, 0, -1)
        share = jnp.moveaxis(density, 0, -1) + jnp.log(len(q))
        mix = partial(mixed, view, view.params, state=state)
        every = jnp.ones_like(each, bool)
        return counterfactual(mix, each, q_taken, every, share) - q_tot
    weight, bias = view.learner.mixer.weights(view.params["mixer"], state)
    integral = offline.log_integral(weight[None] * q, density)
    joint = (integral - weight * q_taken).sum(-1)
    if view.config.penalty == "printed":
        return joint + (view.spec.num_agents - 1) * bias
    return joint


@packable
def actor_loss(view: View) -> tuple[Array, Metrics]:
    """- mean Q_i(tau_i, pi_i(tau_i)) over valid steps and agents, a gradient for pi only."""
    e = jax.lax.stop_gradient(utilities.features(view, view.params)[:-1])
    action = jnp.tanh(family.unrolled(view, "actor", view.params)[:-1])
    q = utilities.values(view, view.params, e, action)
    value = masked_mean(q, family.per_agent(view, view.batch.mask))
    return -value, {"loss/actor": -value}

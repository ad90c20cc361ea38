"""MABCQ with continuous actions: drawn from the behaviour, and changed a little (eq. 12).

    mu_i = N(tanh m_i(tau_i), s^2) by behaviour cloning (eq. 11), cut off at the box [-1, 1]
    a_i^[j] ~ mu_i, j = 1 … m;   a~_i^[j] = a_i^[j] + xi_i(tau_i, a_i^[j]),   |xi_i| <= Phi
    A_i = {a~_i^[j]: mu_i(a_i^[j]) / max_j mu_i(a_i^[j]) > zeta}
    y = R + discount Q'(tau', argmax over A_1 x … x A_N),   the target's xi and samples of mu
    L(xi) = - mean Q_i(tau_i, a~_i^[j]) over agents, samples and valid steps, the utilities constant

The agents act by the best of m samples too. Phi, m and L(xi) are those of BCQ (Fujimoto et al.
2019, https://arxiv.org/abs/1812.02900).

Departures. paper: says xi and no more of it; ours: as in BCQ. code: BCQ draws from a variational
autoencoder and has two critics; paper: SIT has the policies of behaviour cloning and one Q. code:
BCQ acts by the best of 100, and learns by that of 10.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxshare.learners import action_utilities as utilities
from jaxshare.learners import offline as family
from jaxshare.learners.packed import packable
from jaxshare.learners.records import Acting, Chosen, Policy, View
from jaxshare.learners.utilities import samples_per_step
from jaxshare.models import inputs
from jaxshare.models.agents import AgentNetwork
from jaxshare.models.offline import LinearMixer
from jaxshare.ops import offline
from jaxshare.ops.masking import masked_argmax, masked_mean, masked_mean_square, take_last
from jaxshare.trees import Tree
from jaxshare.types import Array, Box, HParams, Metrics


def candidates(key: Array, mean: Array, hparams: HParams, samples: int) -> tuple[Array, Array]:
    """Actions drawn from mu_i, and which of them are familiar.

    key [], mean [..., U] in the box -> a^[j] [m, ..., U], bool [m, ...].
    """
    std = hparams["action_std"]
    wide = jnp.broadcast_to(mean[None], (samples, *mean.shape))
    drawn = offline.noisy(key, wide, std)
    log_mu = offline.log_density(drawn, wide, std)

    # the likeliest of those that were drawn is always one of them
    last = jnp.moveaxis(log_mu, 0, -1)
    allowed = offline.familiar(last, jnp.ones_like(last, bool), hparams["zeta"])
    return drawn, jnp.moveaxis(allowed, -1, 0)


def perturbed(network: AgentNetwork, params: Tree, e: Array, drawn: Array, most: Array) -> Array:
    """a + xi(tau, a) in the box.

    e [T, B, N, H], drawn [m, T, B, N, U], most: Phi, [] -> [m, T, B, N, U].
    """

    def change(action: Array) -> Array:
        return most * jnp.tanh(utilities.says(network, params, e, action))

    return jnp.clip(drawn + jax.vmap(change)(drawn), -1.0, 1.0)


def drawn_per_step(view: View, mean: Array) -> tuple[Array, Array]:
    """`candidates` of all steps with a key for each.

    mean [T, B, N, U] -> [m, T, B, N, U], bool [m, T, B, N].
    """

    def draw(key: Array, mean: Array) -> tuple[Array, Array]:
        return candidates(key, mean, view.hparams, view.config.action_samples)

    drawn: tuple[Array, Array] = samples_per_step(view, draw, mean)
    return drawn


def behaviour(view: View) -> Array:
    """Means of mu_i in every slot, a constant, [T+1, B, N, U]."""
    return jnp.tanh(jax.lax.stop_gradient(family.unrolled(view, "behaviour", view.params)))


@packable
def loss(view: View) -> tuple[Array, Metrics]:
    """Eq. 12."""
    batch = view.batch
    target = view.target_params
    mixer: LinearMixer = view.learner.mixer
    e = utilities.features(view, view.params)
    slow_e = jax.lax.stop_gradient(utilities.features(view, target))

    # what the data's agents would do next, changed a little by the target's perturbation
    drawn, allowed = drawn_per_step(view, behaviour(view)[1:])
    network = view.learner.networks["perturbation"]
    most = view.hparams["perturbation"]
    actions = perturbed(network, target["perturbation"], slow_e[1:], drawn, most)
    actions = jax.lax.stop_gradient(actions)
    slow_q = utilities.values_of_each(view, target, slow_e[1:], actions)
    slow_q = jnp.moveaxis(jax.lax.stop_gradient(slow_q), 0, -1)  # [T, B, N, m]

    # the best of them
    chooser = slow_q
    if view.config.double_q:
        online = utilities.values_of_each(view, view.params, e[1:], actions)
        chooser = jnp.moveaxis(jax.lax.stop_gradient(online), 0, -1)
    among = jnp.moveaxis(allowed, 0, -1)
    next_q = take_last(slow_q, masked_argmax(chooser, among))
    next_value = mixer.apply(target["mixer"], next_q, batch.state[1:])
    y = family.one_step_target(view, next_value)

    taken = inputs.encode(batch.action, view.spec)
    q_taken = utilities.values(view, view.params, e[:-1], taken)
    q_tot = mixer.apply(view.params["mixer"], q_taken, batch.state[:-1])
    error = masked_mean_square(y - q_tot, batch.mask)
    metrics = family.td_metrics(view, y, q_tot, q_taken)
    share = masked_mean(among.mean(-1), family.per_agent(view, batch.mask))
    return error, {"loss/td": error, **metrics, "behaviour/allowed": share}


@packable
def perturbation_loss(view: View) -> tuple[Array, Metrics]:
    """- mean Q_i(tau_i, a~_i) over valid steps, agents and samples, a gradient for xi only."""
    batch = view.batch
    e = jax.lax.stop_gradient(utilities.features(view, view.params)[:-1])
    drawn, _ = drawn_per_step(view, behaviour(view)[:-1])
    network = view.learner.networks["perturbation"]
    most = view.hparams["perturbation"]
    actions = perturbed(network, view.params["perturbation"], e, drawn, most)
    q = utilities.values_of_each(view, view.params, e, actions).mean(0)
    value = masked_mean(q, family.per_agent(view, batch.mask))
    change = jnp.abs(actions - drawn).mean((0, -1))
    size = masked_mean(change, family.per_agent(view, batch.mask))
    return -value, {"loss/perturbation": -value, "perturbation/size": size}


def choose(acting: Acting) -> Chosen:
    """The best of m familiar actions, also where others would explore: [B, N, U] in the box."""
    learner = acting.learner
    params = acting.params
    hparams = acting.ctx.hparams
    memory, e = utilities.features_now(acting)
    cloned, y = learner.networks["behaviour"].unroll(
        params["behaviour"], acting.memory["behaviour"], acting.x
    )

    # drawn from the behaviour, changed a little, judged
    mean = jnp.tanh(y[0])
    drawn, allowed = candidates(acting.key, mean, hparams, learner.config.action_samples)
    network = learner.networks["perturbation"]
    actions = perturbed(
        network, params["perturbation"], e[None], drawn[:, None], hparams["perturbation"]
    )
    utility = learner.networks["utility"]

    def value(action: Array) -> Array:
        return utilities.says(utility, params["utility"], e[None], action)[0, ..., 0]

    q = jnp.moveaxis(jax.vmap(value)(actions), 0, -1)  # [B, N, m]
    best = masked_argmax(q, jnp.moveaxis(allowed, 0, -1))
    among = jnp.moveaxis(actions[:, 0], 0, -2)  # [B, N, m, U]
    action = jnp.take_along_axis(among, best[..., None, None], axis=-2)[..., 0, :]
    box = learner.spec.action
    assert isinstance(box, Box)
    return Chosen(inputs.decode(action, box), {"agent": memory, "behaviour": cloned})


POLICY = Policy(networks=("agent", "behaviour"), choose=choose)

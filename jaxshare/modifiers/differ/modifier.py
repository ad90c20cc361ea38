"""DIFFER: individual rewards out of a team reward, and fair replay of individual experience.

Hu et al. 2023, "DIFFER: Decomposing Individual Reward for Fair Experience Replay in Multi-Agent
Reinforcement Learning" (NeurIPS 2023). For any learner with a mixer. With delta the team TD error
and g_i = dQ_tot/dQ_i:

    mixer:   L(theta_m) = sum_j m_j delta_j^2 / sum m                                        (eq. 6)
    agents:  L(theta_p) = sum_j w_j m_j (sg(Q_j + g_j delta) - Q_j)^2 / sum_j m_j            (eq. 7)

where j runs over individual transitions and w_j is the selection weight (n P_j draws, times
omega_j). The agents' loss uses the identity r_i + gamma Q_i' - Q_i = g_i delta (ops/differ.py).
With select=all, g_clamp=null, alive_mask=false and normaliser=team the gradients are those of the
base learner exactly ("QMIX-divide", sec. 3.1).

Departures: code: g is the ratio of two gradients with + 1e-8, ours: one vector-Jacobian product
through the mixer.
paper: losses are sums, code and ours: means. code: two of three PER modes cannot run; `per` is its
PER_weight. Not done: the legacy sum-tree loop of the released code.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import struct

from jaxshare.learners.learner import Learner, offers
from jaxshare.learners.lives import died, living
from jaxshare.learners.packed import packable
from jaxshare.learners.records import View
from jaxshare.learners.value import Values
from jaxshare.modifiers.differ.settings import Config
from jaxshare.ops import differ, td
from jaxshare.ops.masking import masked_mean, masked_mean_square, masked_sum
from jaxshare.ops.schedules import linear
from jaxshare.settings.fields import swept_values
from jaxshare.training import packing, sum_tree
from jaxshare.types import Array, EnvSpec, Episode, Metrics, RefusedError


def make(config: Config, learner: Learner) -> Learner:
    """Replace the loss and the optimiser groups of a learner.

    Raises RefusedError if it has no mixer.
    """
    if "mixer" not in offers(learner):
        raise RefusedError(
            f"modifiers=[differ] cannot be used with algo={learner.name}: it has no mixer of "
            "utilities, so there is no dQ_tot/dQ_i to share the team reward by. Use it with an "
            "algorithm that has one, such as vdn or qmix."
        )
    assert learner.utilities is not None

    # the mixer and the agents learn apart, each by an optimiser of its own
    learner = learner.claim(
        "differ",
        loss=partial(loss, config),
        optimizer_groups={"agent": (learner.utilities,), "mixer": ("mixer",)},
        rest="modules",
    )
    hparams = {f"differ.{name}": value for name, value in swept_values(config).items()}
    return learner.extend(inspect=partial(individual_rewards, config), hparams=hparams)


def schedule(view: View) -> tuple[Array, Array]:
    """(eta, beta) at this environment step: eq. 5 and the linear IS exponent of the code."""
    h = view.hparams
    total = jnp.float32(view.ctx.total_env_steps)
    portion = h["differ.eta_portion"] * total
    eta = linear(h["differ.eta_start"], h["differ.eta_end"], view.env_steps, portion)
    return eta, linear(h["differ.beta_start"], h["differ.beta_end"], view.env_steps, total)


@packable
def loss(config: Config, view: View) -> tuple[Array, Metrics]:
    """L(theta_m) + L(theta_p), block-separable by stop-gradients.

    One backward pass, two optimiser groups.
    """
    values = view.values
    batch = view.batch
    delta, gradient = _decompose(config, values)

    # the mixer learns from the team's error
    mixer_loss = masked_mean_square(delta, batch.mask)

    # the agents learn from their shares of it, those that are selected
    fixed = jax.lax.stop_gradient(delta)
    error = gradient * fixed[..., None]
    step_mask = batch.mask[..., None]
    alive = living(batch) if config.alive_mask else jnp.ones_like(error)
    mask = step_mask * alive
    weight, count = jax.lax.stop_gradient(selected(config, view, jnp.abs(error), mask))
    target = jax.lax.stop_gradient(values.q_taken) + error
    valid = jnp.sum(mask if config.normaliser == "individual" else batch.mask)
    square = jnp.square(jnp.where(mask > 0, target - values.q_taken, 0.0))
    agent_loss = masked_sum(weight * square, mask) / jnp.maximum(valid, 1.0)

    # what is minimised
    tensors = jax.tree.leaves(view.params[view.learner.utilities or ""])
    l1_norm = sum(jnp.sum(jnp.abs(p)) for p in tensors)
    total = mixer_loss + agent_loss + view.hparams["differ.l1_coef"] * l1_norm

    # what is reported
    eta, beta = schedule(view)
    team_target = values.team_reward + values.discount * values.next_q_tot
    reward = _reward(values, batch, fixed, gradient)
    error_mean = masked_mean(jnp.abs(delta), batch.mask)
    target_mean = masked_mean(team_target, batch.mask)
    tot_mean = masked_mean(team_target - delta, batch.mask)
    metrics: Metrics = {
        "loss/td": mixer_loss,
        "loss/individual": agent_loss,
        "td_error/abs_mean": error_mean,
        "q/target_mean": target_mean,
        "q/tot_mean": tot_mean,
    }
    weight_mean = masked_mean(weight, mask)
    distinct = masked_mean((count > 0).astype(jnp.float32), mask)
    metrics |= {
        "differ/eta": eta,
        "differ/beta": beta,
        "differ/weight_mean": weight_mean,
        "differ/distinct": distinct,
        "differ/clamped": _clamped(config, gradient, mask),
    }
    shared = Shared(reward, error, weight, count, mask)
    return total, {**metrics, **_spread_metrics(view.spec, shared)}


def _decompose(config: Config, values: Values) -> tuple[Array, Array]:
    """delta [T, B], with a gradient for the mixer only, and g [T, B, N], a constant dQ_tot/dQ_i."""
    q_tot, pullback = jax.vjp(values.mix, jax.lax.stop_gradient(values.q_taken))
    gradient = jax.lax.stop_gradient(pullback(jnp.ones_like(q_tot))[0])
    if config.g_clamp is not None:
        gradient = jnp.clip(gradient, -config.g_clamp, config.g_clamp)
    return td.td_error(values.team_reward, values.discount, values.next_q_tot, q_tot), gradient


def selected(config: Config, view: View, abs_error: Array, mask: Array) -> tuple[Array, Array]:
    """`select` of the view's batch, [T, B, N] twice; what is drawn is drawn of whole episodes."""
    batch = view.batch
    if config.select != "per" or packing.packing_in(batch) is None:
        return select(config, view, abs_error, mask)
    whole = packing.as_drawn(batch, mask)
    weight, count = select(config, view, packing.as_drawn(batch, abs_error), whole)
    real = mask > 0
    weight = jnp.where(real, packing.as_packed(batch, weight), 0.0)
    return weight, jnp.where(real, packing.as_packed(batch, count), 0.0)


def select(config: Config, view: View, abs_error: Array, mask: Array) -> tuple[Array, Array]:
    """Selection weight w_j and number of draws of each individual transition, both [T, B, N].

    With per_expected the number of draws is the expected one.
    """
    h = view.hparams
    eta, beta = schedule(view)
    num = differ.num_selected(eta, jnp.sum(mask))
    if config.select == "all":
        return mask, mask
    if config.select in ("greedy", "greedy_weight"):
        weight = differ.greedy_weights(
            abs_error, mask, num, weighted=config.select == "greedy_weight"
        )
        return weight, (weight > 0).astype(jnp.float32)
    probability = differ.priorities(abs_error, mask, h["differ.alpha"], h["differ.epsilon_p"])
    if config.select == "per_expected":
        count = num * probability
    else:
        tree = sum_tree.build(probability.size, probability.ravel())
        # not stratified: strata come in order, so keeping the first n draws would drop the last
        # transitions
        index = sum_tree.sample(tree, view.key, probability.size, stratified=False)
        count = differ.draw_counts(index, num, probability.size).reshape(probability.shape)
    return count * differ.importance(probability, mask, beta), count


def _reward(values: Values, batch: Episode, delta: Array, gradient: Array) -> Array:
    """r_i of eq. 2, [T, B, N], for people to look at.

    code: only d_i ends the bootstrap; ours: the team's end as well, as in the team target.
    """
    discount = jnp.where(
        died(batch), 0.0, jnp.broadcast_to(values.discount[..., None], gradient.shape)
    )
    reward = differ.individual_reward(delta, gradient, values.q_taken, values.next_q, discount)
    return jax.lax.stop_gradient(reward)


def _clamped(config: Config, gradient: Array, mask: Array) -> Array:
    limit = jnp.inf if config.g_clamp is None else config.g_clamp
    return masked_mean((jnp.abs(gradient) >= limit).astype(jnp.float32), mask)


def individual_rewards(config: Config, view: View) -> dict[str, Array]:
    """What each agent is paid, [T, B, N]."""
    delta, gradient = _decompose(config, view.values)
    return {"individual_reward": _reward(view.values, view.batch, delta, gradient)}


class Shared(struct.PyTreeNode):
    """What agents got of a batch, [T, B, N] each."""

    reward: Array
    error: Array
    weight: Array  # of the selection
    count: Array  # draws, or expected draws
    mask: Array


def _spread_metrics(spec: EnvSpec, got: Shared) -> Metrics:
    """Mean reward, spread of |delta_i| (Fig. 9), sampled share (Fig. 12), effective sample size.

    Per agent and per type. ours: the rate, draws for each valid transition, 1 on average; the share
    is larger for those that live longer.
    """
    mask = got.mask

    def by_agent(fn: Callable[..., Array], x: Array) -> Array:
        return jax.vmap(fn, in_axes=-1)(x, mask)

    # of each agent
    draws = jnp.maximum(masked_sum(got.count, mask), 1e-9)
    mean_count = jnp.maximum(masked_mean(got.count, mask), 1e-9)
    share = by_agent(masked_sum, got.count) / draws
    rate = by_agent(masked_mean, got.count) / mean_count
    reward = by_agent(masked_mean, got.reward)
    td_spread = by_agent(differ.coefficient_of_variation, got.error)
    ess = by_agent(differ.effective_sample_size, got.weight)
    per_agent = {
        "reward": reward,
        "td_spread": td_spread,
        "share": share,
        "rate": rate,
        "ess": ess,
    }

    # of all, of each agent, and of each type
    metrics: Metrics = {}
    metrics["differ/reward"] = masked_mean(got.reward, mask)
    metrics["differ/td_spread"] = differ.coefficient_of_variation(got.error, mask)
    metrics["differ/ess"] = differ.effective_sample_size(got.weight, mask)
    for name, value in per_agent.items():
        metrics.update({f"differ/{name}/agent_{i}": value[i] for i in range(spec.num_agents)})
        for group, label in enumerate(spec.group_names):
            members = jnp.array([i for i, g in enumerate(spec.groups) if g == group])
            metrics[f"differ/{name}/type_{label}"] = jnp.mean(value[members])
    return metrics

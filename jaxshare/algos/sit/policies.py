"""SIT's last stage: critics with a view of all agents, and conservative actors."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from jaxshare.algos.sit import equations
from jaxshare.algos.sit.sets import Sets
from jaxshare.algos.sit.trajectories import Individual, Prepared, question
from jaxshare.learners import optimisers
from jaxshare.learners.records import Acting, Chosen, View
from jaxshare.models import inputs
from jaxshare.ops import offline
from jaxshare.ops.masking import NEG, masked_argmax, masked_mean, take_last
from jaxshare.trees import Tree
from jaxshare.types import Array, Box, Discrete, LearnerState, Metrics

# ------------------------------------------------------------------------------------ critics


def critic_loss(sets: Sets, view: View) -> tuple[Array, Metrics]:
    """The sum over parameter sets of eq. 9."""
    prepared: Prepared = view.targets
    trajectory = prepared.trajectory
    steps = trajectory.mask.shape[0]
    asked = question(trajectory, slice(0, steps), trajectory.encoded[..., None, :])
    q = sets.judge(view.params["critic"], asked)[..., 0]

    # the error of each parameter set
    following = jax.lax.stop_gradient(next_values(sets, view))
    target = trajectory.reward + trajectory.discount * following
    of_sets = jax.vmap(equations.critic_loss, in_axes=-1)
    loss = of_sets(q, target, prepared.weight, trajectory.mask).sum()
    mask = trajectory.mask
    weight_max = jnp.max(prepared.weight * mask)
    loss_mean = loss / sets.num_sets
    stage = jnp.float32(3)
    reward_mean = masked_mean(trajectory.reward, mask)
    uncertainty_mean = masked_mean(trajectory.uncertainty, mask)
    metrics = {
        "loss/critic": loss_mean,
        "sit/stage": stage,
        "sit/reward_mean": reward_mean,
        "sit/uncertainty_mean": uncertainty_mean,
        "q/taken_mean": masked_mean(q, mask),
        "sit/weight_max": weight_max,
    }
    return loss, {**metrics, **_buffer_metrics(sets, view)}


def _buffer_metrics(sets: Sets, view: View) -> Metrics:
    metrics: Metrics = {}
    for what in ("ess", "alpha"):
        for k, name in enumerate(sets.names):
            metrics[f"sit/{what}/type_{name}".lower()] = view.tables[what][k]
    return metrics


def next_values(sets: Sets, view: View) -> Array:
    """Q'(tau', a', o') of the data's next action, [T, B, S].

    Where an episode is cut it is the mean under the policy. An episode is cut once, so that only
    one slot of it needs all actions.
    """
    trajectory: Individual = view.targets.trajectory
    y = jax.lax.stop_gradient(view.targets.y)
    target = view.target_params["critic"]
    steps = trajectory.mask.shape[0]
    asked = question(trajectory, slice(1, steps), trajectory.encoded[1:, ..., None, :])
    inner = sets.judge(target, asked)[..., 0]
    inner = jnp.concatenate([inner, jnp.zeros_like(trajectory.mask[:1])])
    at = 1 + jnp.argmax(trajectory.cut, axis=0)  # [B, S] slot after the cut

    def slot(x: Array) -> Array:
        index = at.reshape(1, *at.shape, *(1,) * (x.ndim - 3))
        return jnp.take_along_axis(x, index, axis=0)

    last = trajectory.replace(
        history=slot(trajectory.history),
        obs=slot(trajectory.obs),
        avail=slot(trajectory.avail),
    )
    after = policy_values(sets, view, target, last, slot(y))
    return jnp.where(trajectory.cut, after, inner)


def policy_values(sets: Sets, view: View, params: Tree, trajectory: Individual, y: Array) -> Array:
    """sum_a pi(a) Q(a) in the first slots, [T', B, S].

    Over drawn actions where they are continuous. y [T', B, S, .] from the actors.
    """
    slots = slice(0, len(y))
    if isinstance(view.spec.action, Discrete):
        choices = y.shape[-1]
        every = jnp.broadcast_to(jnp.eye(choices), (*y.shape, choices))
        probability = jax.nn.softmax(jnp.where(trajectory.avail[slots], y, NEG), axis=-1)
        return (probability * sets.judge(params, question(trajectory, slots, every))).sum(-1)
    shape = (*y.shape[:-1], view.config.filter_samples, y.shape[-1])
    std = view.hparams["action_std"]
    actions = offline.noisy(view.key, jnp.tanh(y)[..., None, :], std, shape)
    return sets.judge(params, question(trajectory, slots, actions)).mean(-1)


# ------------------------------------------------------------------------------------- actors


def advance_actors(sets: Sets, view: View) -> tuple[LearnerState, Prepared, Metrics]:
    """One step of all actors with the new critics, by what `prepare` has unrolled."""
    prepared: Prepared = view.targets
    objective = jax.grad(partial(actor_loss, sets, view), has_aux=True)
    cotangent, metrics = objective(prepared.y)
    grads = {"actor": prepared.pullback(cotangent)[0]}
    state, norm = optimisers.advance(view, view.learner.steps["actor"], grads)
    return state, prepared, {**metrics, **norm}


def actor_loss(sets: Sets, view: View, y: Array) -> tuple[Array, Metrics]:
    """The sum over parameter sets of eq. 10, with log pi. y [T+1, B, S, .] from the actors."""
    config = view.config
    trajectory: Individual = view.targets.trajectory
    weight = view.targets.weight
    critic = view.params["critic"]
    steps = trajectory.mask.shape[0]
    fixed = jax.lax.stop_gradient(y[:-1])
    asked = question(trajectory, slice(0, steps), trajectory.encoded[..., None, :])
    q = sets.judge(critic, asked)[..., 0]

    # how good the critics find what the data did
    x = q
    if config.filter != "q":
        x = q - policy_values(sets, view, critic, trajectory, fixed)
    filter_of = jax.vmap(partial(_filter, view), in_axes=-1, out_axes=-1)
    goodness = filter_of(x, trajectory.mask)

    # the loss of each parameter set
    log_pi = log_probability(view, y[:-1], trajectory)
    mask = trajectory.mask
    if config.literal_actor:
        literal = jax.vmap(equations.literal_actor_loss, in_axes=-1)
        losses = literal(q, weight, goodness, mask)
    else:
        of_sets = jax.vmap(equations.actor_loss, in_axes=-1)
        losses = of_sets(log_pi, weight, goodness, mask)

    # the sum is minimised, the mean is reported
    total = losses.sum()
    loss_mean = losses.mean()
    filter_max = jnp.max(jnp.where(mask > 0, goodness, 0.0))
    log_pi_mean = masked_mean(log_pi, mask)
    return total, {
        "loss/actor": loss_mean,
        "sit/filter_max": filter_max,
        "sit/log_pi_mean": log_pi_mean,
    }


def _filter(view: View, x: Array, mask: Array) -> Array:
    """F of one parameter set, [T, B]; x: values or advantages."""
    h = view.hparams
    config = view.config
    if config.filter == "exponential":
        return equations.exponential_filter(x, h["beta"], h["filter_cap"])
    if config.filter == "binary":
        return equations.binary_filter(x)
    per_step = config.filter_axis == "batch"
    return equations.softmax_filter(x, mask, h["beta"], per_step=per_step)


def log_probability(view: View, y: Array, trajectory: Individual) -> Array:
    """log pi(a | tau) of the data's actions, [T, B, S]: y [T, B, S, .].

    Discrete: softmax over available actions. Continuous: a Gaussian around tanh y with a fixed
    deviation.
    """
    if isinstance(view.spec.action, Discrete):
        log_pi = jax.nn.log_softmax(jnp.where(trajectory.avail[:-1], y, NEG), axis=-1)
        return take_last(log_pi, trajectory.action)
    return offline.log_density(trajectory.encoded, jnp.tanh(y), view.hparams["action_std"])


def choose(acting: Acting) -> Chosen:
    """The best action, or one drawn from the policy: [B, N(, U)]."""
    learner = acting.learner
    actor = learner.networks["actor"]
    hidden, y = actor.unroll(acting.params["actor"], acting.memory["actor"], acting.x)
    return Chosen(action=_action(acting, y[0]), memory={"actor": hidden})


def _action(acting: Acting, y: Array) -> Array:
    """y [B, N, .] from the actors."""
    avail = acting.timestep.avail
    box = acting.learner.spec.action
    if isinstance(box, Box):
        mean = jnp.tanh(y)
        if acting.explore:
            mean = offline.noisy(acting.key, mean, acting.ctx.hparams["action_std"])
        return inputs.decode(mean, box)
    if acting.explore:
        return jax.random.categorical(acting.key, jnp.where(avail, y, NEG), axis=-1)
    return masked_argmax(y, avail)

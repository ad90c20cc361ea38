"""COMA's critic_steps=slices: a step of the critic's optimiser for each time step of the batch.

code: PyMARL's coma_learner, `_train_critic`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxshare.algos.coma.values import action_values, played
from jaxshare.learners import actor_critic_losses as family
from jaxshare.learners import actor_critic_streams as streams
from jaxshare.learners.actor_critic_losses import Aims
from jaxshare.learners.optimisers import rule_of
from jaxshare.learners.records import View
from jaxshare.ops import coma as ops
from jaxshare.ops.masking import take_last
from jaxshare.trees import Tree
from jaxshare.types import Array, LearnerState, Metrics

CRITIC = "critic"  # the step, its optimiser group, and the network


class Steps(struct.PyTreeNode):
    """What is counted."""

    made: Array  # [] i32, steps of the critic
    copied: Array  # [] i32, how many there were when the target was last copied

    @classmethod
    def none(cls) -> Steps:
        """At the start."""
        return cls(jnp.int32(0), jnp.int32(0))


class Slice(struct.PyTreeNode):
    """One time step, or with a leading [T] all of them."""

    z: Array  # [B, N, D]
    action: Array  # [B, N]
    returns: Array  # [B, N]
    mask: Array  # [B]


class Training(struct.PyTreeNode):
    """What goes from slice to slice."""

    params: Tree  # the critic's
    opt_state: Tree
    made: Array  # [] i32


def fit(view: View) -> tuple[LearnerState, Aims, Metrics]:
    """A critic step for each time step, backwards; then the advantages.

    Those are of what the critic said of each time step just before it learned from it.
    """
    learner = view.learner
    state = view.state
    segment = view.batch
    aims: Aims = view.targets
    counts: Steps = state.stats["coma"]
    rule = rule_of(learner, learner.steps[CRITIC], CRITIC, (CRITIC,), view.hparams)

    def error(params: Tree, at: Slice) -> tuple[Array, Array]:
        here = jax.tree.map(lambda x: x[None], at)
        q = action_values(view, params, here.z, here.action)
        square = jnp.square(here.returns - take_last(q, here.action))
        part = view.replace(batch=segment.replace(mask=here.mask))
        return view.hparams["value_coef"] * family.agent_means(part, square), q[0]

    def step(now: Training, at: Slice) -> tuple[Training, tuple[Array, Array]]:
        grads, q = jax.grad(error, has_aux=True)(now.params, at)
        updates, opt_state = rule.update({CRITIC: grads}, now.opt_state)
        new = Training(optax.apply_updates(now.params, updates[CRITIC]), opt_state, now.made + 1)

        # a slice at which no episode is on any more is no step
        on = jnp.any(at.mask > 0)
        after = jax.tree.map(lambda new, old: jnp.where(on, new, old), new, now)
        return after, (q, optax.tree.norm(grads))

    first = Training(state.params[CRITIC], state.opt_state[CRITIC], counts.made)
    z = streams.critic_here(view)
    slices = Slice(z, segment.action, aims.returns, segment.mask)
    end, (q, norms) = jax.lax.scan(step, first, slices, reverse=True)

    # the actors learn from what the critic said of each slice before its step
    advantage, value = ops.counterfactual(q, played(view).probs, segment.action)
    params = {**state.params, CRITIC: end.params}
    opt_state = {**state.opt_state, CRITIC: end.opt_state}
    stats = {**state.stats, "coma": counts.replace(made=end.made)}
    state = state.replace(params=params, opt_state=opt_state, stats=stats)
    square = jnp.square(aims.returns - take_last(q, segment.action))
    scale = 1.0 / view.spec.num_agents if view.config.over_agents == "sum" else 1.0
    error_mean = family.agent_means(view, square) * scale
    norm_mean = norms.sum() / jnp.maximum(end.made - counts.made, 1)
    critic_steps = end.made.astype(jnp.float32)
    target_age = (end.made - counts.copied).astype(jnp.float32)  # in critic steps
    metrics = {
        "loss/critic": error_mean,
        "grad_norm/critic": norm_mean,
        "coma/critic_steps": critic_steps,
        "coma/target_age": target_age,
    }
    return state, aims.replace(advantage=advantage, value=value), metrics


def copied(view: View) -> LearnerState:
    """The target copied if as many critic steps as a period has were made since it last was."""
    state = view.state
    counts: Steps = state.stats["coma"]
    due = counts.made - counts.copied >= view.learner.targets.period
    online = {name: state.params[name] for name in state.target_params}
    target = jax.tree.map(lambda new, old: jnp.where(due, new, old), online, state.target_params)
    counts = counts.replace(copied=jnp.where(due, counts.made, counts.copied))
    return state.replace(target_params=target, stats={**state.stats, "coma": counts})

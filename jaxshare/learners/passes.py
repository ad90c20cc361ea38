"""What an update does with a batch: its steps in turn, hooks, and target networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp

from jaxshare.learners.keys import StepKeys
from jaxshare.learners.optimisers import advance, followed, groups_of
from jaxshare.learners.records import Phase, Step, View
from jaxshare.ops.blank import zeros
from jaxshare.training.shards import rows_of
from jaxshare.trees import Params
from jaxshare.types import (
    Array,
    Clock,
    LearnerState,
    Metrics,
    RefusedError,
)


def relabelled(view: View) -> View:
    """The view of what an update learns from, changed by each `relabel` in turn.

    Their statistics are in its state.
    """
    for part in view.learner.relabel:
        batch, stats = part(view.replace(key=None))
        view = view.after(view.state.replace(stats=stats)).replace(batch=batch)
    return view


def with_values(view: View) -> View:
    """The view with the values of its learner's main step, if that computes any."""
    learner = view.learner
    return computed(learner.steps[learner.main], view, view.params)


def computed(step: Step, view: View, params: Params) -> View:
    """The view with these parameters, and with what the step reads from the batch by them."""
    view = view.replace(params=params)
    if step.compute is None:
        return view
    view = view.replace(values=step.compute(view))
    for part in view.learner.shaping:
        view = view.replace(values=part(view.replace(key=None)))
    return view


# ----------------------------------------------------------------------------------- passes


def passes(phase: Phase, view: View) -> tuple[LearnerState, Metrics]:
    """All passes over what was just collected, with targets made before the first.

    Metrics have a leading [updates_per_batch].
    """
    prepare_key, order_key, pass_key = jax.random.split(view.key, 3)
    if phase.prepare:
        targets = phase.prepare(view.replace(key=prepare_key))
        view = view.replace(targets=jax.lax.stop_gradient(targets))
    count = phase.epochs * phase.minibatches
    if count == 1:
        state, metrics = one_pass(phase, view.replace(key=pass_key))
        return state, jax.tree.map(lambda x: x[None], metrics)

    # parts of the streams, in a new order for each epoch
    segment = view.batch
    streams = (segment.replace(carry=None), view.targets)

    def on_part(
        carry: tuple[LearnerState, Clock], at: tuple[Array, Array]
    ) -> tuple[tuple[LearnerState, Clock], Metrics]:
        state, clock = carry
        rows, i = at
        # memory has no axis of time before that of streams
        batch, targets = rows_of(streams, rows, axis=1)
        batch = batch.replace(carry=rows_of(segment.carry, rows, axis=0))
        ctx = view.ctx.replace(clock=clock)
        key = jax.random.fold_in(pass_key, i)
        part = view.after(state).replace(batch=batch, targets=targets, ctx=ctx, key=key)
        state, metrics = one_pass(phase, part)
        return (state, clock._replace(updates=clock.updates + 1)), metrics

    rows = dealt(order_key, segment.mask.shape[1], phase, view.ctx.shards)
    first = (view.state, view.clock)
    (state, _), metrics = jax.lax.scan(on_part, first, (rows, jnp.arange(count)))
    return state, metrics


def dealt(key: Array, num_envs: int, phase: Phase, shards: int = 1) -> Array:
    """Streams of each optimiser step, a new order in every epoch.

    [epochs * minibatches, num_envs / minibatches] i32. With K shards places within each of them,
    [epochs * minibatches, K, num_envs / minibatches / K]. Raises RefusedError if they cannot be
    cut evenly.
    """
    if num_envs % phase.minibatches:
        raise RefusedError(
            f"algo.minibatches={phase.minibatches} does not divide num_envs={num_envs}: whole "
            "streams are dealt out. Use a multiple of it."
        )
    keys = jax.random.split(key, phase.epochs)
    count = phase.epochs * phase.minibatches
    if shards == 1:
        orders = jax.vmap(lambda k: jax.random.permutation(k, num_envs))(keys)
        return orders.reshape(count, num_envs // phase.minibatches)

    # an order of each shard, [epochs, K, num_envs / K], of which every minibatch has a part
    keys = jax.vmap(lambda k: jax.random.split(k, shards))(keys)
    permute = jax.vmap(jax.vmap(lambda k: jax.random.permutation(k, num_envs // shards)))
    parts = permute(keys).reshape(phase.epochs, shards, phase.minibatches, -1)
    return jnp.moveaxis(parts, 2, 1).reshape(count, shards, -1)


def one_pass(phase: Phase, view: View) -> tuple[LearnerState, Metrics]:
    """The steps on one batch, then the hooks, then the target networks."""
    learner = view.learner
    keys = phase.keys(view.key, phase, learner)
    metrics: Metrics = {}

    # optimiser steps, each with what the ones before it have changed
    for step, step_keys in zip(phase.steps.values(), keys.steps, strict=True):
        if step.advance:
            state, targets, of_step = step.advance(view.replace(key=step_keys.loss))
            view = view.replace(targets=targets)
        elif step.due is None:
            state, of_step = descend(step, view, step_keys)
        else:
            state, of_step = descend_if_due(step, view, step_keys)
        view = view.after(state)
        metrics.update(of_step)
    if not phase.hooks:
        return view.state, metrics

    # hooks, and target networks behind all else
    for hook, key in zip(learner.after_update, keys.hooks, strict=True):
        state, of_hook = hook(view.replace(key=key))
        view = view.after(state)
        metrics.update(of_hook)
    return followed(view), metrics


def descend(step: Step, view: View, keys: StepKeys) -> tuple[LearnerState, Metrics]:
    """One step down the gradient of the loss of a step, in all that it trains."""
    learner = view.learner
    loss_of = step.loss
    assert loss_of is not None
    is_main = step is learner.steps[learner.main]

    def objective(trained: Params) -> tuple[Array, Metrics]:
        here = computed(step, view.replace(key=keys.values), {**view.params, **trained})
        loss, metrics = loss_of(here.replace(key=keys.loss))
        if step.report:
            metrics = {**metrics, **step.report(here.replace(key=None), loss)}
        loss = step.weight * loss
        if is_main:
            for aux, key in zip(learner.aux, keys.aux, strict=True):
                extra, more_metrics = aux(here.replace(key=key))
                loss = loss + extra
                metrics = {**metrics, **more_metrics}
        return loss, metrics

    # the gradient in what the step trains, all else held fixed
    names = [name for group in groups_of(learner, step).values() for name in group]
    trained = {name: view.params[name] for name in view.params if name in names}
    grads, metrics = jax.grad(objective, has_aux=True)(trained)
    state, norms = advance(view, step, grads)
    return state, {**metrics, **norms}


def descend_if_due(step: Step, view: View, keys: StepKeys) -> tuple[LearnerState, Metrics]:
    """The same where the clock says so; else the state as it is, and zeros."""
    assert step.due is not None
    take = partial(descend, step, view, keys)
    blank = zeros(jax.eval_shape(take)[1])
    return jax.lax.cond(step.due(view.clock), take, lambda: (view.state, blank))


# ------------------------------------------------------------------------------ whole data sets


def phase_from(phase: Phase, view: View, batch_size: int) -> tuple[LearnerState, Metrics]:
    """One update of a phase that draws its own batch."""
    assert phase.draw is not None
    draw_key = phase.keys(view.key, phase, view.learner).draw
    drawn = phase.draw(view.replace(key=draw_key), batch_size).replace(key=view.key)
    if phase.relabels:
        drawn = relabelled(drawn)
    if phase.prepare:
        drawn = drawn.replace(targets=phase.prepare(drawn.replace(key=None)))
    return one_pass(phase, drawn)


def first_due(
    phases: tuple[Phase, ...],
    branches: Sequence[Callable[[], tuple[LearnerState, Metrics]]],
    clock: Clock,
) -> tuple[LearnerState, Metrics]:
    """What the first phase that is due makes, the last one if none is.

    The metrics of the others are 0.
    """
    shapes = [jax.eval_shape(branch)[1] for branch in branches]
    blank = {name: zeros(s) for shape in shapes for name, s in shape.items()}

    def run(i: int) -> tuple[LearnerState, Metrics]:
        due = phases[i].due
        if i + 1 < len(branches) and due is not None:
            return jax.lax.cond(due(clock), partial(whole, i), partial(run, i + 1))
        return whole(i)

    def whole(i: int) -> tuple[LearnerState, Metrics]:
        state, metrics = branches[i]()
        return state, {**blank, **metrics}

    return run(0)

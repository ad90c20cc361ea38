"""Where the parts of a learner meet: `Learner` -> `Algorithm`.

An update of the learner, with each part's place in it:

    relabel ─ schedule ─ prepare ─┬─ for each step: compute ─ shaping ─ loss + aux ─ optimiser
    groups
                                  ├─ after_update, in turn
                                  └─ target networks                    (again for each minibatch)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jaxshare.learners.keys import StepKeys
from jaxshare.learners.optimisers import (
    advance,
    first_opt_state,
    first_targets,
    followed,
    groups_of,
)
from jaxshare.learners.records import Acting, Phase, Step, View
from jaxshare.models import inputs
from jaxshare.settings.fields import swept_values
from jaxshare.training.rollout import as_segment
from jaxshare.trees import Params
from jaxshare.types import (
    Algorithm,
    Array,
    Clock,
    Context,
    Episode,
    LearnerState,
    Metrics,
    RefusedError,
    TimeStep,
)

if TYPE_CHECKING:
    from jaxshare.learners.learner import Learner

ON_POLICY = ("episode", "segment")
PREPARE, ORDER, PASSES = range(3)  # keys of an update on policy


def assembled(learner: Learner) -> Algorithm:
    """The algorithm of a learner."""
    made = Assembly(learner)
    phase = learner.phases[0]
    return Algorithm(
        name=learner.name,
        spec=learner.spec,
        hparams={**swept_values(learner.config.hparams), **learner.hparams},
        init=made.init,
        initial_carry=made.initial_carry,
        act=made.act,
        sample=learner.source.sample,
        update=made.update,
        inspect=made.inspect,
        observe=made.observe if learner.observe else None,
        before_update=made.before_update if learner.before_update else None,
        experience=learner.source.experience,
        segment_length=learner.source.segment_length,
        updates_per_batch=phase.epochs * phase.minibatches,
        minibatches=phase.minibatches,
        update_from=made.update_from if phase.draw else None,
        window=learner.source.window,
    )


@dataclass(frozen=True)
class Assembly:
    """The functions of an `Algorithm`, each a method."""

    learner: Learner

    def init(self, key: Array) -> LearnerState:
        """A new learner."""
        networks = self.learner.networks
        keys = jax.random.split(key, len(networks))
        params = {name: networks[name].init(k) for name, k in zip(networks, keys, strict=True)}
        values = swept_values(self.learner.config.hparams)
        hparams = {name: jnp.float32(value) for name, value in values.items()}
        stats = self.learner.stats
        return LearnerState(
            params=params,
            target_params=first_targets(self.learner, params),
            opt_state=first_opt_state(self.learner, params, hparams),
            stats={name: make() if callable(make) else make for name, make in stats.items()},
        )

    # ------------------------------------------------------------------------------ acting

    def initial_carry(self, batch: int) -> dict[str, Array]:
        """Memory of B environments before their first step: of each network that acts, and the
        action before.
        """
        learner = self.learner
        memory = {
            name: learner.networks[name].initial_carry(batch) for name in learner.policy.networks
        }
        size = inputs.action_dim(learner.spec)
        return {**memory, "previous": jnp.zeros((batch, learner.spec.num_agents, size))}

    def act(
        self,
        params: Params,
        carry: dict[str, Array],
        timestep: TimeStep,
        ctx: Context,
        key: Array,
        explore: bool,
    ) -> tuple[dict[str, Array], Array, dict[str, Array]]:
        """(memory, action [B, N] or [B, N, U], extras) of B environments."""
        learner = self.learner
        memory = dict(carry)
        previous = memory.pop("previous")
        acting = Acting(
            learner=learner,
            params=params,
            memory=memory,
            x=learner.reads.build(timestep.obs[None], previous[None]),
            previous=previous,
            timestep=timestep,
            ctx=ctx,
            key=key,
            explore=explore,
        )
        chosen = learner.policy.choose(acting)
        encoded = inputs.encode(chosen.action, learner.spec)
        return {**chosen.memory, "previous": encoded}, chosen.action, chosen.extras

    # ---------------------------------------------------------------------------- learning

    def update(
        self, state: LearnerState, batch: Any, ctx: Context, key: Array
    ) -> tuple[LearnerState, Metrics]:
        """One update from an Episode, or on policy from a Segment, whose metrics are one for each
        optimiser step.
        """
        learner = self.learner
        phase = learner.phases[0]
        if phase.draw:
            raise RefusedError(
                f"algo={learner.name} learns from a whole data set and takes no batches: name one, "
                "as in data=set.jds."
            )
        view = View(learner, state, state.params, batch, ctx, key)
        view = relabelled(view)
        if learner.source.experience not in ON_POLICY:
            return one_pass(phase, view)
        if learner.schedule:
            view = view.replace(ctx=learner.schedule(view))
        return passes(phase, view)

    def update_from(
        self, state: LearnerState, data: Episode, ctx: Context, key: Array, batch_size: int
    ) -> tuple[LearnerState, Metrics]:
        """One update of whichever phase it is; the clock is common to all runs, so that these are
        real branches.

        data: in the layout of a replay, fields [E, T(+1), ...]. The metrics of other phases are 0.
        """
        learner = self.learner
        view = View(learner, state, state.params, data, ctx, key)
        tables = learner.tables(view) if learner.tables else None
        if tables is not None:
            # the tables go round the branches: what passes through one is copied
            rest = {name: x for name, x in state.stats.items() if name != learner.name}
            view = view.after(state.replace(stats=rest)).replace(tables=tables)
        branches = [partial(_phase_from, phase, view, batch_size) for phase in learner.phases]
        state, metrics = _the_due_one(learner.phases, branches, ctx.clock)
        if tables is not None:
            state = state.replace(stats={**state.stats, learner.name: tables})
        return state, metrics

    # ------------------------------------------------------------------------------- hooks

    def inspect(self, state: LearnerState, episode: Episode, ctx: Context) -> dict[str, Array]:
        """{name: [T, B, N]} of whole episodes, for people to look at."""
        learner = self.learner
        batch: Any = episode
        if learner.source.experience in ON_POLICY:
            batch = as_segment(episode, self.initial_carry(episode.mask.shape[1]))
        view = with_values(View(learner, state, state.params, batch, ctx, key=None))
        columns: dict[str, Array] = {}
        for part in learner.inspect:
            columns.update(part(view))
        return columns

    def observe(self, state: LearnerState, experience: Any, ctx: Context) -> LearnerState:
        """The state once `observe` has seen what was collected; the clock is that before it."""
        for part in self.learner.observe:
            view = View(self.learner, state, state.params, experience, ctx, key=None)
            state = state.replace(stats=part(view))
        return state

    def before_update(
        self, state: LearnerState, play: Callable[..., Any], ctx: Context, key: Array
    ) -> LearnerState:
        """The state once parts have played with parameters of their choice."""
        for i, part in enumerate(self.learner.before_update):
            own_key = jax.random.fold_in(key, i)
            state = part(View(self.learner, state, state.params, None, ctx, own_key), play)
        return state


def relabelled(view: View) -> View:
    """The view of what an update learns from, changed by each `relabel` in turn, with their
    statistics.
    """
    for part in view.learner.relabel:
        batch, stats = part(view)
        view = view.after(view.state.replace(stats=stats)).replace(batch=batch)
    return view


def with_values(view: View, params: Params | None = None) -> View:
    """The view with the values of its learner's main step, if that computes any, as the parameters
    give them.
    """
    learner = view.learner
    return computed(learner.steps[learner.main], view, view.params if params is None else params)


def computed(step: Step, view: View, params: Params) -> View:
    """The view with these parameters, and with what the step reads from the batch by them."""
    view = view.replace(params=params)
    if step.compute is None:
        return view
    view = view.replace(values=step.compute(view))
    for part in view.learner.shaping:
        view = view.replace(values=part(view))
    return view


# ----------------------------------------------------------------------------------- passes


def passes(phase: Phase, view: View) -> tuple[LearnerState, Metrics]:
    """All passes over what was just collected, with targets made before the first: metrics
    [updates_per_batch].
    """
    prepare_key, order_key, pass_key = jax.random.split(view.key, 3)
    if phase.prepare:
        targets = phase.prepare(view.replace(key=prepare_key))
        view = view.replace(targets=jax.lax.stop_gradient(targets))
    count = phase.epochs * phase.minibatches
    if count == 1:
        state, metrics = one_pass(phase, view.replace(key=pass_key))
        return state, jax.tree.map(lambda x: x[None], metrics)

    segment = view.batch
    streams = (segment.replace(carry=None), view.targets)

    def on_part(carry: tuple[LearnerState, Clock], at: tuple[Array, Array]) -> Any:
        state, clock = carry
        rows, i = at
        # memory has no axis of time before that of streams
        batch, targets = jax.tree.map(lambda x: x[:, rows], streams)
        memory = jax.tree.map(lambda x: x[rows], segment.carry)
        part = view.after(state).replace(
            batch=batch.replace(carry=memory),
            targets=targets,
            ctx=view.ctx.replace(clock=clock),
            key=jax.random.fold_in(pass_key, i),
        )
        state, metrics = one_pass(phase, part)
        return (state, clock._replace(updates=clock.updates + 1)), metrics

    rows = dealt(order_key, segment.mask.shape[1], phase)
    first = (view.state, view.clock)
    (state, _), metrics = jax.lax.scan(on_part, first, (rows, jnp.arange(count)))
    return state, metrics


def dealt(key: Array, num_envs: int, phase: Phase) -> Array:
    """Streams of each optimiser step, a new order in every epoch: [epochs * minibatches,
    num_envs / minibatches] i32.

    Raises RefusedError if they cannot be cut evenly.
    """
    if num_envs % phase.minibatches:
        raise RefusedError(
            f"algo.minibatches={phase.minibatches} does not divide num_envs={num_envs}: whole "
            "streams are dealt out. Use a multiple of it."
        )
    keys = jax.random.split(key, phase.epochs)
    orders = jax.vmap(lambda k: jax.random.permutation(k, num_envs))(keys)
    return orders.reshape(phase.epochs * phase.minibatches, num_envs // phase.minibatches)


def one_pass(phase: Phase, view: View) -> tuple[LearnerState, Metrics]:
    """The steps on one batch, then the hooks, then the target networks."""
    learner = view.learner
    keys = phase.keys(view.key, phase, learner)
    metrics: Metrics = {}

    # optimiser steps, each with what the ones before it have changed
    for step, step_keys in zip(phase.steps.values(), keys.steps, strict=True):
        if step.advance:
            state, targets, shown = step.advance(view.replace(key=step_keys.loss))
            view = view.replace(targets=targets)
        elif step.due is None:
            state, shown = descend(step, view, step_keys)
        else:
            state, shown = descend_if_due(step, view, step_keys)
        view = view.after(state)
        metrics.update(shown)
    if not phase.hooks:
        return view.state, metrics

    # hooks, and target networks behind all else
    for hook, key in zip(learner.after_update, keys.hooks, strict=True):
        state, shown = hook(view.replace(key=key))
        view = view.after(state)
        metrics.update(shown)
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
            metrics = {**metrics, **step.report(here, loss)}
        loss = step.weight * loss
        if is_main:
            for aux, key in zip(learner.aux, keys.aux, strict=True):
                extra, more_metrics = aux(here.replace(key=key))
                loss = loss + extra
                metrics = {**metrics, **more_metrics}
        return loss, metrics

    names = [name for group in groups_of(learner, step).values() for name in group]
    trained = {name: view.params[name] for name in view.params if name in names}
    grads, metrics = jax.grad(objective, has_aux=True)(trained)
    state, norms = advance(view, step, grads)
    return state, {**metrics, **norms}


def descend_if_due(step: Step, view: View, keys: StepKeys) -> tuple[LearnerState, Metrics]:
    """The same where the clock says so; else the state as it is, and zeros."""
    assert step.due is not None
    take = partial(descend, step, view, keys)
    shapes = jax.eval_shape(take)[1]
    blank = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return jax.lax.cond(step.due(view.clock), take, lambda: (view.state, blank))


# ------------------------------------------------------------------------------ whole data sets


def _phase_from(phase: Phase, view: View, batch_size: int) -> tuple[LearnerState, Metrics]:
    """One update of a phase that draws its own batch."""
    assert phase.draw is not None
    draw_key = phase.keys(view.key, phase, view.learner).draw
    drawn = phase.draw(view.replace(key=draw_key), batch_size).replace(key=view.key)
    if phase.relabels:
        drawn = relabelled(drawn)
    if phase.prepare:
        drawn = drawn.replace(targets=phase.prepare(drawn))
    return one_pass(phase, drawn)


def _the_due_one(
    phases: tuple[Phase, ...], branches: Sequence[Callable[[], Any]], clock: Clock
) -> tuple[LearnerState, Metrics]:
    """What the first phase that is due makes, the last one if none is; the metrics of the others
    are 0.
    """
    shapes = [jax.eval_shape(branch)[1] for branch in branches]
    blank = {name: jnp.zeros(s.shape, s.dtype) for shape in shapes for name, s in shape.items()}

    def run(i: int) -> tuple[LearnerState, Metrics]:
        due = phases[i].due
        if i + 1 < len(branches) and due is not None:
            return jax.lax.cond(due(clock), partial(whole, i), partial(run, i + 1))
        return whole(i)

    def whole(i: int) -> tuple[LearnerState, Metrics]:
        state, metrics = branches[i]()
        return state, {**blank, **metrics}

    return run(0)

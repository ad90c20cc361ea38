"""Where the parts of a learner meet: `Learner` -> `Algorithm`.

An update of the learner, with each part's place in it:

    relabel ─ schedule ─ prepare ─┬─ for each step: compute ─ shaping ─ loss + aux ─ groups
                                  ├─ after_update, in turn
                                  └─ target networks                    (again for each minibatch)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jaxshare.learners.optimisers import (
    first_opt_state,
    first_targets,
)
from jaxshare.learners.packed import why_whole
from jaxshare.learners.records import ON_POLICY, Acting, View
from jaxshare.models import inputs
from jaxshare.settings.fields import swept_values
from jaxshare.training.rollout import as_segment
from jaxshare.trees import Batch, Params
from jaxshare.types import (
    Algorithm,
    Array,
    Context,
    Episode,
    LearnerState,
    Metrics,
    RefusedError,
    TimeStep,
)

if TYPE_CHECKING:
    from jaxshare.learners.learner import Learner
from jaxshare.learners.passes import (
    first_due,
    one_pass,
    passes,
    phase_from,
    relabelled,
    with_values,
)


def assembled(learner: Learner) -> Algorithm:
    """The algorithm of a learner."""
    assembly = Assembly(learner)
    source = learner.source
    phase = learner.phases[0]
    hparams = {**swept_values(learner.config.hparams), **learner.hparams}
    algorithm = Algorithm(
        name=learner.name,
        spec=learner.spec,
        hparams=hparams,
        init=assembly.init,
        initial_carry=assembly.initial_carry,
        act=assembly.act,
        sample=source.sample,
        update=assembly.update,
        inspect=assembly.inspect,
    )

    # what not every learner has
    observe = assembly.observe if learner.observe else None
    before_update = assembly.before_update if learner.before_update else None
    update_from = assembly.update_from if phase.draw else None
    return replace(
        algorithm,
        observe=observe,
        before_update=before_update,
        experience=source.experience,
        segment_length=source.segment_length,
        updates_per_batch=phase.epochs * phase.minibatches,
        minibatches=phase.minibatches,
        update_from=update_from,
        window=source.window,
        whole_rows=why_whole(learner),
    )


@dataclass(frozen=True)
class Assembly:
    """The functions of an `Algorithm`, each a method."""

    learner: Learner

    def init(self, key: Array) -> LearnerState:
        """A new learner. key: []."""
        networks = self.learner.networks
        keys = jax.random.split(key, len(networks))
        params = {name: networks[name].init(k) for name, k in zip(networks, keys, strict=True)}
        values = swept_values(self.learner.config.hparams)
        hparams = {name: jnp.float32(value) for name, value in values.items()}
        target_params = first_targets(self.learner, params)
        opt_state = first_opt_state(self.learner, params, hparams)

        # first values, or functions that make those
        firsts = self.learner.stats
        stats = {name: first() if callable(first) else first for name, first in firsts.items()}
        return LearnerState(
            params=params,
            target_params=target_params,
            opt_state=opt_state,
            stats=stats,
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

        # one step of time, for networks that read many
        x = learner.reads.build(timestep.obs[None], previous[None])
        acting = Acting(
            learner=learner,
            params=params,
            memory=memory,
            x=x,
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
        self, state: LearnerState, batch: Batch, ctx: Context, key: Array
    ) -> tuple[LearnerState, Metrics]:
        """One update from an Episode, or on policy from a Segment, whose metrics are one for each
        optimiser step. key: [].
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
            view = view.replace(ctx=learner.schedule(view.replace(key=None)))
        return passes(phase, view)

    def update_from(
        self, state: LearnerState, data: Episode, ctx: Context, key: Array, batch_size: int
    ) -> tuple[LearnerState, Metrics]:
        """One update of whichever phase it is.

        The clock is common to all runs, so that these are real branches.

        data: in the layout of a replay, fields [E, T(+1), ...]. The metrics of other phases are 0.
        """
        learner = self.learner
        view = View(learner, state, state.params, data, ctx, key)
        tables = learner.tables(view) if learner.tables else None
        if tables is not None:
            # the tables go round the branches: what passes through one is copied
            rest = {name: x for name, x in state.stats.items() if name != learner.name}
            view = view.after(state.replace(stats=rest)).replace(tables=tables)

        # the phase that is due, with what the batch is drawn from
        branches = [partial(phase_from, phase, view, batch_size) for phase in learner.phases]
        state, metrics = first_due(learner.phases, branches, ctx.clock)
        if tables is not None:
            state = state.replace(stats={**state.stats, learner.name: tables})
        return state, metrics

    # ------------------------------------------------------------------------------- hooks

    def inspect(self, state: LearnerState, episode: Episode, ctx: Context) -> dict[str, Array]:
        """{name: [T, B, N]} of whole episodes, for people to look at."""
        learner = self.learner
        batch: Batch = episode
        if learner.source.experience in ON_POLICY:
            batch = as_segment(episode, self.initial_carry(episode.mask.shape[1]))
        view = with_values(View(learner, state, state.params, batch, ctx, key=None))
        columns: dict[str, Array] = {}
        for part in learner.inspect:
            columns.update(part(view))
        return columns

    def observe(self, state: LearnerState, experience: Batch, ctx: Context) -> LearnerState:
        """The state once `observe` has seen what was collected; the clock is that before it."""
        for part in self.learner.observe:
            view = View(self.learner, state, state.params, experience, ctx, key=None)
            state = state.replace(stats=part(view))
        return state

    def before_update(
        self, state: LearnerState, play: Callable[..., Any], ctx: Context, key: Array
    ) -> LearnerState:
        """The state once parts have played with parameters of their choice. key: []."""
        for i, part in enumerate(self.learner.before_update):
            part_key = jax.random.fold_in(key, i)
            state = part(View(self.learner, state, state.params, None, ctx, part_key), play)
        return state

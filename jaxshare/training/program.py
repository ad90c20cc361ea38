"""One run as pure functions: init, prefill, iteration (collect -> store -> sample -> update),
evaluate.

On policy (`Algorithm.experience`) nothing is stored: an update is made of what was just collected,
whole episodes or the next steps of streams of episodes. With a data set nothing is collected
either: an iteration is one update.

Keys are derived (keys.py). The clock is common to all runs of a program and never batched.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial

import jax
import jax.numpy as jnp

from jaxshare.training import replay, shards, streams
from jaxshare.training.counting import start_clock
from jaxshare.training.keys import INIT, START, UPDATE, stage_key
from jaxshare.training.playing import Collected
from jaxshare.training.updating import Learning, Updating, if_due
from jaxshare.trees import Tree
from jaxshare.types import Array, Clock, Context, Episode, HParams, Segment, TrainState

Progress = tuple[TrainState, Clock]  # what goes from iteration to iteration


@dataclass(frozen=True)
class Program(Updating):
    """What is compiled for a run. All methods are pure; `state` is one run's, un-batched."""

    def init(self, seed: Array) -> TrainState:
        """A new learner, and an empty replay or new streams, whichever it learns from. seed: []."""
        zero = jnp.int32(0)
        learner = self.algorithm.init(stage_key(seed, zero, INIT))

        # where its experience will be
        ring = None
        begun = None
        if self.algorithm.experience == "replay":
            size = self.run.replay
            ring = shards.first_rings(
                self.batch_shapes(), size.capacity, size.dtype, self.run.parallel.num_shards
            )
        if self.algorithm.experience == "segment":
            key = stage_key(seed, zero, START)
            begun = streams.start(self.env, self.algorithm, key, self.run.num_envs)
        return TrainState(
            seed=seed, learner=learner, replay=ring, env_steps=zero, updates=zero, streams=begun
        )

    def prefill(
        self, state: TrainState, hparams: HParams, clock: Clock
    ) -> tuple[TrainState, Clock]:
        """Collect until a batch can be drawn: the training loop never asks whether it can."""
        if not self.prefill_iterations:
            return state, clock

        def collect(now: Progress, _: None) -> tuple[Progress, None]:
            state, clock = now
            collected = self.explore(state, hparams, clock)
            return self.fill(state, collected, hparams, clock), None

        (state, clock), _ = jax.lax.scan(collect, (state, clock), length=self.prefill_iterations)
        return state, clock

    def fill(
        self, state: TrainState, collected: Collected, hparams: HParams, clock: Clock
    ) -> tuple[TrainState, Clock]:
        """Store without learning: one iteration of the prefill, once its episodes are played."""
        state, clock = self.store(state, collected, self.context(state, hparams, clock))
        return state, clock._replace(iteration=clock.iteration + 1)

    def chunk(
        self, num_iterations: int, state: TrainState, hparams: HParams, clock: Clock
    ) -> tuple[tuple[TrainState, dict[str, Tree]], Clock]:
        """`num_iterations` iterations: ((state, metrics with leading [iterations]), clock)."""
        iterate = partial(self.iteration, hparams)
        (state, clock), metrics = jax.lax.scan(iterate, (state, clock), length=num_iterations)
        return (state, metrics), clock

    def iteration(
        self,
        hparams: HParams,
        now: Progress,
        collected: Collected | None = None,
    ) -> tuple[Progress, dict[str, Tree]]:
        """Collect, store, and make the updates that are due.

        A run that has taken its total_env_steps learns no more: its learner stands still while
        others go on.
        collected: what was played elsewhere, as on the host; None: it is played here.
        """
        before, clock = now
        active = before.env_steps < self.run.total_env_steps
        if collected is None:
            collected = self.explore(before, hparams, clock)
        state, clock = self.store(before, collected, self.context(before, hparams, clock))

        # the updates that are due
        ctx = self.context(state, hparams, clock)
        start = Learning(state.learner, clock)
        if self.algorithm.experience != "replay":
            end, updated = self.update_now(state, collected, start, ctx)
        else:
            # transitions of each slot, for windows; once for all updates
            steps = replay.steps_stored(state.replay) if self.algorithm.window else None
            make = partial(self.update, state, ctx, steps)
            due = self.updates_due(clock.episodes)
            each = make if self.always_as_many else partial(if_due, make, due)
            end, updated = jax.lax.scan(each, start, length=self.most_updates)

        # the ring of a run that has ended goes on as well: freezing it would copy it
        new = (end.learner, state.env_steps)
        old = (before.learner, before.env_steps)
        learner, env_steps = jax.tree.map(lambda x, y: jnp.where(active, x, y), new, old)
        updates = state.updates + jnp.where(active, updated.done.sum(), 0)
        state = state.replace(learner=learner, env_steps=env_steps, updates=updates)
        clock = end.clock._replace(iteration=end.clock.iteration + 1)
        return (state, clock), {
            "active": active,
            "collect": collected.summary,
            "ended": collected.ended,
            "update": updated.metrics,
            "done": updated.done,
        }

    def store(
        self, state: TrainState, collected: Collected, ctx: Context
    ) -> tuple[TrainState, Clock]:
        """Keep what was collected; env_steps counts valid steps only."""
        batch = collected.batch
        clock = ctx.clock
        count = self.run.num_envs
        ring = shards.add(state.replay, batch, clock) if isinstance(batch, Episode) else None

        # what some learners note of it
        learner = state.learner
        if self.algorithm.observe:
            learner = self.algorithm.observe(learner, batch, ctx)
        env_steps = state.env_steps + batch.mask.sum().astype(jnp.int32)
        state = state.replace(
            learner=learner,
            replay=ring,
            env_steps=env_steps,
            streams=collected.streams,
        )
        return state, clock._replace(episodes=clock.episodes + count, stored=clock.stored + count)

    # --------------------------------------------------------------------------- data sets

    def chunk_offline(
        self,
        num_iterations: int,
        state: TrainState,
        hparams: HParams,
        shared: tuple[Clock, Episode],
    ) -> tuple[tuple[TrainState, dict[str, Tree]], Clock]:
        """`num_iterations` updates from a data set, as `chunk`.

        The data set has the layout of a replay and is common to all runs. A run that has made its
        total_updates learns no more.
        """
        clock, data = shared
        steps = replay.steps_stored(data) if self.algorithm.window else None

        def iterate(now: Progress, _: None) -> tuple[Progress, dict[str, Tree]]:
            state, clock = now
            active = state.updates < self.run.total_updates
            ctx = self.context(state, hparams, clock)

            # an update of all data, or of a batch
            if self.algorithm.update_from:
                key = stage_key(state.seed, clock.iteration, UPDATE)
                learner, metrics = self.algorithm.update_from(
                    state.learner, data, ctx, key, self.run.batch_size
                )
            else:
                stored = state.replace(replay=data)
                end, updated = self.update(stored, ctx, steps, Learning(state.learner, clock))
                learner = end.learner
                metrics = updated.metrics

            # the learner of a run that has ended stands still
            learner = jax.tree.map(
                lambda new, old: jnp.where(active, new, old), learner, state.learner
            )
            state = state.replace(learner=learner, updates=state.updates + active)
            clock = clock._replace(iteration=clock.iteration + 1, updates=clock.updates + 1)

            # one update an iteration, of which no episode ends
            ended = jnp.int32(0)
            of_update = jax.tree.map(lambda x: x[None], metrics)
            done = jnp.ones(1, bool)
            return (state, clock), {
                "active": active,
                "collect": {},
                "ended": ended,
                "update": of_update,
                "done": done,
            }

        (state, clock), metrics = jax.lax.scan(iterate, (state, clock), length=num_iterations)
        return (state, metrics), clock

    # --------------------------------------------------------------------------------- shapes

    def close(self) -> None:
        """End what the environments have started outside this process."""
        for env in (self.env, self.evaluator):
            if env.host:
                env.host.close()

    def batch_shapes(self) -> Tree:
        """Shapes of one collect: an Episode, or on policy a Segment."""
        return self._shapes[1]

    def state_shapes(self) -> TrainState:
        """Shapes of a new learner, and of its streams if it has some; without a replay."""
        return self._shapes[0]

    @cached_property
    def _shapes(self) -> tuple[TrainState, Episode | Segment]:
        hparams = {name: jnp.float32(value) for name, value in self.algorithm.hparams.items()}

        # traced once: it takes a second or more
        def collect() -> tuple[TrainState, Episode | Segment]:
            zero = jnp.int32(0)
            begun = None
            if self.algorithm.experience == "segment":
                key = jax.random.key(0)
                begun = streams.start(self.env, self.algorithm, key, self.run.num_envs)
            learner = self.algorithm.init(jax.random.key(0))
            state = TrainState(
                seed=zero, learner=learner, replay=None, env_steps=zero, updates=zero, streams=begun
            )
            return state, self.explore(state, hparams, start_clock()).batch

        return jax.eval_shape(collect)

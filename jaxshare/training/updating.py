"""The updates of one run: on what was just collected, or on batches out of the replay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from flax import struct

from jaxshare.ops.blank import zeros
from jaxshare.ops.runs import largest_of_runs
from jaxshare.training import packing, replay, shards
from jaxshare.training.keys import PLAY, SAMPLE, UPDATE, stage_key
from jaxshare.training.playing import Collected, Playing
from jaxshare.types import Array, Clock, Context, Episode, LearnerState, Metrics, TrainState


class Learning(struct.PyTreeNode):
    """What goes from update to update."""

    learner: LearnerState
    clock: Clock


class Updated(struct.PyTreeNode):
    """What updates have shown. done: [U] bool, whether each was made; metrics: {name: [U]}."""

    done: Array
    metrics: Metrics


@dataclass(frozen=True)
class Updating(Playing):
    """All of a run that learns. Methods are pure; `state` is one run's, un-batched."""

    def update_now(
        self, state: TrainState, collected: Collected, now: Learning, ctx: Context
    ) -> tuple[Learning, Updated]:
        """The updates on what was just collected, all of which are made."""
        key = stage_key(state.seed, ctx.clock.iteration, UPDATE)
        learner = self.prepared(now.learner, state.seed, ctx)
        learner, metrics = self.algorithm.update(learner, collected.batch, ctx, key)
        count = self.algorithm.updates_per_batch
        clock = now.clock._replace(updates=now.clock.updates + count)
        return Learning(learner, clock), Updated(jnp.ones(count, bool), metrics)

    def update(
        self, state: TrainState, ctx: Context, steps: Array | None, now: Learning, _: None = None
    ) -> tuple[Learning, Updated]:
        """Draw a batch from the replay and make one update.

        steps: [C] i32, how many each slot has, for windows; None without them.
        """
        ctx = ctx.replace(clock=now.clock)
        iteration = now.clock.iteration
        updates = now.clock.updates
        sample_key = jax.random.fold_in(stage_key(state.seed, iteration, SAMPLE), updates)
        update_key = jax.random.fold_in(stage_key(state.seed, iteration, UPDATE), updates)
        learner = self.prepared(now.learner, state.seed, ctx)
        clock = now.clock._replace(updates=updates + 1)
        if self.packs:
            learner, metrics = self.learn_packed(
                learner, state.replay, ctx, (sample_key, update_key)
            )
            return Learning(learner, clock), Updated(jnp.bool_(True), metrics)
        batch = self.draw(state, ctx, sample_key, steps)

        # the shortest crop that holds the longest episode of all runs; a branch for each
        longest = largest_of_runs(jnp.max(batch.mask.sum(0)).astype(jnp.int32))
        choice = jnp.sum(longest > jnp.array(self.crops[:-1], jnp.int32))
        branches = [
            partial(self.algorithm.update, learner, replay.crop(batch, limit), ctx, update_key)
            for limit in self.crops
        ]
        learner, metrics = jax.lax.switch(choice, branches)
        return Learning(learner, clock), Updated(jnp.bool_(True), metrics)

    def learn_packed(
        self, learner: LearnerState, ring: Episode, ctx: Context, keys: tuple[Array, Array]
    ) -> tuple[LearnerState, Metrics]:
        """An update from episodes that are packed, in the smallest shape that holds them.

        keys: [] each, of the draw and of the update.
        """
        sample_key, update_key = keys
        capacity, limit = ring.mask.shape
        index = self.choose(ctx, sample_key, capacity)
        length = packing.lengths(ring, index)
        shapes = packing.menu(limit, self.run.batch_size)
        choice, places = packing.choose(length, shapes)

        # a branch for each shape, which reads its batch from the ring
        def learn(shape: packing.Shape) -> tuple[LearnerState, Metrics]:
            where = packing.packing_of(length, places[shape[0]], shape, limit)
            batch = replay.gather_packed(ring, index, where)
            return self.algorithm.update(learner, batch, ctx, update_key)

        return jax.lax.switch(choice, [partial(learn, shape) for shape in shapes])

    def choose(self, ctx: Context, key: Array, capacity: int) -> Array:
        """Slots of whole episodes to learn from, [batch_size] i32. key: []."""
        sample = self.algorithm.sample
        assert sample is not None
        stored = jnp.int32(capacity)
        if not self.offline:
            stored = replay.num_stored(ctx.clock, capacity)
        return sample(key, stored, capacity, self.run.batch_size, ctx)

    def prepared(self, learner: LearnerState, seed: Array, ctx: Context) -> LearnerState:
        """What some learners do before an update: play with parameters of their choice.

        seed: [].
        """
        if self.algorithm.before_update is None:
            return learner
        key = jax.random.fold_in(stage_key(seed, ctx.clock.iteration, PLAY), ctx.clock.updates)
        return self.algorithm.before_update(learner, partial(self.play_with, ctx), ctx, key)

    def draw(self, state: TrainState, ctx: Context, key: Array, steps: Array | None) -> Episode:
        """A batch from the replay: whole episodes, or windows. key: []; steps: [C] i32."""
        # windows
        batch_size = self.run.batch_size
        window = self.algorithm.window
        if window:
            assert steps is not None
            slot, step = replay.uniform_transitions(key, steps, batch_size)
            return replay.gather_windows(state.replay, slot, step, window)

        # whole episodes of a data set, or of the rings
        if self.offline:
            index = self.choose(ctx, key, state.replay.mask.shape[0])
            return replay.gather(state.replay, index)
        sample = self.algorithm.sample
        assert sample is not None

        def choose(key: Array, stored: Array, capacity: int, count: int) -> Array:
            return sample(key, stored, capacity, count, ctx)

        return shards.draw(state.replay, ctx.clock, key, batch_size, choose)


def if_due(
    make: Callable[..., tuple[Learning, Updated]], target: Array, now: Learning, _: None
) -> tuple[Learning, Updated]:
    """One update if fewer than `target` [] were made, else nothing, with blank metrics."""
    blank = zeros(jax.eval_shape(make, now)[1].metrics)

    def nothing() -> tuple[Learning, Updated]:
        return now, Updated(jnp.bool_(False), blank)

    return jax.lax.cond(now.clock.updates < target, partial(make, now), nothing)

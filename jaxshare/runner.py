"""One run as pure functions: init, prefill, iteration (collect -> store -> sample -> update), evaluate.

On policy (`Algorithm.experience`) nothing is stored: an update is made of what was just collected, whole episodes or
the next steps of streams of episodes. With a data set nothing is collected either: an iteration is one update.

Keys are derived, `fold_in(fold_in(key(seed), iteration), STAGE)`, never carried: adding a feature does not change the
draws of the others, and resuming needs no key. The clock is common to all runs of a program and never batched.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxshare import replay, rollout
from jaxshare.ops.masking import masked_mean
from jaxshare.settings.records import RunConfig, update_ratio
from jaxshare.types import (
    Algorithm,
    Array,
    Clock,
    Context,
    Env,
    Episode,
    HParams,
    LearnerState,
    Segment,
    TrainState,
)

INIT, COLLECT, SAMPLE, UPDATE, PLAY, START = range(6)
MIN_CROPPED_LIMIT = 40  # shorter episodes are not worth four compiled updates


@struct.dataclass
class Collected:
    """What an iteration learns from."""

    batch: Episode | Segment  # [T(+1), num_envs, ...]
    summary: dict[str, Array]  # {name: []} means over the episodes that ended
    ended: Array  # [] i32: how many did
    streams: Any = None  # rollout.Streams after it


@dataclass(frozen=True)
class Program:
    """What is compiled for a run. All methods are pure; `state` is one run's, un-batched."""

    env: Env
    algorithm: Algorithm
    run: RunConfig
    eval_env: Env | None = None  # with a pool of its own for an environment on the host; None: env
    crop: bool = True  # unroll only as far as the longest sampled episode; off under vmap, where every branch would run

    def init(self, seed: Array) -> TrainState:
        """A new learner, and an empty replay or new streams, whichever it learns from."""
        learner, ring, streams = self.algorithm.init(_key(seed, jnp.int32(0), INIT)), None, None
        if self.algorithm.experience == "replay":
            ring = replay.init(self.batch_shapes(), self.run.replay.capacity, self.run.replay.dtype)
        if self.algorithm.experience == "segment":
            streams = rollout.start(
                self.env, self.algorithm, _key(seed, jnp.int32(0), START), self.run.num_envs
            )
        zero = jnp.int32(0)
        return TrainState(
            seed=seed, learner=learner, replay=ring, env_steps=zero, updates=zero, streams=streams
        )

    def prefill(
        self, state: TrainState, hparams: HParams, clock: Clock
    ) -> tuple[TrainState, Clock]:
        """Collect until a batch can be drawn, so that the training loop never asks whether it can."""
        if not self.prefill_iterations:
            return state, clock

        def body(carry: Any, _: None) -> Any:
            collected = self.explore(carry[0], hparams, carry[1])
            return self.fill(carry[0], collected, hparams, carry[1]), None

        (state, clock), _ = jax.lax.scan(body, (state, clock), length=self.prefill_iterations)
        return state, clock

    def fill(
        self, state: TrainState, collected: Collected, hparams: HParams, clock: Clock
    ) -> tuple[TrainState, Clock]:
        """Store without learning: one iteration of the prefill, once its episodes are played."""
        state, clock = self.store(state, collected, hparams, clock)
        return state, clock._replace(iteration=clock.iteration + 1)

    def chunk(
        self, num_iterations: int, state: TrainState, hparams: HParams, clock: Clock
    ) -> tuple[Any, Clock]:
        """`num_iterations` iterations: ((state, metrics with leading [iterations]), clock)."""

        def body(carry: Any, _: None) -> Any:
            state, clock, metrics = self.iteration(carry[0], hparams, carry[1])
            return (state, clock), metrics

        (state, clock), metrics = jax.lax.scan(body, (state, clock), length=num_iterations)
        return (state, metrics), clock

    def iteration(
        self, state: TrainState, hparams: HParams, clock: Clock
    ) -> tuple[TrainState, Clock, dict[str, Any]]:
        """Collect, store, and make the updates that are due.

        A run that has taken its total_env_steps learns no more: its learner stands still while others go on.
        """
        return self.learn(state, self.explore(state, hparams, clock), hparams, clock)

    def learn(
        self, state: TrainState, collected: Collected, hparams: HParams, clock: Clock
    ) -> tuple[TrainState, Clock, dict[str, Any]]:
        """The rest of an iteration, once its episodes are played."""
        active = state.env_steps < self.run.total_env_steps
        before = state
        state, clock = self.store(state, collected, hparams, clock)
        on_policy = self.algorithm.experience != "replay"
        make = self.update_now if on_policy else self.updates
        state, clock, done, updated = make(state, collected, hparams, clock)
        # the ring of such a run goes on as well: freezing it would copy it
        learner, env_steps = jax.tree.map(
            lambda new, old: jnp.where(active, new, old),
            (state.learner, state.env_steps),
            (before.learner, before.env_steps),
        )
        made = state.updates + jnp.where(active, done.sum(), 0)
        state = state.replace(learner=learner, env_steps=env_steps, updates=made)
        clock = clock._replace(iteration=clock.iteration + 1)
        found = {
            "collect": collected.summary,
            "ended": collected.ended,
            "update": updated,
            "done": done,
        }
        return state, clock, {"active": active, **found}

    def explore(self, state: TrainState, hparams: HParams, clock: Clock) -> Collected:
        """Play num_envs episodes, or the next steps of num_envs streams, with exploration; nothing changes."""
        ctx, run = self.context(state, hparams, clock), self.run
        key, params = _key(state.seed, clock.iteration, COLLECT), state.learner.params
        env, algorithm = self.env, self.algorithm
        if algorithm.experience == "segment":
            length = algorithm.segment_length
            segment, streams, finished = rollout.segments(
                env, algorithm, params, ctx, key, state.streams, length
            )
            ended = finished.ended.sum().astype(jnp.int32)
            return Collected(
                batch=segment, summary=self.summary_of(finished), ended=ended, streams=streams
            )
        played = rollout.episodes(env, algorithm, params, ctx, key, run.num_envs, explore=True)
        batch: Episode | Segment = played.episode
        if algorithm.experience == "episode":
            batch = rollout.as_segment(played.episode, algorithm.initial_carry(run.num_envs))
        return Collected(batch=batch, summary=self.summary(played), ended=jnp.int32(run.num_envs))

    def store(
        self, state: TrainState, collected: Collected, hparams: HParams, clock: Clock
    ) -> tuple[TrainState, Clock]:
        """Keep what was collected; env_steps counts valid steps only."""
        batch, more = collected.batch, self.run.num_envs
        steps = batch.mask.sum().astype(jnp.int32)
        ring = replay.add(state.replay, batch, clock) if isinstance(batch, Episode) else None
        observe = self.algorithm.observe
        ctx = self.context(state, hparams, clock)
        learner = observe(state.learner, batch, ctx) if observe else state.learner
        state = state.replace(
            learner=learner,
            replay=ring,
            env_steps=state.env_steps + steps,
            streams=collected.streams,
        )
        return state, clock._replace(episodes=clock.episodes + more, stored=clock.stored + more)

    def update_now(
        self, state: TrainState, collected: Collected, hparams: HParams, clock: Clock
    ) -> tuple[TrainState, Clock, Array, Any]:
        """The updates on what was just collected: metrics [U] each, and done [U], all true."""
        ctx, key = self.context(state, hparams, clock), _key(state.seed, clock.iteration, UPDATE)
        learner = self.prepared(state.learner, state, ctx)
        learner, metrics = self.algorithm.update(learner, collected.batch, ctx, key)
        made = self.algorithm.updates_per_batch
        clock = clock._replace(updates=clock.updates + made)
        return state.replace(learner=learner), clock, jnp.ones(made, bool), metrics

    def prepared(self, learner: LearnerState, state: TrainState, ctx: Context) -> LearnerState:
        """What some learners do before an update: play with parameters of their choice."""
        if self.algorithm.before_update is None:
            return learner
        key = jax.random.fold_in(_key(state.seed, ctx.clock.iteration, PLAY), ctx.clock.updates)
        return self.algorithm.before_update(learner, partial(self.play_with, ctx), ctx, key)

    def chunk_offline(
        self,
        num_iterations: int,
        state: TrainState,
        hparams: HParams,
        shared: tuple[Clock, Episode],
    ) -> tuple[Any, Clock]:
        """`num_iterations` updates from a data set, which has the layout of a replay and is common to all runs.

        A run that has made its total_updates learns no more.
        """
        clock, data = shared
        steps = replay.steps_stored(data) if self.algorithm.window else None

        def body(carry: tuple[TrainState, Clock], _: None) -> Any:
            state, clock = carry
            active = state.updates < self.run.total_updates
            if self.algorithm.update_from:
                ctx, key = (
                    self.context(state, hparams, clock),
                    _key(state.seed, clock.iteration, UPDATE),
                )
                learner, metrics = self.algorithm.update_from(
                    state.learner, data, ctx, key, self.run.batch_size
                )
            else:
                stored = state.replace(replay=data)
                learner, metrics = self.update(state.learner, stored, hparams, clock, steps)
            learner = jax.tree.map(
                lambda new, old: jnp.where(active, new, old), learner, state.learner
            )
            state = state.replace(learner=learner, updates=state.updates + active)
            clock = clock._replace(iteration=clock.iteration + 1, updates=clock.updates + 1)
            update = jax.tree.map(lambda x: x[None], metrics)
            found = {"active": active, "collect": {}, "ended": jnp.int32(0), "update": update}
            return (state, clock), {**found, "done": jnp.ones(1, bool)}

        (state, clock), metrics = jax.lax.scan(body, (state, clock), length=num_iterations)
        return (state, metrics), clock

    def updates(
        self, state: TrainState, collected: Collected, hparams: HParams, clock: Clock
    ) -> tuple[TrainState, Clock, Array, Any]:
        """The updates from the replay due at this number of episodes: metrics [U], and done [U] (was u made?)."""
        most = math.ceil(self.ratio * self.run.num_envs)
        always = self.ratio * self.run.num_envs == most
        target = self.updates_due(clock.episodes)
        steps = (
            replay.steps_stored(state.replay) if self.algorithm.window else None
        )  # once for all updates

        def body(carry: tuple[LearnerState, Clock], _: None) -> Any:
            learner, clock = carry
            make = lambda: self.update(learner, state, hparams, clock, steps)  # noqa: E731
            if always:
                learner, metrics = make()
                return (learner, clock._replace(updates=clock.updates + 1)), (
                    jnp.bool_(True),
                    metrics,
                )
            due = clock.updates < target
            blank = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(make)[1])
            learner, metrics = jax.lax.cond(due, make, lambda: (learner, blank))
            return (learner, clock._replace(updates=clock.updates + due)), (due, metrics)

        (learner, clock), (done, metrics) = jax.lax.scan(body, (state.learner, clock), length=most)
        return state.replace(learner=learner), clock, done, metrics

    def update(
        self,
        learner: LearnerState,
        state: TrainState,
        hparams: HParams,
        clock: Clock,
        steps: Array | None = None,
    ) -> Any:
        """Draw a batch and make one optimiser step: (learner, metrics). steps: [C] of each slot, for windows."""
        ctx = self.context(state, hparams, clock)
        sample_key, update_key = (
            jax.random.fold_in(_key(state.seed, clock.iteration, stage), clock.updates)
            for stage in (SAMPLE, UPDATE)
        )
        learner = self.prepared(learner, state, ctx)
        batch = self.draw(state, ctx, sample_key, steps)
        branches = [
            lambda limit=limit: self.algorithm.update(
                learner, replay.crop(batch, limit), ctx, update_key
            )
            for limit in self.crops
        ]
        longest = jnp.max(batch.mask.sum(0)).astype(jnp.int32)
        return jax.lax.switch(jnp.sum(longest > jnp.array(self.crops[:-1], jnp.int32)), branches)

    def draw(self, state: TrainState, ctx: Context, key: Array, steps: Array | None) -> Episode:
        """A batch from the replay: whole episodes, or windows."""
        batch_size, window = self.run.batch_size, self.algorithm.window
        if window:
            assert steps is not None
            return replay.gather_windows(
                state.replay, *replay.uniform_transitions(key, steps, batch_size), window
            )
        assert self.algorithm.sample is not None
        capacity = state.replay.mask.shape[0]
        stored = jnp.int32(capacity) if self.offline else replay.num_stored(ctx.clock, capacity)
        return replay.gather(
            state.replay, self.algorithm.sample(key, stored, capacity, batch_size, ctx)
        )

    def evaluate(
        self, state: TrainState, hparams: HParams, clock: Clock, explore: bool = False
    ) -> tuple[dict[str, Array], Clock]:
        """Episodes with the evaluation's own keys, the same for every run and policy; nothing changes."""
        return self.summary(
            self.play(state, hparams, clock, self.run.eval.episodes, explore=explore)
        ), clock

    def play(
        self, state: TrainState, hparams: HParams, clock: Clock, episodes: int, keep_state: bool = False,
        explore: bool = False,
    ) -> rollout.Rollout:  # fmt: skip
        """Episodes, `eval_envs` at a time: greedy, or with the exploration of training at the present step."""
        ctx, params = self.context(state, hparams, clock), state.learner.params
        env, batch = self.evaluator, min(episodes, self.eval_envs)

        def play(key: Array) -> rollout.Rollout:
            return rollout.episodes(
                env, self.algorithm, params, ctx, key, batch, explore, keep_state
            )

        # the same key for every run, but one of its own, so that vmapped runs have environments of their own on a host
        own = (0 * state.seed).astype(jnp.uint32)
        key = jax.random.wrap_key_data(
            jax.random.key_data(jax.random.key(self.run.eval.seed)) ^ own
        )
        if batch == episodes:
            return play(key)
        return rollout.joined(
            jax.lax.map(play, jax.random.split(key, math.ceil(episodes / batch))), episodes
        )

    def play_with(
        self, ctx: Context, params: dict[str, Any], key: Array, episodes: int
    ) -> rollout.Rollout:
        """Greedy episodes of these parameters in the environment of training, all at once; they count nowhere."""
        return rollout.episodes(self.env, self.algorithm, params, ctx, key, episodes, explore=False)

    def context(self, state: TrainState, hparams: HParams, clock: Clock) -> Context:
        """What parts may read besides their data."""
        return Context(
            hparams=hparams,
            clock=clock,
            env_steps=state.env_steps,
            total_env_steps=self.run.total_env_steps,
        )

    def summary(self, played: rollout.Rollout) -> dict[str, Array]:
        """Means over episodes: return, length, and every info ("won" becomes win_rate)."""
        info = {"win_rate" if name == "won" else name: x.mean() for name, x in played.info.items()}
        return {
            "return": self.returns(played.episode).mean(),
            "length": played.episode.mask.sum(0).mean(),
            **info,
        }

    def summary_of(self, finished: rollout.Finished) -> dict[str, Array]:
        """`summary` of the episodes that ended in a segment; zeros where none did."""
        team = finished.reward[..., 0] if self.env.spec.common_reward else finished.reward.sum(-1)
        info = {"win_rate" if name == "won" else name: x for name, x in finished.info.items()}
        sums = {"return": team, "length": finished.steps.astype(jnp.float32), **info}
        return {name: masked_mean(x, finished.ended) for name, x in sums.items()}

    def returns(self, episode: Episode) -> Array:
        """Undiscounted team return of each episode, [B]: the common reward once, or the sum over agents."""
        return self.returns_per_step(episode).sum(0)

    def returns_per_step(self, episode: Episode) -> Array:
        """Team reward of each step, [T, B], 0 after the end."""
        team = episode.reward[..., 0] if self.env.spec.common_reward else episode.reward.sum(-1)
        return team * episode.mask

    @property
    def offline(self) -> bool:
        """Whether it learns from a data set and never collects; its progress is counted in updates then."""
        return self.algorithm.experience == "dataset"

    @property
    def total(self) -> int:
        """Where a run ends, in environment steps, or in updates with a data set."""
        return self.run.total_updates if self.offline else self.run.total_env_steps

    @property
    def evaluator(self) -> Env:
        """The environment that evaluations play."""
        return self.eval_env or self.env

    @property
    def eval_envs(self) -> int:
        """Evaluation episodes at a time."""
        run = self.run
        return run.eval.num_envs or (run.eval.episodes if self.env.spec.pure else run.num_envs)

    def close(self) -> None:
        """End what the environments have started outside this process."""
        for env in (self.env, self.evaluator):
            if env.host:
                env.host.close()

    @property
    def ratio(self) -> Any:
        """Updates per episode, as a Fraction."""
        return update_ratio(self.run)

    @property
    def crops(self) -> list[int]:
        """Lengths to which a batch may be cut: quarters of the episode limit, or of the window."""
        limit = self.algorithm.window or self.env.spec.episode_limit
        parts = 4 if self.crop and limit >= MIN_CROPPED_LIMIT else 1
        return [math.ceil(limit * (i + 1) / parts) for i in range(parts)]

    @property
    def prefill_iterations(self) -> int:
        """Collects before the first update."""
        if self.algorithm.experience != "replay":
            return 0
        # with a window batch_size counts steps
        counted = self.run.num_envs * (self.env.spec.episode_limit if self.algorithm.window else 1)
        return math.ceil(self.run.batch_size / counted)

    @property
    def steps_per_iteration(self) -> int:
        """Most that a run advances in one iteration, in what `total` is counted in."""
        if self.offline:
            return 1
        return self.run.num_envs * (self.algorithm.segment_length or self.env.spec.episode_limit)

    @property
    def updates_per_iteration(self) -> float:
        """Optimiser steps of a run in one iteration, on average."""
        if self.algorithm.experience == "replay":
            return float(self.ratio * self.run.num_envs)
        return 1 if self.offline else self.algorithm.updates_per_batch

    def updates_due(self, episodes: Array) -> Array:
        """How many updates should have been made once so many episodes are stored."""
        counted = episodes - self.prefill_iterations * self.run.num_envs
        return counted // self.ratio.denominator * self.ratio.numerator + (
            counted % self.ratio.denominator * self.ratio.numerator // self.ratio.denominator
        )

    def batch_shapes(self) -> Any:
        """Shapes of one collect: an Episode, or on policy a Segment."""
        return self._shapes[1]

    def state_shapes(self) -> TrainState:
        """Shapes of a new learner, and of its streams if it has some; without a replay."""
        return self._shapes[0]

    @cached_property
    def _shapes(self) -> tuple[TrainState, Any]:  # traced once: it takes a second or more
        hparams = {name: jnp.float32(value) for name, value in self.algorithm.hparams.items()}

        def collect() -> Any:
            zero, streams = jnp.int32(0), None
            if self.algorithm.experience == "segment":
                streams = rollout.start(
                    self.env, self.algorithm, jax.random.key(0), self.run.num_envs
                )
            learner = self.algorithm.init(jax.random.key(0))
            state = TrainState(
                seed=zero,
                learner=learner,
                replay=None,
                env_steps=zero,
                updates=zero,
                streams=streams,
            )
            return state, self.explore(state, hparams, start_clock()).batch

        return jax.eval_shape(collect)


def start_clock() -> Clock:
    """All zeros."""
    return Clock(*[jnp.int32(0)] * len(Clock._fields))


def _key(seed: Array, iteration: Array, stage: int) -> Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), iteration), stage)

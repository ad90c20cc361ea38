"""What a run counts: updates for episodes, iterations of the prefill, lengths of batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import jax
import jax.numpy as jnp

from jaxshare.settings.records import RunConfig, update_ratio
from jaxshare.types import Algorithm, Array, Clock, Env

MIN_CROPPED_LIMIT = 40  # shorter episodes are not worth four compiled updates


def start_clock() -> Clock:
    """All zeros."""
    return Clock(*[jnp.int32(0)] * len(Clock._fields))


@dataclass(frozen=True)
class Counting:
    """The parts of a run, and what follows from them before it is compiled.

    eval_env: with a pool of its own for an environment on the host; None: env;
    crop: unroll only as far as the longest sampled episode, or pack; off where what is measured
    must not hang on how long episodes are.
    """

    env: Env
    algorithm: Algorithm
    run: RunConfig
    eval_env: Env | None = None
    crop: bool = True

    @property
    def offline(self) -> bool:
        """Whether it learns from a data set and never collects; its progress is counted in updates
        then.
        """
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
        if run.eval.num_envs:
            return run.eval.num_envs
        return run.eval.episodes if self.env.spec.pure else run.num_envs

    @property
    def ratio(self) -> Fraction:
        """Updates per episode."""
        return update_ratio(self.run)

    @property
    def crops(self) -> list[int]:
        """Lengths to which a batch may be cut: quarters of the episode limit, or of the window."""
        limit = self.algorithm.window or self.env.spec.episode_limit
        parts = 4 if self.crop and limit >= MIN_CROPPED_LIMIT else 1
        return [math.ceil(limit * (i + 1) / parts) for i in range(parts)]

    @property
    def packs(self) -> bool:
        """Whether batches have several episodes a row (packing.py), instead of being cut.

        ours: with several shards each has batches of its own, which are cut. On an accelerator
        time is expected to follow the steps of a row more than the rows; that was not measured.
        """
        limit = self.env.spec.episode_limit
        run = self.run
        if not self.crop or limit < MIN_CROPPED_LIMIT or run.parallel.num_shards > 1:
            return False
        on_cpu = jax.default_backend() == "cpu"
        wanted = run.replay.packed == "always" or (run.replay.packed == "auto" and on_cpu)
        return wanted and not self.algorithm.whole_rows

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

    @property
    def most_updates(self) -> int:
        """Updates from the replay that may be due in one iteration."""
        return math.ceil(self.ratio * self.run.num_envs)

    @property
    def always_as_many(self) -> bool:
        """Whether so many are due in every iteration."""
        return self.ratio * self.run.num_envs == self.most_updates

    def updates_due(self, episodes: Array) -> Array:
        """How many updates [] should have been made once so many episodes [] are stored, i32."""
        counted = episodes - self.prefill_iterations * self.run.num_envs
        num = self.ratio.numerator
        den = self.ratio.denominator
        # whole multiples apart from the rest, so that no product overflows
        return counted // den * num + counted % den * num // den

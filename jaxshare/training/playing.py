"""Playing: collecting with exploration, evaluating, and what is said of the episodes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxshare.ops.masking import masked_mean
from jaxshare.training import rollout, streams
from jaxshare.training.counting import Counting
from jaxshare.training.keys import COLLECT, stage_key
from jaxshare.training.rollout import Players, Rollout
from jaxshare.trees import Params
from jaxshare.types import Array, Clock, Context, Episode, HParams, Segment, TrainState

OF_AGENT = "return/agent_"  # and its number: an agent's own return, where rewards are not common
BEST_AGENT = "return/best_agent"
WORST_AGENT = "return/worst_agent"


class Collected(struct.PyTreeNode):
    """What an iteration learns from."""

    batch: Episode | Segment  # [T(+1), num_envs, ...]
    summary: dict[str, Array]  # {name: []} means over the episodes that ended
    ended: Array  # [] i32: how many did
    streams: streams.Streams | None = None  # after it


@dataclass(frozen=True)
class Playing(Counting):
    """All of a run that plays. Methods are pure; `state` is one run's, un-batched."""

    def context(self, state: TrainState, hparams: HParams, clock: Clock) -> Context:
        """What parts may read besides their data."""
        return Context(
            hparams=hparams,
            clock=clock,
            env_steps=state.env_steps,
            total_env_steps=self.run.total_env_steps,
            shards=self.run.parallel.num_shards,
        )

    def explore(self, state: TrainState, hparams: HParams, clock: Clock) -> Collected:
        """Play num_envs episodes, or the next steps of num_envs streams, with exploration.

        Nothing changes.
        """
        ctx = self.context(state, hparams, clock)
        key = stage_key(state.seed, clock.iteration, COLLECT)
        algorithm = self.algorithm
        players = Players(self.env, algorithm, state.learner.params, ctx, explore=True)

        # the next steps of the streams
        if algorithm.experience == "segment":
            segment, after, finished = streams.segments(
                players, key, state.streams, algorithm.segment_length
            )
            ended = finished.ended.sum().astype(jnp.int32)
            return Collected(segment, self.summary_of(finished), ended, after)

        # whole episodes
        num_envs = self.run.num_envs
        played = rollout.episodes(players, key, num_envs)
        batch: Episode | Segment = played.episode
        if algorithm.experience == "episode":
            batch = rollout.as_segment(played.episode, algorithm.initial_carry(num_envs))
        return Collected(batch, self.summary(played), jnp.int32(num_envs))

    def evaluate(
        self, state: TrainState, hparams: HParams, clock: Clock, explore: bool = False
    ) -> tuple[dict[str, Array], Clock]:
        """Episodes with the evaluation's own keys, the same for every run and policy; nothing
        changes.
        """
        episodes = self.run.eval.episodes
        played = self.play(state, hparams, clock, episodes, explore=explore)
        return self.scores(played), clock

    def play(
        self,
        state: TrainState,
        hparams: HParams,
        clock: Clock,
        episodes: int,
        keep_state: bool = False,
        explore: bool = False,
    ) -> Rollout:
        """Episodes, `eval_envs` at a time.

        explore: with the exploration of training at the present step, or greedily.
        """
        ctx = self.context(state, hparams, clock)
        players = Players(self.evaluator, self.algorithm, state.learner.params, ctx, explore)
        batch = min(episodes, self.eval_envs)

        def play(key: Array) -> Rollout:
            return rollout.episodes(players, key, batch, keep_state)

        # the same key for every run, but one of its own, so that vmapped runs have environments of
        # their own on a host
        of_run = (0 * state.seed).astype(jnp.uint32)
        data = jax.random.key_data(jax.random.key(self.run.eval.seed))
        key = jax.random.wrap_key_data(data ^ of_run)
        if batch == episodes:
            return play(key)
        keys = jax.random.split(key, math.ceil(episodes / batch))
        return rollout.joined(jax.lax.map(play, keys), episodes)

    def play_with(
        self,
        ctx: Context,
        params: Params,
        key: Array,
        episodes: int,
        act: Callable[..., Any] | None = None,
    ) -> Rollout:
        """Greedy episodes of these parameters in the environment of training, all at once.

        key: []. They count nowhere. act: in the place of the algorithm's.
        """
        algorithm = replace(self.algorithm, act=act) if act else self.algorithm
        players = Players(self.env, algorithm, params, ctx, explore=False)
        return rollout.episodes(players, key, episodes)

    # ------------------------------------------------------------------- what is said of them

    def scores(self, played: Rollout) -> dict[str, Array]:
        """`summary`, and the mean returns of the agents that have the highest and the lowest."""
        means = self.summary(played)
        alone = [mean for name, mean in means.items() if name.startswith(OF_AGENT)]
        if not alone:
            return means
        ranked = jnp.stack(alone)
        return {**means, BEST_AGENT: ranked.max(), WORST_AGENT: ranked.min()}

    def summary(self, played: Rollout) -> dict[str, Array]:
        """Means over episodes: return, length, and every info ("won" becomes win_rate).

        Also each agent's own return, where rewards differ.
        """
        episode = played.episode
        info = {_shown(name): x.mean() for name, x in played.info.items()}
        by_agent = self._by_agent((episode.reward * episode.mask[..., None]).sum(0))
        return {
            "return": self.returns(episode).mean(),
            "length": episode.mask.sum(0).mean(),
            **{name: x.mean() for name, x in by_agent.items()},
            **info,
        }

    def summary_of(self, finished: streams.Finished) -> dict[str, Array]:
        """`summary` of the episodes that ended in a segment; zeros where none did."""
        returns = self.env.spec.team_reward(finished.reward)
        lengths = finished.steps.astype(jnp.float32)
        info = {_shown(name): x for name, x in finished.info.items()}
        by_agent = self._by_agent(finished.reward)
        sums = {"return": returns, "length": lengths, **by_agent, **info}
        return {name: masked_mean(x, finished.ended) for name, x in sums.items()}

    def _by_agent(self, x: Array) -> dict[str, Array]:
        """Numbers [..., N] of each agent by name, {} where all agents are paid alike."""
        if self.env.spec.common_reward:
            return {}
        return {f"{OF_AGENT}{i}": x[..., i] for i in range(self.env.spec.num_agents)}

    def returns(self, episode: Episode) -> Array:
        """Undiscounted team return of each episode, [B]: the common reward once, or the sum over
        agents.
        """
        return self.returns_per_step(episode).sum(0)

    def returns_per_step(self, episode: Episode) -> Array:
        """Team reward of each step, [T, B], 0 after the end."""
        return self.env.spec.team_reward(episode.reward) * episode.mask


def _shown(name: str) -> str:
    return "win_rate" if name == "won" else name

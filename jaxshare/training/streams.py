"""Streams of episodes, one after the other, of which a segment is a piece."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from jaxshare.ops.spread import is_spread, spread
from jaxshare.training.rollout import PADDING, Players, where
from jaxshare.trees import Carry, EnvState
from jaxshare.types import Algorithm, Array, Env, Segment, TimeStep

# state, what is shown and memory, where an episode begins or goes on
Begun = tuple[EnvState, TimeStep, Carry]


class Streams(struct.PyTreeNode):
    """B streams of episodes between two segments."""

    env_state: EnvState  # [B, ...]
    timestep: TimeStep  # [B, ...]
    carry: Carry  # [B, N, ...] memory of the acting network
    first: Array  # [B] bool: the next step is the first of its episode
    reward: Array  # [B, N] sums over the present episode so far
    steps: Array  # [B] i32 of the present episode so far
    info: dict[str, Array]  # {name: [B]} sums over the present episode so far


class Finished(struct.PyTreeNode):
    """Episodes as they end in a segment: sums over each of them, anything where none ends."""

    ended: Array  # [T, B] bool
    reward: Array  # [T, B, N]
    steps: Array  # [T, B] i32
    info: dict[str, Array]  # {name: [T, B]}


class Step(struct.PyTreeNode):
    """One step of all streams."""

    before: TimeStep
    after: TimeStep  # before any reset
    action: Array
    first: Array
    extras: dict[str, Array]
    finished: Finished


def start(env: Env, algorithm: Algorithm, key: Array, num_envs: int) -> Streams:
    """New streams, each before the first step of an episode. key: []."""
    env_state, timestep = jax.vmap(env.reset)(spread(jax.random.split(key, num_envs)))
    carry = algorithm.initial_carry(num_envs)
    first = jnp.ones(num_envs, bool)

    # nothing is summed yet
    reward = jnp.zeros_like(timestep.reward)
    steps = jnp.zeros(num_envs, jnp.int32)
    info = jax.tree.map(jnp.zeros_like, timestep.info)
    return Streams(env_state, timestep, carry, first, reward, steps, info)


def segments(
    players: Players, key: Array, streams: Streams, length: int
) -> tuple[Segment, Streams, Finished]:
    """The next `length` steps of the streams, with exploration. key: [].

    An episode that ends is followed by a new one. The reset is outside the environment, so that the
    true successor of every step is kept. It is a branch that is taken only where an episode ends
    somewhere (under vmap, and over several devices, it always is).
    """
    env = players.env
    num_envs = streams.first.shape[0]
    blank = players.algorithm.initial_carry(num_envs)

    def play_step(now: Streams, key: Array) -> tuple[Streams, Step]:
        act_key, env_key, reset_key = jax.random.split(key, 3)
        memory, action, extras = players.act(now.carry, now.timestep, act_key)
        env_keys = spread(jax.random.split(env_key, num_envs))
        env_state, successor = jax.vmap(env.step)(now.env_state, action, env_keys)
        ended = successor.terminated | successor.truncated
        reward = now.reward + successor.reward
        steps = now.steps + 1
        info = jax.tree.map(jnp.add, now.info, successor.info)
        sums = Finished(ended=ended, reward=reward, steps=steps, info=info)

        # where an episode has ended a new one begins, with an empty memory
        def renew() -> Begun:
            fresh = jax.vmap(env.reset)(spread(jax.random.split(reset_key, num_envs)))
            return where(ended, (*fresh, blank), (env_state, successor, memory))

        def go_on() -> Begun:
            return env_state, successor, memory

        # several devices would have to ask one another at every step
        env_state, timestep, memory = (
            renew() if is_spread() else jax.lax.cond(ended.any(), renew, go_on)
        )

        # sums begin anew there as well
        totals = (sums.reward, sums.steps, sums.info)
        reward, steps, info = where(~ended, totals, jax.tree.map(jnp.zeros_like, totals))
        after = Streams(
            env_state=env_state,
            timestep=timestep,
            carry=memory,
            first=ended,
            reward=reward,
            steps=steps,
            info=info,
        )
        return after, Step(now.timestep, successor, action, now.first, extras, sums)

    after, played = jax.lax.scan(play_step, streams, jax.random.split(key, length))
    return _segment(played, streams.carry), after, played.finished


def _segment(played: Step, carry: Carry) -> Segment:
    """Steps with a leading [T] as a Segment; carry: memory before the first."""
    shown_before = {name: getattr(played.before, name) for name in PADDING}
    # what the action led to, before any reset
    led_to = {f"next_{name}": getattr(played.after, name) for name in ("obs", "state", "avail")}
    outcome = {name: getattr(played.after, name) for name in ("reward", "terminated", "truncated")}
    return Segment(
        **shown_before,
        **led_to,
        **outcome,
        action=played.action,
        mask=jnp.ones(played.first.shape),
        first=played.first,
        carry=carry,
        extras=played.extras,
    )

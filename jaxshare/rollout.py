"""Episodes: B environments stepped together and frozen after their end. Segments: pieces of streams of episodes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxshare.types import Algorithm, Array, Context, Env, Episode, Segment, TimeStep


@struct.dataclass
class Rollout:
    """What a collect gives."""

    episode: Episode  # [T(+1), B, ...]
    info: dict[str, Array]  # {name: [B]} summed over each episode
    env_state: Any = None  # [T+1, B, ...] when asked for (rendering)


def episodes(
    env: Env,
    algorithm: Algorithm,
    params: dict[str, Any],
    ctx: Context,
    key: Array,
    num_envs: int,
    explore: bool,
    keep_state: bool = False,
) -> Rollout:
    """Play one episode in each of `num_envs` environments with fixed parameters.

    Always scans episode_limit steps; after its end an environment is frozen and its steps have mask 0.
    """
    reset_key, step_key = jax.random.split(key)
    env_state, timestep = jax.vmap(env.reset)(jax.random.split(reset_key, num_envs))
    start = (env_state, timestep, algorithm.initial_carry(num_envs), jnp.ones(num_envs, bool))

    def step(carry: Any, key: Array) -> Any:
        env_state, timestep, agent_carry, running = carry
        act_key, env_key = jax.random.split(key)
        agent_carry, action, extras = algorithm.act(params, agent_carry, timestep, ctx, act_key, explore)
        stepped = jax.vmap(env.step)(env_state, action, jax.random.split(env_key, num_envs))
        new_state, new = _where(running, stepped, (env_state, timestep))
        ended = new.terminated | new.truncated
        record = (timestep, action, new.reward, new.terminated, new.truncated, running, new.info, extras)
        kept = env_state if keep_state else None
        return (new_state, new, agent_carry, running & ~ended), (record, kept)

    (last_state, last, _, _), (records, states) = jax.lax.scan(
        step, start, jax.random.split(step_key, env.spec.episode_limit)
    )
    shown, action, reward, terminated, truncated, mask, info, extras = records
    rollout = _pack(shown, last, action, reward, terminated, truncated, mask, info, extras)
    if keep_state:
        rollout = rollout.replace(env_state=_append(states, last_state))  # type: ignore[attr-defined]
    return rollout


@struct.dataclass
class Streams:
    """B streams of episodes between two segments."""

    env_state: Any  # [B, ...]
    timestep: TimeStep  # [B, ...]
    carry: Any  # [B, N, ...] memory of the acting network
    first: Array  # [B] bool: the next step is the first of its episode
    reward: Array  # [B, N] sums over the present episode so far
    steps: Array  # [B] i32 of the present episode so far
    info: dict[str, Array]  # {name: [B]} sums over the present episode so far


@struct.dataclass
class Finished:
    """Episodes as they end in a segment: sums over each of them, anything where none ends."""

    ended: Array  # [T, B] bool
    reward: Array  # [T, B, N]
    steps: Array  # [T, B] i32
    info: dict[str, Array]  # {name: [T, B]}


def start(env: Env, algorithm: Algorithm, key: Array, num_envs: int) -> Streams:
    """New streams, each before the first step of an episode."""
    env_state, timestep = jax.vmap(env.reset)(jax.random.split(key, num_envs))
    return Streams(
        env_state=env_state,
        timestep=timestep,
        carry=algorithm.initial_carry(num_envs),
        first=jnp.ones(num_envs, bool),
        reward=jnp.zeros_like(timestep.reward),
        steps=jnp.zeros(num_envs, jnp.int32),
        info=jax.tree.map(jnp.zeros_like, timestep.info),
    )


def segments(
    env: Env, algorithm: Algorithm, params: dict[str, Any], ctx: Context, key: Array, streams: Streams, length: int
) -> tuple[Segment, Streams, Finished]:
    """The next `length` steps of the streams, with exploration. An episode that ends is followed by a new one.

    The reset is outside the environment, so that the true successor of every step is kept. It is a branch that is
    taken only where an episode ends somewhere (under vmap it always is).
    """
    num_envs = streams.first.shape[0]
    blank = algorithm.initial_carry(num_envs)

    def step(streams: Streams, key: Array) -> Any:
        act_key, env_key, reset_key = jax.random.split(key, 3)
        seen = streams.timestep
        carry, action, extras = algorithm.act(params, streams.carry, seen, ctx, act_key, True)
        env_state, new = jax.vmap(env.step)(streams.env_state, action, jax.random.split(env_key, num_envs))
        ended = new.terminated | new.truncated
        sums = (streams.reward + new.reward, streams.steps + 1, jax.tree.map(jnp.add, streams.info, new.info))

        def renew() -> Any:
            fresh = jax.vmap(env.reset)(jax.random.split(reset_key, num_envs))
            return _where(ended, (*fresh, blank), (env_state, new, carry))

        env_state, timestep, carry = jax.lax.cond(ended.any(), renew, lambda: (env_state, new, carry))
        reward, steps, info = _where(~ended, sums, jax.tree.map(jnp.zeros_like, sums))
        after = Streams(
            env_state=env_state, timestep=timestep, carry=carry, first=ended, reward=reward, steps=steps, info=info
        )
        record = (seen, new, action, streams.first, extras)
        return after, (record, Finished(ended=ended, reward=sums[0], steps=sums[1], info=sums[2]))

    after, ((seen, new, action, first, extras), finished) = jax.lax.scan(step, streams, jax.random.split(key, length))
    segment = Segment(
        obs=seen.obs, state=seen.state, avail=seen.avail, alive=seen.alive, action=action, reward=new.reward,
        terminated=new.terminated, truncated=new.truncated, mask=jnp.ones(first.shape), next_obs=new.obs,
        next_state=new.state, next_avail=new.avail, first=first, carry=streams.carry, extras=extras,
    )  # fmt: skip
    return segment, after, finished


def as_segment(episode: Episode, carry: Any) -> Segment:
    """Whole episodes as pieces of streams. carry: memory of the acting network before the first step, [B, N, ...]."""
    kept = {name: getattr(episode, name) for name in ("action", "reward", "terminated", "truncated", "mask", "extras")}
    shown = {name: getattr(episode, name)[:-1] for name in ("obs", "state", "avail", "alive")}
    later = {f"next_{name}": getattr(episode, name)[1:] for name in ("obs", "state", "avail")}
    first = jnp.zeros(episode.mask.shape, bool).at[0].set(True)
    return Segment(**kept, **shown, **later, first=first, carry=carry)


def joined(rounds: Rollout, num_episodes: int) -> Rollout:
    """Rollouts stacked along a leading axis, [rounds, T, B, ...], as one of the first `num_episodes` episodes."""

    def side_by_side(x: Array) -> Array:
        x = jnp.moveaxis(x, 0, 1)
        # not -1: it is undefined for the empty `avail` of continuous actions
        return x.reshape(x.shape[0], x.shape[1] * x.shape[2], *x.shape[3:])[:, :num_episodes]

    info = {name: x.reshape(-1)[:num_episodes] for name, x in rounds.info.items()}
    episode, env_state = jax.tree.map(side_by_side, (rounds.episode, rounds.env_state))
    return Rollout(episode=episode, info=info, env_state=env_state)


def _where(condition: Array, new: Any, old: Any) -> Any:
    def select(n: Array, o: Array) -> Array:
        return jnp.where(condition.reshape(condition.shape + (1,) * (n.ndim - 1)), n, o)

    return jax.tree.map(select, new, old)


def _append(sequence: Any, last: Any) -> Any:
    return jax.tree.map(lambda s, e: jnp.concatenate([s, e[None]]), sequence, last)


def _pack(
    shown: TimeStep, last: TimeStep, action: Array, reward: Array, terminated: Array, truncated: Array, mask: Array,
    info: dict[str, Array], extras: dict[str, Array],
) -> Rollout:  # fmt: skip
    steps = _append(shown, last)
    # slot t is real if it was reached: slot 0 always, slot t + 1 if step t was taken
    reached = jnp.concatenate([jnp.ones_like(mask[:1]), mask])

    def blank(x: Array, value: Any) -> Array:
        return jnp.where(reached.reshape(reached.shape + (1,) * (x.ndim - 2)), x, value)

    def on(x: Array) -> Array:
        return jnp.where(mask.reshape(mask.shape + (1,) * (x.ndim - 2)), x, jnp.zeros((), x.dtype))

    episode = Episode(
        obs=blank(steps.obs, 0.0),
        state=blank(steps.state, 0.0),
        avail=blank(steps.avail, True),
        alive=blank(steps.alive, False),
        action=on(action),
        reward=on(reward),
        terminated=on(terminated),
        truncated=on(truncated),
        mask=mask.astype(jnp.float32),
        extras=jax.tree.map(on, extras),
    )
    return Rollout(episode=episode, info={name: on(x).sum(0) for name, x in info.items()})

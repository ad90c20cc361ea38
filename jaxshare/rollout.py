"""Episodes: B environments stepped together and frozen after their end. Segments: pieces of streams of episodes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.custom_batching import custom_vmap

from jaxshare.types import Algorithm, Array, Context, Env, Episode, Segment, TimeStep

PADDING = {
    "obs": 0.0,
    "state": 0.0,
    "avail": True,
    "alive": False,
}  # where an episode did not get; 0 in other fields


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
    """Play one episode in each of `num_envs` environments with fixed parameters, until the last of them has ended.

    Under vmap until all have in every run. After its end an environment is frozen, and all that follows is padding,
    whether it was still asked for actions or not: mask, action, reward, terminated, truncated, extras, obs, state and
    alive are 0, avail is 1. The state kept for rendering stays as it ended.
    """
    limit = env.spec.episode_limit
    reset_key, step_key = jax.random.split(key)
    env_state, timestep = jax.vmap(env.reset)(jax.random.split(reset_key, num_envs))
    everywhere = jnp.ones(num_envs, bool)
    start = (env_state, timestep, algorithm.initial_carry(num_envs), everywhere)
    # a key for every step up to the limit: what is drawn does not depend on how many are taken
    keys = jax.random.split(step_key, limit)

    def act(played: Any, key: Array) -> Any:
        return algorithm.act(params, played[2], played[1], ctx, key, explore)

    def step(loop: Any) -> Any:
        t, played, slots, steps = loop
        env_state, timestep, _, running = played
        act_key, env_key = jax.random.split(keys[t])
        agent_carry, action, extras = act(played, act_key)
        stepped = jax.vmap(env.step)(env_state, action, jax.random.split(env_key, num_envs))
        env_state, timestep = _where(running, stepped, (env_state, timestep))
        slots = _put(slots, _slot(timestep, running, env_state if keep_state else None), t + 1)
        steps = _put(steps, _step(timestep, running, action, extras), t)
        return t + 1, (env_state, timestep, agent_carry, running & ~_ended(timestep)), slots, steps

    kept = env_state if keep_state else None
    slots = _put(
        _repeat(_slot(timestep, ~everywhere, kept), limit + 1), _slot(timestep, everywhere, kept), 0
    )
    _, action, extras = jax.eval_shape(act, start, keys[0])
    steps = _repeat(_zeros(jax.eval_shape(_step, timestep, everywhere, action, extras)), limit)
    more = lambda loop: (loop[0] < limit) & _any(loop[1][-1])  # noqa: E731
    end, (last, *_), slots, steps = jax.lax.while_loop(
        more, step, (jnp.int32(0), start, slots, steps)
    )
    states, info = slots.pop("env_state"), steps.pop("info")
    if keep_state:
        states = _where(jnp.arange(limit + 1) > end, _repeat(last, 1), states)
    info = {name: x.sum(0) for name, x in info.items()}
    return Rollout(episode=Episode(**slots, **steps), info=info, env_state=states)


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
    env: Env,
    algorithm: Algorithm,
    params: dict[str, Any],
    ctx: Context,
    key: Array,
    streams: Streams,
    length: int,
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
        env_state, new = jax.vmap(env.step)(
            streams.env_state, action, jax.random.split(env_key, num_envs)
        )
        ended = new.terminated | new.truncated
        sums = (
            streams.reward + new.reward,
            streams.steps + 1,
            jax.tree.map(jnp.add, streams.info, new.info),
        )

        def renew() -> Any:
            fresh = jax.vmap(env.reset)(jax.random.split(reset_key, num_envs))
            return _where(ended, (*fresh, blank), (env_state, new, carry))

        env_state, timestep, carry = jax.lax.cond(
            ended.any(), renew, lambda: (env_state, new, carry)
        )
        reward, steps, info = _where(~ended, sums, jax.tree.map(jnp.zeros_like, sums))
        after = Streams(
            env_state=env_state,
            timestep=timestep,
            carry=carry,
            first=ended,
            reward=reward,
            steps=steps,
            info=info,
        )
        record = (seen, new, action, streams.first, extras)
        return after, (record, Finished(ended=ended, reward=sums[0], steps=sums[1], info=sums[2]))

    after, ((seen, new, action, first, extras), finished) = jax.lax.scan(
        step, streams, jax.random.split(key, length)
    )
    segment = Segment(
        obs=seen.obs, state=seen.state, avail=seen.avail, alive=seen.alive, action=action, reward=new.reward,
        terminated=new.terminated, truncated=new.truncated, mask=jnp.ones(first.shape), next_obs=new.obs,
        next_state=new.state, next_avail=new.avail, first=first, carry=streams.carry, extras=extras,
    )  # fmt: skip
    return segment, after, finished


def as_segment(episode: Episode, carry: Any) -> Segment:
    """Whole episodes as pieces of streams. carry: memory of the acting network before the first step, [B, N, ...]."""
    kept = {
        name: getattr(episode, name)
        for name in ("action", "reward", "terminated", "truncated", "mask", "extras")
    }
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


def _slot(timestep: TimeStep, reached: Array, env_state: Any) -> dict[str, Any]:
    """One slot of the fields of an Episode that have T+1, [B, ...] each. reached: [B] bool, or padding."""
    shown = {name: getattr(timestep, name) for name in PADDING}
    return {**_where(reached, shown, PADDING), "env_state": env_state}


def _step(
    timestep: TimeStep, running: Array, action: Array, extras: dict[str, Array]
) -> dict[str, Any]:
    """One slot of the other fields and of info, [B, ...] each. running: [B] bool, or padding."""
    given = {
        name: getattr(timestep, name) for name in ("reward", "terminated", "truncated", "info")
    }
    taken = {**given, "action": action, "extras": extras}
    return {**_where(running, taken, _zeros(taken)), "mask": running.astype(jnp.float32)}


def _ended(timestep: TimeStep) -> Array:
    return timestep.terminated | timestep.truncated


def _zeros(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree)


def _repeat(tree: Any, times: int) -> Any:
    return jax.tree.map(lambda x: jnp.broadcast_to(x[None], (times, *x.shape)), tree)


def _put(buffers: Any, values: Any, t: Array | int) -> Any:
    return jax.tree.map(
        lambda x, new: jax.lax.dynamic_update_index_in_dim(x, new, t, 0), buffers, values
    )


@custom_vmap
def _any(running: Array) -> Array:
    """Whether anything runs, [] bool. Under vmap: in any run, so that a loop ends for all of them at once.

    A loop that ended for each run on its own would have to choose between old and new buffers at every step.
    """
    return running.any()


@_any.def_vmap
def _any_of_all(axis_size: int, in_batched: list[bool], running: Array) -> tuple[Array, bool]:
    return _any(running), False

"""Episodes: B environments stepped together and frozen after their end."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxshare.types import Algorithm, Array, Context, Env, Episode, TimeStep


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


def joined(rounds: Rollout, num_episodes: int) -> Rollout:
    """Rollouts stacked along a leading axis, [rounds, T, B, ...], as one of the first `num_episodes` episodes."""

    def side_by_side(x: Array) -> Array:
        x = jnp.moveaxis(x, 0, 1)
        return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :num_episodes]

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

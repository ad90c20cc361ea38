"""Whole episodes: B environments stepped together and frozen after their end."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

from jaxshare.ops.blank import zeros
from jaxshare.ops.runs import in_any_run
from jaxshare.ops.spread import is_spread, spread
from jaxshare.trees import Carry, EnvState, Params, Tree
from jaxshare.types import Algorithm, Array, Context, Env, Episode, Segment, TimeStep

# where an episode did not get; 0 in other fields
PADDING = {"obs": 0.0, "state": 0.0, "avail": True, "alive": False}
STATE = "env_state"  # of a slot, where it is kept
# steps after which several devices ask whether anything still runs: each question waits for all
STEPS_UNASKED = 8


@dataclass(frozen=True)
class Players:
    """Who plays, where, and with which parameters; explore: or greedily."""

    env: Env
    algorithm: Algorithm
    params: Params
    ctx: Context
    explore: bool

    def act(
        self, memory: Carry, timestep: TimeStep, key: Array
    ) -> tuple[Carry, Array, dict[str, Array]]:
        """(memory, action, extras) of B environments.

        memory [B, N, ...], timestep [B, ...], key [] -> actions [B, N], or [B, N, U].
        """
        return self.algorithm.act(self.params, memory, timestep, self.ctx, key, self.explore)


class Rollout(struct.PyTreeNode):
    """What a collect gives."""

    episode: Episode  # [T(+1), B, ...]
    info: dict[str, Array]  # {name: [B]} summed over each episode
    env_state: EnvState = None  # [T+1, B, ...] when asked for (rendering)


class Playing(struct.PyTreeNode):
    """What the loop over steps carries."""

    time: Array  # [] i32
    env_state: EnvState  # [B, ...]
    timestep: TimeStep  # [B, ...] what the agents see now
    memory: Carry  # [B, N, ...]
    running: Array  # [B] bool: not ended yet
    slots: dict[str, Tree]  # fields with T+1 entries, written so far
    steps: dict[str, Tree]  # fields with T entries, written so far


def episodes(players: Players, key: Array, num_envs: int, keep_state: bool = False) -> Rollout:
    """Play one episode in each of `num_envs` environments with fixed parameters.

    Until the last of them has ended, under vmap until all have in every run. After its end an
    environment is frozen, and all that follows is padding, whether it was still asked for actions
    or not: mask, action, reward,
    terminated, truncated, extras, obs, state and alive are 0, avail is 1. The state kept for
    rendering stays as it ended. key: [].
    """
    env = players.env
    limit = env.spec.episode_limit
    reset_key, step_key = jax.random.split(key)
    # a key for every step up to the limit: what is drawn does not depend on how many are taken
    keys = jax.random.split(step_key, limit)

    def play_step(now: Playing) -> Playing:
        act_key, env_key = jax.random.split(keys[now.time])
        memory, action, extras = players.act(now.memory, now.timestep, act_key)

        # environments that have ended keep their last state and what they showed
        env_keys = spread(jax.random.split(env_key, num_envs))
        stepped = jax.vmap(env.step)(now.env_state, action, env_keys)
        before = (now.env_state, now.timestep)
        env_state, timestep = where(now.running, stepped, before)

        # slot t + 1 shows what the action of step t led to
        slot = _slot(timestep, now.running, env_state if keep_state else None)
        step = _step(timestep, now.running, action, extras)
        time = now.time + 1
        running = now.running & ~_ended(timestep)
        slots = _put(now.slots, slot, time)
        steps = _put(now.steps, step, now.time)
        return Playing(time, env_state, timestep, memory, running, slots, steps)

    def goes_on(now: Playing) -> Array:
        # a loop that ended for each run alone would choose between old and new buffers at each step
        return (now.time < limit) & in_any_run(now.running.any())

    def play_steps(now: Playing) -> Playing:
        until = jnp.minimum(now.time + STEPS_UNASKED, limit)
        return jax.lax.while_loop(lambda now: now.time < until, play_step, now)

    reset_keys = spread(jax.random.split(reset_key, num_envs))
    first = _begun(players, reset_keys, keys[0], keep_state)
    # several devices ask one another seldom; the steps behind the last end are padding either way
    end = jax.lax.while_loop(goes_on, play_steps if is_spread() else play_step, first)

    # what was written, as fields
    slots = dict(end.slots)
    steps = dict(end.steps)
    states = slots.pop(STATE)
    info = {name: x.sum(0) for name, x in steps.pop("info").items()}
    if keep_state:
        behind = jnp.arange(limit + 1) > end.time
        states = where(behind, _repeat(end.env_state, 1), states)
    return Rollout(episode=Episode(**slots, **steps), info=info, env_state=states)


def _begun(players: Players, reset_keys: Array, key: Array, keep_state: bool) -> Playing:
    """Before the first step: slot 0 is written, all that comes behind it is padding."""
    env = players.env
    limit = env.spec.episode_limit
    env_state, timestep = jax.vmap(env.reset)(reset_keys)
    memory = players.algorithm.initial_carry(len(reset_keys))
    everywhere = jnp.ones(len(reset_keys), bool)
    kept_state = env_state if keep_state else None

    # buffers of their final length
    padding = _repeat(_slot(timestep, ~everywhere, kept_state), limit + 1)
    slots = _put(padding, _slot(timestep, everywhere, kept_state), 0)
    _, action, extras = jax.eval_shape(players.act, memory, timestep, key)
    shapes = jax.eval_shape(_step, timestep, everywhere, action, extras)
    steps = _repeat(zeros(shapes), limit)
    return Playing(
        time=jnp.int32(0),
        env_state=env_state,
        timestep=timestep,
        memory=memory,
        running=everywhere,
        slots=slots,
        steps=steps,
    )


def as_segment(episode: Episode, carry: Carry) -> Segment:
    """Whole episodes as pieces of streams.

    carry: memory of the acting network before the first step, [B, N, ...].
    """
    before = {name: getattr(episode, name)[:-1] for name in PADDING}
    # what the action led to, before any reset
    after = {f"next_{name}": getattr(episode, name)[1:] for name in ("obs", "state", "avail")}
    first = jnp.zeros(episode.mask.shape, bool).at[0].set(True)
    return Segment(
        **before,
        **after,
        action=episode.action,
        reward=episode.reward,
        terminated=episode.terminated,
        truncated=episode.truncated,
        mask=episode.mask,
        first=first,
        carry=carry,
        extras=episode.extras,
    )


def joined(rounds: Rollout, num_episodes: int) -> Rollout:
    """Rollouts stacked along a leading axis as one, of the first `num_episodes` episodes.

    rounds: [rounds, T, B, ...].
    """

    def side_by_side(x: Array) -> Array:
        x = jnp.moveaxis(x, 0, 1)
        # not -1: it is undefined for the empty `avail` of continuous actions
        episodes = x.shape[1] * x.shape[2]
        x = x.reshape(x.shape[0], episodes, *x.shape[3:])
        return x[:, :num_episodes]

    info = {name: x.reshape(-1)[:num_episodes] for name, x in rounds.info.items()}
    episode, env_state = jax.tree.map(side_by_side, (rounds.episode, rounds.env_state))
    return Rollout(episode=episode, info=info, env_state=env_state)


def where(condition: Array, new: Tree, old: Tree) -> Tree:
    """new where the condition holds, else old: trees of [B, ...], condition [B]."""

    def select(n: Array, o: Array) -> Array:
        return jnp.where(condition.reshape(condition.shape + (1,) * (n.ndim - 1)), n, o)

    return jax.tree.map(select, new, old)


def _slot(timestep: TimeStep, reached: Array, env_state: EnvState) -> dict[str, Tree]:
    """One slot of the fields of an Episode that have T+1, [B, ...] each.

    reached: [B] bool, or padding.
    """
    fields = {name: getattr(timestep, name) for name in PADDING}
    return {**where(reached, fields, PADDING), STATE: env_state}


def _step(
    timestep: TimeStep, running: Array, action: Array, extras: dict[str, Array]
) -> dict[str, Tree]:
    """One slot of the other fields and of info, [B, ...] each. running: [B] bool, or padding."""
    taken = {
        "reward": timestep.reward,
        "terminated": timestep.terminated,
        "truncated": timestep.truncated,
        "info": timestep.info,
        "action": action,
        "extras": extras,
    }
    return {**where(running, taken, zeros(taken)), "mask": running.astype(jnp.float32)}


def _ended(timestep: TimeStep) -> Array:
    return timestep.terminated | timestep.truncated


def _repeat(tree: Tree, times: int) -> Tree:
    return jax.tree.map(lambda x: jnp.broadcast_to(x[None], (times, *x.shape)), tree)


def _put(buffers: Tree, values: Tree, t: Array | int) -> Tree:
    return jax.tree.map(
        lambda x, new: jax.lax.dynamic_update_index_in_dim(x, new, t, 0), buffers, values
    )

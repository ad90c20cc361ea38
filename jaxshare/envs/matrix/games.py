"""The small games themselves: one step, two steps, and a memory probe."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.envs.base import team_spec, time_step
from jaxshare.envs.matrix.tables import TWO_STEP
from jaxshare.types import Array, Discrete, Env, EnvSpec, TimeStep

PLAYERS = ("player",)  # all agents are of one type


def one_step(game: str, payoffs: np.ndarray, common_reward: bool = True) -> Env:
    """A matrix game. payoffs [A1, ..., AN, N]: what each agent gets."""
    num_agents = payoffs.shape[-1]
    choices = payoffs.shape[:-1]
    spec = team_spec(
        f"matrix/{game}",
        num_agents,
        obs_dim=1,
        action=Discrete(max(choices)),
        episode_limit=1,
        state_dim=1,
        group_names=PLAYERS,
        common_reward=common_reward,
    )

    # agents with fewer actions than others have the rest masked
    avail = np.arange(max(choices))[None, :] < np.array(choices)[:, None]
    obs = jnp.ones((num_agents, 1))
    state = jnp.ones(1)

    def reset(key: Array) -> tuple[Array, TimeStep]:
        return jnp.int32(0), time_step(spec, obs, state=state, avail=avail)

    def step(time: Array, action: Array, key: Array) -> tuple[Array, TimeStep]:
        reward = jnp.asarray(payoffs)[tuple(action[i] for i in range(num_agents))]
        timestep = time_step(spec, obs, reward=reward, terminated=True, state=state, avail=avail)
        return time + 1, timestep

    return Env(spec, reset, step)


def two_step() -> Env:
    """The two-step game of the QMIX paper. Its state is 0, then 1 + the first agent's choice."""
    spec = _pair_spec("two_step", episode_limit=2)
    tables = jnp.array(TWO_STEP, jnp.float32)

    def show(place: Array, reward: Array, over: Array | bool) -> TimeStep:
        state = jax.nn.one_hot(place, 3)
        obs = jnp.stack([state, state])
        return time_step(spec, obs, reward=reward, terminated=over, state=state)

    def reset(key: Array) -> tuple[Array, TimeStep]:
        return jnp.int32(0), show(jnp.int32(0), jnp.float32(0), False)

    def step(place: Array, action: Array, key: Array) -> tuple[Array, TimeStep]:
        # the first agent's choice leads to a table, which pays in the second step
        is_first = place == 0
        place = jnp.where(is_first, 1 + action[0], place).astype(jnp.int32)
        reward = jnp.where(is_first, 0.0, tables[place - 1, action[0], action[1]])
        return place, show(place, reward, ~is_first)

    return Env(spec, reset, step)


class RecallState(NamedTuple):
    """What `recall` remembers for the agents."""

    cue: Array  # [2] i32
    time: Array  # [] i32


def recall(delay: int) -> Env:
    """The memory probe: cues in the first step, answers `delay` steps later."""
    spec = _pair_spec("recall", episode_limit=delay + 1)

    def show(state: RecallState, reward: Array, over: Array | bool) -> TimeStep:
        # agents see their cue, one-hot, in the first step only; then 1 when it is time to answer
        cue = jnp.where(state.time == 0, jax.nn.one_hot(state.cue, 2), 0.0)
        answer = jnp.full((2, 1), state.time == delay, jnp.float32)
        obs = jnp.concatenate([cue, answer], axis=1)

        # the state has both cues and the clock
        clock = (state.time / (delay + 1)).astype(jnp.float32)
        whole = jnp.concatenate([state.cue.astype(jnp.float32), clock[None]])
        return time_step(spec, obs, reward=reward, terminated=over, state=whole)

    def reset(key: Array) -> tuple[RecallState, TimeStep]:
        state = RecallState(cue=jax.random.randint(key, (2,), 0, 2), time=jnp.int32(0))
        return state, show(state, jnp.float32(0), False)

    def step(state: RecallState, action: Array, key: Array) -> tuple[RecallState, TimeStep]:
        over = state.time >= delay
        reward = (over & jnp.all(action == state.cue)).astype(jnp.float32)
        state = state._replace(time=state.time + 1)
        return state, show(state, reward, over)

    return Env(spec, reset, step)


def _pair_spec(game: str, episode_limit: int) -> EnvSpec:
    """Two agents with two actions, three numbers each to see, and three of global state."""
    return team_spec(
        f"matrix/{game}",
        num_agents=2,
        obs_dim=3,
        action=Discrete(2),
        episode_limit=episode_limit,
        state_dim=3,
        group_names=PLAYERS,
    )

"""Small games with known values: one-step matrix games, the two-step game, and a memory probe.

Matrix games have one step, a constant observation and a constant state; entry [i][j] is paid when the first agent plays
i and the second j. `env.game=custom env.payoff=[[1,5],[5,9]]` plays any table; its depth is the number of agents, and
agents with fewer actions than others have the rest masked.

linear, monotonic: from Albrecht, Christianos and Schäfer's lecture on their book. climbing: also from there; Claus and
Boutilier (1998) have it transposed. penalty: Claus and Boutilier. stag_hunt: the textbook game, the only one with a
reward per agent. nm1, nm2: the non-monotonic games shipped with QPLEX (Wang et al. 2021). or, and stag_hunt_sum (the
sum of both agents' stag_hunt): ours.

two_step: section 5 of the QMIX paper (Rashid et al. 2018). The first agent's first action chooses the second step's
table: 7 everywhere, or [[0, 1], [1, 8]]. The best return is 8, and VDN settles for 7. The state is shown, one-hot, to
both agents. two_step_b is its second table alone.

recall: ours. Each agent sees a cue of its own (one of two) in the first step only, and `delay` steps later the team is
paid 1 if both name their cues. The best return is 1 with memory and 1/4 without.

All agents are of one type: where their tables differ, they are told apart by the agent id among the network's inputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.settings.fields import STEPS, free_text, static
from jaxshare.settings.validate import check_record
from jaxshare.types import Array, Discrete, Env, EnvSpec, RefusedError, TimeStep

ACTIONS = "discrete"
STAG_HUNT = [[[4, 4], [0, 3]], [[3, 0], [2, 2]]]  # the last axis is the agent
TABLES: dict[str, list] = {
    "linear": [[1, 5], [5, 9]],
    "monotonic": [[0, 0], [0, 10]],
    "climbing": [[11, -30, 0], [-30, 7, 0], [0, 6, 5]],
    "stag_hunt_sum": [[8, 3], [3, 4]],
    "nm1": [[8, -12, -12], [-12, 0, 0], [-12, 0, 0]],
    "nm2": [[8, -12, -12], [-12, 6, 0], [-12, 0, 6]],
    "or": [[0, 10], [10, 10]],
    "two_step_b": [[0, 1], [1, 8]],
}
TWO_STEP = [
    [[7, 7], [7, 7]],
    TABLES["two_step_b"],
]  # the first axis is the first agent's first action
GAMES = (*TABLES, "penalty", "stag_hunt", "two_step", "recall")


@dataclass(frozen=True)
class Config:
    """Settings of the small games."""

    game: str = static(
        "climbing",
        choices=(*GAMES, "custom"),
        help="which game",
        source="ours: the classic trap for value decomposition",
    )
    payoff: Any = free_text(None, help="the table of game=custom, as nested lists of numbers")
    penalty: float = static(
        -100.0,
        least=-1e6,
        most=1e6,
        help="what misses cost; only with game=penalty",
        source="paper: Claus and Boutilier 1998 vary it from 0 to -100",
    )
    delay: int = static(
        2,
        least=1,
        most=STEPS,
        note="With 0 there is nothing to remember.",
        help="steps between cue and answer; only with game=recall",
        source="ours",
    )


def scenarios() -> tuple[str, ...]:
    """Names of the games that need no table of their own."""
    return GAMES


def make(config: Config) -> Env:
    """One game. Raises RefusedError for an unknown game and for a table that is not one."""
    # a node of OmegaConf has the fields, but is no dataclass
    check_record(Config(**{f.name: getattr(config, f.name) for f in fields(Config)}), "env.")
    game = config.game
    if (config.payoff is not None) != (game == "custom"):
        raise RefusedError(
            f"env.game={game}: env.payoff=[[1,5],[5,9]] goes with env.game=custom, and only with it."
        )
    if game == "two_step":
        return _two_step()
    if game == "recall":
        return _recall(config.delay)
    if game == "stag_hunt":
        return _matrix(game, np.array(STAG_HUNT, np.float32), common_reward=False)
    table = _table(config)
    return _matrix(game, np.repeat(table[..., None], table.ndim, axis=-1), common_reward=True)


def _table(config: Config) -> np.ndarray:
    """The common payoff [A1, ..., AN] of a matrix game."""
    if config.game == "penalty":
        k = config.penalty
        return np.array([[k, 0, 10], [0, 2, 0], [10, 0, k]], np.float32)
    return np.array(parse_payoff(TABLES.get(config.game, config.payoff)), np.float32)


def parse_payoff(payoff: Any) -> Any:
    """Nested lists of floats, all of one shape and at least two deep. Raises RefusedError otherwise."""
    rows = _plain(payoff)
    shape = _shape(rows)
    if shape is None or len(shape) < 2:
        raise RefusedError(
            f"env.payoff={payoff}: expected a table of numbers with rows of equal length, such as [[1,5],[5,9]]."
        )
    return rows


def _plain(payoff: Any) -> Any:
    if isinstance(payoff, Sequence) and not isinstance(payoff, str):
        return [_plain(row) for row in payoff]
    is_number = (
        isinstance(payoff, int | float) and not isinstance(payoff, bool) and math.isfinite(payoff)
    )
    return float(payoff) if is_number else None


def _shape(rows: Any) -> tuple[int, ...] | None:
    """The shape of nested lists; None if they are ragged, empty, or hold anything but numbers."""
    if isinstance(rows, float):
        return ()
    shapes = {_shape(row) for row in rows or ()}
    inner = shapes.pop() if len(shapes) == 1 else None
    return None if inner is None else (len(rows), *inner)


def _matrix(game: str, payoffs: np.ndarray, common_reward: bool) -> Env:
    """A one-step game. payoffs [A1, ..., AN, N]: what each agent gets."""
    num_agents, choices = payoffs.shape[-1], payoffs.shape[:-1]
    spec = _spec(game, num_agents, max(choices), 1, 1, 1, common_reward)
    avail = np.arange(max(choices))[None, :] < np.array(choices)[:, None]
    ones, one = jnp.ones((num_agents, 1)), jnp.ones(1)

    def reset(key: Array) -> tuple[Array, TimeStep]:
        return jnp.int32(0), _show(ones, one, avail, jnp.zeros(num_agents), False)

    def step(state: Array, action: Array, key: Array) -> tuple[Array, TimeStep]:
        reward = jnp.asarray(payoffs)[tuple(action[i] for i in range(num_agents))]
        return state + 1, _show(ones, one, avail, reward, True)

    return Env(spec, reset, step)


def _two_step() -> Env:
    avail, tables = np.ones((2, 2), bool), jnp.array(TWO_STEP, jnp.float32)

    def show(where: Array, reward: Array, over: Array | bool) -> TimeStep:
        place = jax.nn.one_hot(where, 3)
        return _show(jnp.stack([place, place]), place, avail, jnp.stack([reward, reward]), over)

    def reset(key: Array) -> tuple[Array, TimeStep]:
        return jnp.int32(0), show(jnp.int32(0), jnp.float32(0), False)

    def step(state: Array, action: Array, key: Array) -> tuple[Array, TimeStep]:
        first = state == 0  # the state is 0 at the start, then 1 + the first agent's choice
        where = jnp.where(first, 1 + action[0], state).astype(jnp.int32)
        reward = jnp.where(first, 0.0, tables[where - 1, action[0], action[1]])
        return where, show(where, reward, ~first)

    return Env(_spec("two_step", 2, 2, 3, 3, 2), reset, step)


class RecallState(NamedTuple):
    """What `recall` remembers for the agents."""

    cue: Array  # [2] i32
    time: Array  # [] i32


def _recall(delay: int) -> Env:
    avail = np.ones((2, 2), bool)

    def show(state: RecallState, reward: Array, over: Array | bool) -> TimeStep:
        """obs: the cue, one-hot, in the first step only; then 1 when it is time to answer. state: cues and clock."""
        shown = jnp.where(state.time == 0, jax.nn.one_hot(state.cue, 2), 0.0)
        answer = jnp.full((2, 1), state.time == delay, jnp.float32)
        clock = (state.time / (delay + 1)).astype(jnp.float32)
        whole = jnp.concatenate([state.cue.astype(jnp.float32), clock[None]])
        return _show(
            jnp.concatenate([shown, answer], axis=1),
            whole,
            avail,
            jnp.stack([reward, reward]),
            over,
        )

    def reset(key: Array) -> tuple[RecallState, TimeStep]:
        state = RecallState(cue=jax.random.randint(key, (2,), 0, 2), time=jnp.int32(0))
        return state, show(state, jnp.float32(0), False)

    def step(state: RecallState, action: Array, key: Array) -> tuple[RecallState, TimeStep]:
        over = state.time >= delay
        reward = (over & jnp.all(action == state.cue)).astype(jnp.float32)
        state = state._replace(time=state.time + 1)
        return state, show(state, reward, over)

    return Env(_spec("recall", 2, 2, 3, 3, delay + 1), reset, step)


def _spec(
    game: str,
    num_agents: int,
    num_actions: int,
    obs_dim: int,
    state_dim: int,
    limit: int,
    common_reward: bool = True,
) -> EnvSpec:
    return EnvSpec(
        name=f"matrix/{game}",
        num_agents=num_agents,
        obs_dim=obs_dim,
        state_dim=state_dim,
        action=Discrete(num_actions),
        episode_limit=limit,
        groups=(0,) * num_agents,
        group_names=("player",),
        common_reward=common_reward,
    )


def _show(
    obs: Array, state: Array, avail: np.ndarray, reward: Array, terminated: Array | bool
) -> TimeStep:
    return TimeStep(
        obs=obs,
        state=state,
        avail=jnp.asarray(avail),
        alive=jnp.ones(obs.shape[0], bool),
        reward=reward,
        terminated=jnp.asarray(terminated, bool),
        truncated=jnp.zeros((), bool),
        info={},
    )

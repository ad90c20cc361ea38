"""The records that pass between the parts of jaxshare.

Letters of the shape comments: S seeds, H hyper-parameter sets, R = S*H runs, T steps, B parallel
environments or sampled episodes, N agents, A actions, U continuous action size, O observation, G
global state, C replay slots.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from flax import struct

from jaxshare.trees import Carry, Data, EnvState, Params, Tree

Array = jax.Array
Metrics = dict[str, Array]  # {"loss/td": f32[]}
# {"lr": f32[], "differ.alpha": f32[]}: swept scalars, traced, never in a Python `if`
HParams = dict[str, Array]


class RefusedError(Exception):
    """A request that cannot be met, with a message for people: key, value, remedy."""


class HostError(Exception):
    """An environment on the host failed.

    Its own error, with the environment, its process and its episode.
    """


@dataclass(frozen=True)
class Discrete:
    """`num_actions` choices for every agent; agents with fewer are masked by `TimeStep.avail`."""

    num_actions: int


@dataclass(frozen=True)
class Box:
    """`dim` real numbers per agent between `low` and `high` (one bound per number)."""

    dim: int
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class EnvSpec:
    """What is static about an environment.

    groups: for each agent the index of its type; parameters and experience are shared within a type
    only.
    group_names: one name per type, for logs.
    common_reward: every agent receives the team reward; otherwise the team reward is the sum over
    agents.
    pure: a JAX environment; False for one on the host.
    """

    name: str
    num_agents: int
    obs_dim: int
    state_dim: int
    action: Discrete | Box
    episode_limit: int
    groups: tuple[int, ...]
    group_names: tuple[str, ...]
    common_reward: bool = True
    pure: bool = True

    def __post_init__(self) -> None:
        if len(self.groups) != self.num_agents:
            raise ValueError(
                f"{self.name}: groups has {len(self.groups)} entries for {self.num_agents} agents"
            )
        if max(self.groups) + 1 != len(self.group_names):
            raise ValueError(
                f"{self.name}: {len(self.group_names)} group names for {max(self.groups) + 1} "
                "groups"
            )

    def team_reward(self, reward: Array) -> Array:
        """The common reward once, or the sum over agents: [..., N] -> [...]."""
        return reward[..., 0] if self.common_reward else reward.sum(-1)


class TimeStep(struct.PyTreeNode):
    """What an environment shows after `reset` or `step`.

    info: scalars that are summed over the episode, such as
    {"won": 1.0 on the winning step, else 0.0}.
    """

    obs: Array  # [N, O] f32
    state: Array  # [G] f32
    avail: Array  # [N, A] bool; [N, 0] for continuous actions
    alive: Array  # [N] bool
    reward: Array  # [N] f32
    terminated: Array  # [] bool: a true terminal state, never a time limit
    truncated: Array  # [] bool: cut by the time limit
    info: dict[str, Array]  # {name: [] f32}


class Host(Protocol):
    """What a run does with the host side of an environment besides stepping it."""

    @property
    def twin(self) -> Callable[[], Env]:
        """Makes the same environment with a pool of its own, for evaluation."""
        ...

    def error(self) -> BaseException | None:
        """What stopped it, if anything has."""
        ...

    def settle(self) -> None:
        """After an error, end what JAX keeps of it."""
        ...

    def record(self) -> None:
        """Keep pictures from the next reset on, for `Env.render`."""
        ...

    def close(self) -> None:
        """End what it has started outside this process."""
        ...


@dataclass(frozen=True)
class Env:
    """One un-batched environment as pure functions. `step` never resets by itself.

    reset: key -> (state, TimeStep); step: (state, action [N] i32 or [N, U] f32, key)
    -> (state, TimeStep);
    render: state -> uint8 [height, width, 3], on the host, or None.
    host: of an environment that is not pure, else None.
    """

    spec: EnvSpec
    reset: Callable[[Array], tuple[EnvState, TimeStep]]
    step: Callable[[EnvState, Array, Array], tuple[EnvState, TimeStep]]
    render: Callable[[EnvState], np.ndarray] | None = None
    host: Host | None = None


class Episode(struct.PyTreeNode):
    """A batch of whole episodes, time first.

    The true last observation is kept, so the first four have T+1 slots.
    """

    obs: Array  # [T+1, B, N, O]
    state: Array  # [T+1, B, G]
    # [T+1, B, N, A] bool; all ones after the end (an empty row would give -inf, and 0 * inf = nan)
    avail: Array
    alive: Array  # [T+1, B, N] bool
    action: Array  # [T, B, N] i32 or [T, B, N, U] f32
    reward: Array  # [T, B, N]
    # [T, B] bool: the transition from t to t+1 ended the episode in a terminal state
    terminated: Array
    truncated: Array  # [T, B] bool: the transition from t to t+1 met the time limit
    mask: Array  # [T, B] f32: 1 on real transitions
    extras: dict[str, Array] = field(default_factory=dict)  # {name: [T, B, ...]}


class Segment(struct.PyTreeNode):
    """A piece of B streams of episodes. Where one ends the next one follows, or padding of mask 0.

    Every field is what stood before the action of its step, but `next_*`: what the action led to,
    before any reset.
    """

    obs: Array  # [T, B, N, O]
    state: Array  # [T, B, G]
    avail: Array  # [T, B, N, A] bool
    alive: Array  # [T, B, N] bool
    action: Array  # [T, B, N] i32 or [T, B, N, U] f32
    reward: Array  # [T, B, N]
    terminated: Array  # [T, B] bool
    truncated: Array  # [T, B] bool
    mask: Array  # [T, B] f32
    next_obs: Array  # [T, B, N, O]
    next_state: Array  # [T, B, G]
    next_avail: Array  # [T, B, N, A] bool
    first: Array  # [T, B] bool: the first step of an episode; memory is empty before it
    carry: Carry  # [B, N, ...] memory of the acting network before step 0
    extras: dict[str, Array] = field(default_factory=dict)  # {name: [T, B, ...]}

    @property
    def end(self) -> Array:
        """Whether the step ended its episode, [T, B] bool."""
        return self.terminated | self.truncated


class Clock(NamedTuple):
    """Counters common to all runs of a program.

    Never batched, so that tests on it stay real branches under vmap.
    """

    iteration: Array  # [] i32
    episodes: Array  # [] i32: collected by each run
    updates: Array  # [] i32: optimiser steps of each run
    # [] i32: episodes ever written to the present replay; equals `episodes` unless it was filled
    # anew
    stored: Array


class Context(struct.PyTreeNode):
    """What any part may read besides its data."""

    hparams: HParams  # {name: [] f32}
    clock: Clock
    env_steps: Array  # [] i32: valid environment steps of this run
    total_env_steps: int = struct.field(pytree_node=False, default=1)
    # pieces that environments, ring and minibatches are dealt into
    shards: int = struct.field(pytree_node=False, default=1)


class LearnerState(struct.PyTreeNode):
    """Everything an optimiser step changes."""

    # {"agent": ..., "mixer": ...}; per-agent leaves carry a leading [N] (or [types]) axis
    params: Params
    target_params: Params
    opt_state: Tree
    stats: dict[str, Tree]  # running moments and the like


class TrainState(struct.PyTreeNode):
    """One run. Keys are derived from (seed, iteration, stage), never carried."""

    seed: Array  # [] i32
    learner: LearnerState
    replay: Data  # None on policy, and with a data set
    env_steps: Array  # [] i32
    # [] i32: made by this run; the clock's count goes on after a run has its environment steps
    updates: Array
    streams: Tree = None  # training.streams.Streams of a learner from segments


@dataclass(frozen=True)
class Algorithm:
    """An assembled algorithm: pure functions and static facts.

    init: key -> LearnerState
    initial_carry: B -> carry of the acting network
    act: (params, carry, TimeStep [B, ...], ctx, key, explore)
        -> (carry, action [B, N], extras {name: [B, ...]})
    sample: (key, num_stored [] i32, capacity, batch_size, ctx)
        -> index [batch_size] i32 into the replay; None on policy, and with a window
    update: (LearnerState, Episode, ctx, key) -> (LearnerState, Metrics); on policy, from the
    Segment just collected: metrics {name: [updates_per_batch]}
    update_from: with a data set, instead of sample and update: (LearnerState, data in the layout of
    a replay, ctx, key, batch_size) -> (LearnerState, Metrics); None: sample and update
    inspect: (LearnerState, Episode, ctx) -> {name: [T, B, N]}, for people to look at in evaluations
    observe: (LearnerState, Episode or Segment just collected, Context before it) -> LearnerState;
    None: not asked
    window: 0, or a batch holds so many steps from transitions drawn uniformly over
    the replay, and `batch_size` counts those; `sample` is not asked then
    before_update: (LearnerState, play, ctx, key) -> LearnerState, where
    `play(params, key, num_episodes, act=None)` is a greedy Rollout in the environment of training,
    by an `act` of its own if one is given, and counts no environment steps; None: not asked
    whole_rows: why batches must have one episode a row, as a clause; "": they may be packed
    """

    name: str
    spec: EnvSpec
    hparams: dict[str, float]
    init: Callable[[Array], LearnerState]
    initial_carry: Callable[[int], Carry]
    act: Callable[..., tuple[Carry, Array, dict[str, Array]]]
    sample: Callable[[Array, Array, int, int, Context], Array] | None
    update: Callable[[LearnerState, Any, Context, Array], tuple[LearnerState, Metrics]]
    inspect: Callable[[LearnerState, Episode, Context], dict[str, Array]]
    observe: Callable[[LearnerState, Any, Context], LearnerState] | None = None
    before_update: (
        Callable[[LearnerState, Callable[..., Any], Context, Array], LearnerState] | None
    ) = None
    # replay: of episodes | episode, segment: on policy, whole episodes or pieces of streams
    # | dataset: never collects
    experience: str = "replay"
    segment_length: int = 0  # steps of a piece
    updates_per_batch: int = 1  # optimiser steps on one Segment
    minibatches: int = 1  # into which the streams of a Segment are dealt
    update_from: Callable[..., tuple[LearnerState, Metrics]] | None = None
    window: int = 0  # steps of a piece of an episode from the replay; 0: whole episodes
    whole_rows: str = "its learner does not say that it reads packed batches"

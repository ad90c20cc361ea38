"""Central learning: a team as one agent, which sees what all see and acts for all of them.

The reduction of a game to a task of one agent (Albrecht, Christianos and Schäfer's lecture on their
book, training and execution modes: one policy over joint actions, conditioned on joint histories):

    o = (o_1, ..., o_N),   a = sum_i a_i A^(N - i),   r = sum_i r_i, or the common reward once

so that the digits of a to the base A are the agents' actions, the first agent's first. A learner
of one agent then learns as it always does: it is made for `joint_spec`, and `for_team` turns its
algorithm into one that plays the environment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.learners.learner import Learner
from jaxshare.settings.fields import COUNT, static
from jaxshare.trees import Batch, Carry, Params
from jaxshare.types import (
    Algorithm,
    Array,
    Context,
    Discrete,
    EnvSpec,
    LearnerState,
    Metrics,
    RefusedError,
    Segment,
    TimeStep,
)


@dataclass(frozen=True)
class JointAgent:
    """Settings of learners for which the team is one agent."""

    sees: str = static(
        "obs",
        choices=("obs", "state"),
        help="what the one agent reads: everybody's observation (obs), or the global state",
        source="paper: the MARL-book lecture, joint histories",
    )
    max_joint_actions: int = static(
        4096,
        least=1,
        most=COUNT,
        help="joint actions A^N at most; the network has an output for each",
        source="ours: 50 MB for the values of a batch of 32 episodes of 100 steps",
    )


def joint_spec(name: str, config: JointAgent, spec: EnvSpec) -> EnvSpec:
    """The environment as its one agent meets it. name: of the algorithm.

    Raises RefusedError for continuous actions, for too many joint actions, and for a state that
    there is not.
    """
    if not isinstance(spec.action, Discrete):
        raise RefusedError(
            f"algo={name} needs discrete actions; env={spec.name} has continuous ones (use "
            "algo=maddpg or facmac)."
        )

    # too many to choose from
    count = spec.action.num_actions**spec.num_agents
    limit = f"algo.max_joint_actions={config.max_joint_actions}"
    if count > config.max_joint_actions:
        raise RefusedError(
            f"algo={name}: {spec.num_agents} agents with {spec.action.num_actions} actions each "
            f"have {count} joint actions, more than {limit}. Use an algorithm whose agents act "
            "for themselves, such as algo=qmix or algo=maa2c."
        )

    # what it reads
    if config.sees == "state" and not spec.state_dim:
        raise RefusedError(f"algo.sees=state: env={spec.name} has no state. Use algo.sees=obs.")
    obs_dim = spec.state_dim if config.sees == "state" else spec.num_agents * spec.obs_dim
    return replace(
        spec,
        num_agents=1,
        obs_dim=obs_dim,
        action=Discrete(count),
        groups=(0,),
        group_names=("team",),
        common_reward=True,
    )


def for_team(config: JointAgent, spec: EnvSpec, learner: Learner) -> Learner:
    """A learner that was made for `joint_spec` of this environment, so that it plays the latter."""
    return replace(learner, finish=partial(_translated, Translation(spec, config.sees)))


@dataclass(frozen=True)
class Translation:
    """Between a team and its one agent. spec: of the environment; sees: as in `JointAgent`."""

    spec: EnvSpec
    sees: str

    @property
    def num_actions(self) -> int:
        """A, of each agent."""
        assert isinstance(self.spec.action, Discrete)
        return self.spec.action.num_actions

    def observed(self, obs: Array, state: Array) -> Array:
        """What the one agent reads: obs [..., N, O], state [..., G] -> [..., 1, N * O or G]."""
        if self.sees == "state":
            return state[..., None, :]
        return obs.reshape(*obs.shape[:-2], 1, -1)

    def available(self, avail: Array) -> Array:
        """A joint action is, if all its actions are: [..., N, A] bool -> [..., 1, A^N] bool."""
        joint = avail[..., 0, :]
        for agent in range(1, self.spec.num_agents):
            pairs = joint[..., :, None] & avail[..., agent, None, :]
            joint = pairs.reshape(*avail.shape[:-2], -1)
        return joint[..., None, :]

    def joined(self, action: Array) -> Array:
        """The number of a joint action: [..., N] i32 -> [..., 1] i32."""
        return (action * self._weights(action)).sum(-1, keepdims=True).astype(action.dtype)

    def split(self, action: Array) -> Array:
        """The agents' actions: [..., 1] i32 -> [..., N] i32."""
        return action // self._weights(action) % self.num_actions

    def _weights(self, like: Array) -> Array:
        """A^(N - i) of each agent i, [1, ..., 1, N] i32."""
        powers = np.arange(self.spec.num_agents)[::-1]
        weights = jnp.array(self.num_actions**powers, jnp.int32)
        return weights.reshape((1,) * (like.ndim - 1) + weights.shape)

    def timestep(self, timestep: TimeStep) -> TimeStep:
        """What the environment shows, to the one agent. Fields [B, N, ...] -> [B, 1, ...]."""
        reward = self.spec.team_reward(timestep.reward)[..., None]
        alive = timestep.alive.any(-1, keepdims=True)
        obs = self.observed(timestep.obs, timestep.state)
        avail = self.available(timestep.avail)
        return timestep.replace(obs=obs, avail=avail, alive=alive, reward=reward)

    def batch(self, batch: Batch) -> Batch:
        """An Episode or a Segment of the one agent. Fields [T, B, N, ...] -> [T, B, 1, ...]."""
        reward = self.spec.team_reward(batch.reward)[..., None]
        batch = batch.replace(alive=batch.alive.any(-1, keepdims=True), reward=reward)
        batch = batch.replace(action=self.joined(batch.action), avail=self.available(batch.avail))
        batch = batch.replace(obs=self.observed(batch.obs, batch.state))
        if not isinstance(batch, Segment):
            return batch

        # a segment also knows what its actions led to
        after = self.observed(batch.next_obs, batch.next_state)
        return batch.replace(next_obs=after, next_avail=self.available(batch.next_avail))


def _translated(translation: Translation, algorithm: Algorithm) -> Algorithm:
    """The algorithm of one agent as one of the team."""

    # acting
    def act(
        params: Params, carry: Carry, timestep: TimeStep, ctx: Context, key: Array, explore: bool
    ) -> tuple[Carry, Array, dict[str, Array]]:
        joint = translation.timestep(timestep)
        carry, action, extras = algorithm.act(params, carry, joint, ctx, key, explore)
        return carry, translation.split(action), extras

    # learning
    def update(
        state: LearnerState, batch: Batch, ctx: Context, key: Array
    ) -> tuple[LearnerState, Metrics]:
        return algorithm.update(state, translation.batch(batch), ctx, key)

    def inspect(state: LearnerState, episode: Batch, ctx: Context) -> dict[str, Array]:
        columns = algorithm.inspect(state, translation.batch(episode), ctx)
        return jax.tree.map(for_each, columns)

    def for_each(column: Array) -> Array:
        """The same number for every agent: [T, B, 1] -> [T, B, N]."""
        return jnp.broadcast_to(column, (*column.shape[:2], translation.spec.num_agents))

    def observe(state: LearnerState, batch: Batch, ctx: Context) -> LearnerState:
        assert algorithm.observe is not None
        return algorithm.observe(state, translation.batch(batch), ctx)

    return replace(
        algorithm,
        spec=translation.spec,
        act=act,
        update=update,
        inspect=inspect,
        observe=observe if algorithm.observe else None,
    )

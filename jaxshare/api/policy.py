"""A trained team as functions: what its agents do when they see a time step."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial

import jax
import jax.numpy as jnp

from jaxshare.run.saved import SavedRun
from jaxshare.trees import Carry, Params
from jaxshare.types import Array, EnvSpec, TimeStep


class Policy:
    """The agents of one run at a checkpoint.

    B stands for environments beside each other; without a batch the leading axis is left out.

        timestep: TimeStep with leading [B], or of one environment
        carry:    memory of the acting network, from `initial_carry`
    """

    def __init__(self, saved: SavedRun, run: int) -> None:
        self._program = saved.program
        self._state = saved.states[run]
        self._hparams = saved.hparams(run)
        self._clock = saved.clock

    @property
    def spec(self) -> EnvSpec:
        """Sizes of what the agents see and do."""
        return self._program.env.spec

    @property
    def params(self) -> Params:
        """Parameters by network, as numpy arrays."""
        return self._state.learner.params

    def initial_carry(self, batch: int | None = None) -> Carry:
        """The memory before the first step of an episode, of `batch` environments or of one."""
        carry = self._program.algorithm.initial_carry(1 if batch is None else batch)
        return carry if batch is not None else jax.tree.map(_first, carry)

    def act(
        self, timestep: TimeStep, carry: Carry, key: Array, explore: bool = False
    ) -> tuple[Array, Carry]:
        """(action [B, N] i32 or [B, N, U] f32, carry): what all agents do, and their new memory.

        explore: act as in training (epsilon-greedy, or drawn from the policy), not greedily.
        """
        is_single = timestep.terminated.ndim == 0
        if is_single:
            timestep = jax.tree.map(_batched, timestep)
            carry = jax.tree.map(_batched, carry)
        carry, action = self._act(self.params, carry, timestep, key, explore=explore)
        if is_single:
            carry = jax.tree.map(_first, carry)
            action = _first(action)
        return action, carry

    @cached_property
    def _act(self) -> Callable[..., tuple[Carry, Array]]:
        algorithm = self._program.algorithm
        ctx = self._program.context(self._state, self._hparams, self._clock)

        @partial(jax.jit, static_argnames="explore")
        def act(
            params: Params, carry: Carry, timestep: TimeStep, key: Array, explore: bool
        ) -> tuple[Carry, Array]:
            carry, action, _ = algorithm.act(params, carry, timestep, ctx, key, explore)
            return carry, action

        return act


def _batched(leaf: Array) -> Array:
    return jnp.asarray(leaf)[None]


def _first(leaf: Array) -> Array:
    return leaf[0]

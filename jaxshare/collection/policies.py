"""Checkpoints of a run as policies of single agents, with the return of a team that plays each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import Progress

from jaxshare.models.base import sharing_sets
from jaxshare.results.curves import run_name
from jaxshare.run.checkpoint.contents import Restored
from jaxshare.run.checkpoint.errors import DamagedError, GoneError, to_stderr
from jaxshare.run.saved import SavedRun
from jaxshare.settings.records import Settings
from jaxshare.training import rollout
from jaxshare.training.counting import start_clock
from jaxshare.training.rollout import Players
from jaxshare.trees import Carry, Params
from jaxshare.types import Array, Box, Clock, Context, Discrete, RefusedError, TimeStep, TrainState

if TYPE_CHECKING:
    from jaxshare.training.program import Program

# names of the networks that teams act by
ACTING = ("agent", "actor", "behaviour", "utility", "perturbation")

Acted = tuple[Carry, Array, dict[str, Array]]  # what `Algorithm.act` returns


@dataclass(frozen=True)
class Policies:
    """Checkpoints as policies, with their returns, and behind them uniformly random actions."""

    params: Params  # of acting networks; leaves [P, N, ...]: every agent's own part
    returns: np.ndarray  # [P + 1]; the last one's is that of uniformly random actions
    names: list[str]  # which checkpoint of which run


@dataclass(frozen=True)
class Sample:
    """Episodes by which a policy's return is measured."""

    episodes: int
    seed: int  # of those with random actions


def measure(run: SavedRun, sample: Sample, bar: Progress) -> Policies:
    """Every run of every checkpoint of a directory with its greedy return.

    bar: on which the measuring can be followed.
    Raises RefusedError if no checkpoint can be read.
    """
    # the greedy return of one run
    program = run.program
    hparams = {name: jnp.float32(value) for name, value in program.algorithm.hparams.items()}

    @jax.jit
    def play(state: TrainState, clock: Clock) -> Array:
        played = program.play(state, hparams, clock, sample.episodes)
        return program.returns(played.episode).mean()

    # play every checkpoint
    low = random_return(program, sample)
    params = []
    returns = []
    names = []
    for checkpoint in _restored(run, bar):
        for label, state in zip(run.labels, checkpoint.runs, strict=True):
            acting = {name: x for name, x in state.learner.params.items() if name in ACTING}
            params.append(_personal(acting, run.settings, program))
            returns.append(float(play(state, checkpoint.clock)))
            when = f"{int(state.env_steps)} steps"
            if program.offline:
                when = f"{int(state.updates)} updates"
            names.append(f"{run_name(label)}, {when}")
    if not params:
        raise RefusedError(
            f"run_dir={run.run_dir}: none of its checkpoints can be read. Restore one from a copy, "
            "or train anew."
        )
    stacked = jax.tree.map(lambda *x: np.stack(x), *params)
    return Policies(stacked, np.array([*returns, low]), [*names, "uniformly random actions"])


def _restored(run: SavedRun, bar: Progress) -> Iterator[Restored]:
    """All checkpoints of a directory but those that are damaged, or removed meanwhile."""
    wanted = run.wanted()
    with run.checkpoints() as checkpoints:
        steps = checkpoints.steps()
        if not steps:
            raise RefusedError(f"run_dir={run.run_dir} has no checkpoint. Train it first.")
        for step in bar.track(steps, description="measuring checkpoints"):
            try:
                restored = checkpoints.load(step, wanted)
            except (DamagedError, GoneError) as error:
                to_stderr(f"checkpoint {step} is left out of the pools: {error}")
                continue
            yield restored


def _personal(params: Params, settings: Settings, program: Program) -> Params:
    """Every agent's part of the acting networks' parameters, leaves [N, ...], however shared."""
    groups = sharing_sets(settings.algo.share_params, program.env.spec.groups)
    agents = len(groups)
    if max(groups) == 0:
        return jax.tree.map(lambda x: np.broadcast_to(x[None], (agents, *x.shape)), params)
    return jax.tree.map(lambda x: np.asarray(x)[np.array(groups)], params)


def random_return(program: Program, sample: Sample) -> float:
    """Mean return of uniformly random available actions."""
    act = random_actor(program.env.spec.action)
    algorithm = replace(program.algorithm, initial_carry=lambda batch: (), act=act)
    ctx = Context(hparams={}, clock=start_clock(), env_steps=start_clock().updates)

    def play(key: Array) -> Array:
        count = sample.episodes
        played = rollout.episodes(Players(program.env, algorithm, {}, ctx, True), key, count)
        return program.returns(played.episode).mean()

    return float(jax.jit(play)(jax.random.key(sample.seed)))


def random_actor(space: Discrete | Box) -> Callable[..., Acted]:
    """What acts uniformly at random, with the arguments of every algorithm's `act`.

    Any available action [B, N], or any point of the box [B, N, U]. space: of the actions.
    """

    def act(
        params: Params, carry: Carry, timestep: TimeStep, ctx: Context, key: Array, explore: bool
    ) -> Acted:
        # one of the actions
        if isinstance(space, Discrete):
            logits = jnp.where(timestep.avail, 0.0, -jnp.inf)
            return carry, jax.random.categorical(key, logits, axis=-1), {}

        # a point of the box
        shape = (*timestep.alive.shape, space.dim)
        low = jnp.broadcast_to(jnp.array(space.low), shape)
        high = jnp.broadcast_to(jnp.array(space.high), shape)
        return carry, jax.random.uniform(key, low.shape, minval=low, maxval=high), {}

    return act

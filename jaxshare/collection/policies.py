"""Checkpoints of a run as policies of single agents, with the return of a team that plays each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import Progress

from jaxshare import registry, rollout
from jaxshare.models.base import sharing_groups
from jaxshare.results.curves import run_name
from jaxshare.run.checkpoint.contents import Restored
from jaxshare.run.checkpoint.errors import DamagedError, GoneError, to_stderr
from jaxshare.run.saved import SavedRun
from jaxshare.runner import start_clock
from jaxshare.settings.records import Settings
from jaxshare.types import Context, Discrete, RefusedError

if TYPE_CHECKING:
    from jaxshare.runner import Program

ACTING = ("agent", "actor", "behaviour")  # names of the networks that teams act by


@dataclass(frozen=True)
class Policies:
    """Checkpoints as policies, with their returns, and behind them uniformly random actions."""

    params: dict[
        str, Any
    ]  # of acting networks, by name; leaves [P, N, ...]: every agent's own part
    returns: np.ndarray  # [P + 1]; the last one's is that of uniformly random actions
    names: list[str]  # which checkpoint of which run


@dataclass(frozen=True)
class Sample:
    """Episodes by which a policy's return is measured."""

    episodes: int
    seed: int  # of those with random actions


def check_in_jax(settings: Settings) -> None:
    """Raise RefusedError for runs in environments of which no data are collected."""
    if getattr(registry.get("env", settings.env_name), "HOST", False):
        raise RefusedError(
            f"env={settings.env_name} is on the host: data sets are collected in JAX environments only."
        )


def measure(run: SavedRun, sample: Sample, bar: Progress) -> Policies:
    """Every run of every checkpoint of a directory with its greedy return.

    bar: on which the measuring can be followed.
    Raises RefusedError if no checkpoint can be read.
    """
    program = run.program
    low = random_return(program, sample)
    hparams = {name: jnp.float32(value) for name, value in program.algorithm.hparams.items()}

    @jax.jit
    def play(state: Any, clock: Any) -> Any:
        played = program.play(state, hparams, clock, sample.episodes)
        return program.returns(played.episode).mean()

    params = []
    returns = []
    names = []
    for checkpoint in _restored(run, bar):
        for label, state in zip(run.labels, checkpoint.runs, strict=True):
            learner: Any = state.learner
            acting = {name: x for name, x in learner.params.items() if name in ACTING}
            params.append(_personal(acting, run.settings, program))
            returns.append(float(play(state, checkpoint.clock)))
            when = f"{int(state.env_steps)} steps"
            if program.offline:
                when = f"{int(state.updates)} updates"
            names.append(f"{run_name(label)}, {when}")
    if not params:
        raise RefusedError(
            f"run_dir={run.run_dir}: none of its checkpoints can be read. Restore one from a copy, or train anew."
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


def _personal(params: Any, settings: Settings, program: Program) -> Any:
    """Every agent's part of the acting networks' parameters, leaves [N, ...], however shared."""
    groups = sharing_groups(settings.algo.share_params, program.env.spec.groups)
    if max(groups) == 0:
        return jax.tree.map(lambda x: np.broadcast_to(x[None], (len(groups), *x.shape)), params)
    return jax.tree.map(lambda x: np.asarray(x)[np.array(groups)], params)


def random_return(program: Program, sample: Sample) -> float:
    """Mean return of uniformly random available actions."""
    act = partial(act_at_random, program.env.spec.action)
    algorithm = replace(program.algorithm, initial_carry=lambda batch: (), act=act)
    ctx = Context(hparams={}, clock=start_clock(), env_steps=start_clock().updates)

    def play(key: Any) -> Any:
        count = sample.episodes
        played = rollout.episodes(program.env, algorithm, {}, ctx, key, count, explore=True)
        return program.returns(played.episode).mean()

    return float(jax.jit(play)(jax.random.key(sample.seed)))


def act_at_random(
    space: Any, params: Any, carry: Any, timestep: Any, ctx: Any, key: Any, explore: bool
) -> Any:
    """Acts uniformly at random: any available action [B, N], or any point of the box [B, N, U].

    space: of the actions; the rest is what every algorithm's `act` takes.
    """
    if isinstance(space, Discrete):
        logits = jnp.where(timestep.avail, 0.0, -jnp.inf)
        return carry, jax.random.categorical(key, logits, axis=-1), {}
    shape = (*timestep.alive.shape, space.dim)
    low = jnp.broadcast_to(jnp.array(space.low), shape)
    high = jnp.broadcast_to(jnp.array(space.high), shape)
    return carry, jax.random.uniform(key, low.shape, minval=low, maxval=high), {}

"""From settings to what is compiled.

Environment, algorithm, program, and the layout of runs over devices.
"""

from __future__ import annotations

from typing import Protocol

from jaxshare import registry, surroundings
from jaxshare.run import data_axis, offline, parallel
from jaxshare.run.compute import computed
from jaxshare.run.layout import Layout
from jaxshare.settings.records import Settings
from jaxshare.settings.validate import check_all
from jaxshare.training.program import Program
from jaxshare.types import Algorithm, Env, EnvSpec, RefusedError


class Parts(Protocol):
    """What an algorithm's `make` returns and a modifier changes, whatever its fields are."""

    def assemble(self) -> Algorithm:
        """The pure functions that a program is made of."""


def make_env(settings: Settings) -> Env:
    """The environment of the settings."""
    return registry.get("env", settings.env_name).make(settings.env)


def make_parts(settings: Settings, spec: EnvSpec) -> Parts:
    """A learner's record of parts, changed by its modifiers.

    Raises RefusedError for what does not go together.
    """
    parts = registry.get("algo", settings.algo_name).make(settings.algo, spec)
    for name, config in settings.modifiers.items():
        parts = registry.get("modifiers", name).make(config, parts)
    return parts


def make_algorithm(settings: Settings, spec: EnvSpec) -> Algorithm:
    """The algorithm with its modifiers. Raises RefusedError for what does not go together."""
    return computed(make_parts(settings, spec).assemble(), settings.run.compute)


def prepare(settings: Settings) -> Program:
    """Check everything that can be checked before compiling. Raises RefusedError."""
    check_all(settings)
    return _program(settings)


def lay_out(settings: Settings) -> tuple[Program, Layout]:
    """`prepare`, and the layout of the runs over devices. Must come before JAX starts to count."""
    check_all(settings)
    pure = not getattr(registry.get("env", settings.env_name), "HOST", False)
    num_runs = len(settings.runs())
    parallel.prepare(settings.run.parallel, num_runs, pure)
    program = _program(settings)
    return program, parallel.layout(settings.run.parallel, num_runs, program.env.spec.pure)


def _program(settings: Settings) -> Program:
    """The program of settings that are checked by themselves.

    What must fit together is checked here.
    """
    surroundings.check_machine()
    env = make_env(settings)
    algorithm = make_algorithm(settings, env.spec)
    _check_sweep(settings, algorithm)
    algorithm = offline.learning_from(settings, algorithm)
    _check_minibatches(settings, algorithm)
    _check_batch(settings, algorithm)
    _check_streams(settings, env, algorithm)
    data_axis.check(settings, env, algorithm)
    evaluator = env.host.twin() if env.host else None
    return Program(env, algorithm, settings.run, eval_env=evaluator)


def _check_sweep(settings: Settings, algorithm: Algorithm) -> None:
    for name, values in settings.sweep.items():
        if name not in algorithm.hparams:
            hint = registry.suggest(name, algorithm.hparams)
            known = ", ".join(sorted(algorithm.hparams))
            raise RefusedError(
                f"sweep.{name}={values} is not a scalar hyper-parameter here.{hint} Known: {known}."
            )


def _check_minibatches(settings: Settings, algorithm: Algorithm) -> None:
    if settings.run.num_envs % algorithm.minibatches:
        raise RefusedError(
            f"algo.minibatches={algorithm.minibatches} does not divide "
            f"num_envs={settings.run.num_envs}: whole streams are dealt out. Use a multiple of it, "
            f"such as num_envs={8 * algorithm.minibatches}."
        )


def _check_batch(settings: Settings, algorithm: Algorithm) -> None:
    batch_size = settings.run.batch_size
    capacity = settings.run.replay.capacity
    if algorithm.experience == "replay" and not algorithm.window and batch_size > capacity:
        raise RefusedError(
            f"batch_size={batch_size} is larger than replay.capacity={capacity}: a batch is drawn "
            f"without replacement. Use batch_size={capacity} or replay.capacity={batch_size} at "
            "least."
        )


def _check_streams(settings: Settings, env: Env, algorithm: Algorithm) -> None:
    if env.host and algorithm.experience == "segment":
        raise RefusedError(
            f"algo={settings.algo_name} learns from pieces of streams of episodes, and "
            f"env={settings.env_name} is on the host, where only whole episodes are played. Use "
            "algo.rollout=episodes."
        )

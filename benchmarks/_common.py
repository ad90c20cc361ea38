"""What the benchmarks share: a program from a command line, timing, and a line about the machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxshare import cli
from jaxshare.run.build import lay_out
from jaxshare.run.fleet import Fleet
from jaxshare.run.offline import fitted
from jaxshare.settings.records import Settings
from jaxshare.study.machine import machine
from jaxshare.training.counting import start_clock
from jaxshare.training.program import Program
from jaxshare.types import Context

__all__ = ["context", "machine", "not_started", "program_and_runs", "seconds"]


def seconds(fn: Callable[[], Any], repeats: int) -> list[float]:
    """Wall-clock seconds of each of `repeats` calls; the caller has warmed up."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(fn())
        times.append(time.perf_counter() - start)
    return times


def context(hparams: dict[str, float], dtype: Any = jnp.float32, **more: Any) -> Context:
    """What a learner is told before a run's first update."""
    numbers = {name: jnp.asarray(value, dtype) for name, value in hparams.items()}
    return Context(hparams=numbers, clock=start_clock(), env_steps=jnp.int32(0), **more)


def program_and_runs(arguments: list[str]) -> tuple[Settings, Program, Fleet]:
    """A prefilled fleet's compiled pieces, without run directory or loggers; programs are compiled when called."""
    settings, program, runs = not_started(arguments)
    runs.start()
    return settings, program, runs


def not_started(arguments: list[str]) -> tuple[Settings, Program, Fleet]:
    """The same with nothing compiled and no replay yet."""
    settings = fitted(cli.settings(arguments))
    program, layout = lay_out(settings)
    return settings, program, Fleet(program, layout, settings)

"""What the benchmarks share: a program from a command line, timing, and a line about the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxshare import cli, parallel
from jaxshare.config import Settings
from jaxshare.runner import Program, start_clock
from jaxshare.session import Runs, prepare


def machine() -> str:
    """Versions and machine, one line."""
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("jax", "jaxlib", "flax", "optax", "jaxmarl"))
    device = jax.devices()[0]
    return f"{versions}; Python {platform.python_version()}; {os.cpu_count()} cores; {device.device_kind}"


def seconds(fn: Callable[[], Any], repeats: int) -> list[float]:
    """Wall-clock seconds of each of `repeats` calls; the caller has warmed up."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(fn())
        times.append(time.perf_counter() - start)
    return times


def program_and_runs(arguments: list[str]) -> tuple[Settings, Program, Runs]:
    """A prefilled session's compiled pieces, without run directory or loggers."""
    import dataclasses

    settings = cli.settings(arguments)
    program = prepare(settings)
    layout = parallel.layout(settings.run.parallel, len(settings.runs()), program.env.spec.pure)
    program = dataclasses.replace(program, crop=layout.per_device == 1)
    hparams, states, clock = [], [], start_clock()
    for wave in layout.waves():
        points = [{**program.algorithm.hparams, **settings.runs()[i][1]} for i in wave]
        hparams.append(layout.place({k: jnp.array([p[k] for p in points], jnp.float32) for k in points[0]}))
        seed = jnp.array([settings.runs()[i][0] for i in wave], jnp.int32)
        state = jax.jit(jax.vmap(program.init), out_shardings=layout.sharding)(seed)
        state, clock = layout.lift(program.prefill, donate=True)(state, hparams[-1], start_clock())
        states.append(state)
    return settings, program, Runs(program, layout, settings.labels(), hparams, states, clock)

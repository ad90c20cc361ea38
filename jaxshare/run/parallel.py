"""How runs (seeds x sweep points) are laid over devices: the only file that knows meshes.

A *wave* is what runs at the same time: `devices x per_device` runs. strategy=map puts one run on
each device (on a CPU every core is a device); strategy=vmap puts all runs of a device under one
vmap. Waves follow one another in Python, so no replay is ever copied from one to the next.

ours: lax.map inside each device would slice and re-stack every replay at each call; waves give the
same order of work, and the program of one run is the same program however many runs there are.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxshare.settings.run_parts import ParallelConfig
from jaxshare.trees import Tree
from jaxshare.types import Clock, RefusedError

AXIS = "seed"
# vmapped runs hang on jaxlib 0.10.2's concurrency-optimised CPU scheduler (seen with two cores)
PLAIN_SCHEDULER = "--xla_cpu_enable_concurrency_optimized_scheduler=false"

T = TypeVar("T")


@dataclass(frozen=True)
class Layout:
    """Runs on devices.

    `waves` lists run indices; the last wave repeats its last run until it is full.
    """

    mesh: Mesh
    per_device: int
    num_runs: int

    @property
    def wave_size(self) -> int:
        """Runs at a time."""
        return self.mesh.size * self.per_device

    @property
    def num_waves(self) -> int:
        """Waves until every run had its turn."""
        return math.ceil(self.num_runs / self.wave_size)

    @property
    def num_slots(self) -> int:
        """Runs held in memory, fillers included."""
        return self.wave_size * self.num_waves

    def waves(self) -> list[list[int]]:
        """Run indices of each wave."""
        index = [min(i, self.num_runs - 1) for i in range(self.num_slots)]
        return [index[i : i + self.wave_size] for i in range(0, self.num_slots, self.wave_size)]

    @property
    def sharding(self) -> NamedSharding:
        """Of arrays with leading [wave_size].

        On one device as jit names it, or the next chunk would compile anew.
        """
        return NamedSharding(self.mesh, P(AXIS) if self.mesh.size > 1 else P())

    @property
    def replicated(self) -> NamedSharding:
        """Of arrays that every device has whole."""
        return NamedSharding(self.mesh, P())

    def place(self, tree: T) -> T:
        """Put a tree with leading [wave_size] on the devices."""
        return jax.device_put(tree, self.sharding)

    def replicate(self, tree: T) -> T:
        """Put a tree on every device, such as the clock."""
        return jax.device_put(tree, self.replicated)

    def lift(self, fn: Callable[..., Any], donate: bool, batched: int = 2) -> Callable[..., Any]:
        """A jitted function of a wave, from one of a run.

        fn: (state, hparams, ..., clock) -> (out, clock).

        The first `batched` arguments and `out` have leading [wave_size] then; the clock stays as it
        is.
        """
        # the runs of one device
        if self.per_device == 1:
            local = _squeezed(fn)
        else:
            axes = (*(0,) * batched, None)
            local = jax.vmap(fn, in_axes=axes, out_axes=(0, None))

        # check_vma off: scan carries that start as constants would all have to be marked as
        # varying by hand
        in_specs = (*[P(AXIS)] * batched, P())
        wave = jax.shard_map(
            local,
            mesh=self.mesh,
            in_specs=in_specs,
            out_specs=(P(AXIS), P()),
            check_vma=False,
        )

        # said outright: XLA calls the layout of an array of size 0 (no memory, no available mask)
        # another one than that of its neighbours, and a chunk is then refused its own output, or
        # compiled anew
        out_shardings = (self.sharding, self.replicated)
        return jax.jit(wave, donate_argnums=(0,) if donate else (), out_shardings=out_shardings)


def compiled(lifted: Callable[..., Any], *shapes: Tree) -> Callable[..., Any]:
    """What `Layout.lift` has made, compiled for arguments of these shapes."""
    assert isinstance(lifted, jax.stages.Wrapped)
    return lifted.lower(*shapes).compile()


def _squeezed(fn: Callable[..., Any]) -> Callable[..., Any]:
    def local(*args: Tree) -> tuple[Tree, Clock]:
        *batched, clock = args
        out, clock = fn(*jax.tree.map(lambda x: x[0], batched), clock)
        return jax.tree.map(lambda x: x[None], out), clock

    return local


def prepare(config: ParallelConfig, num_runs: int, pure: bool) -> None:
    """Set what must be set before JAX starts.

    That is the number of CPU devices, and a scheduler that does not hang vmapped runs. Raises
    RefusedError if it is too late for the scheduler.
    """
    count = min(config.devices or os.cpu_count() or 1, num_runs)
    flags = os.environ.get("XLA_FLAGS", "")
    vmapped = config.strategy == "vmap" or (not pure and num_runs > 1)
    if vmapped:
        os.environ["XLA_FLAGS"] = f"{flags} {PLAIN_SCHEDULER}".strip()
        count = min(config.devices or 1, num_runs) if pure else 1
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:  # JAX has started in this process: its devices are what they are
        if vmapped and jax.devices()[0].platform == "cpu" and PLAIN_SCHEDULER not in flags:
            # the flag came too late: the next try must be refused, too
            os.environ["XLA_FLAGS"] = flags
            what = "parallel.strategy=vmap"
            if not pure:
                what = f"seeds={num_runs} of an environment on the host (one vmap)"
            raise RefusedError(
                f"{what} cannot be set once JAX has started in this process (it may hang): run "
                "this job as a command of its own."
            ) from error


def layout(config: ParallelConfig, num_runs: int, pure: bool) -> Layout:
    """Choose devices and runs per device.

    An environment on the host (not pure) has all runs on one device under vmap, so that one call
    serves them all. Raises RefusedError if more devices are asked for than there are.
    """
    devices = jax.devices()
    platform = devices[0].platform
    if not pure and (config.devices > 1 or config.strategy == "map"):
        raise RefusedError(
            f"parallel.devices={config.devices} parallel.strategy={config.strategy}: all runs of "
            "an environment on the host share one device under vmap, so that one call serves them "
            "all. Leave both settings out."
        )
    if min(config.devices, num_runs) > len(devices):
        raise RefusedError(
            f"parallel.devices={config.devices}, but only {len(devices)} {platform} devices are "
            "here."
        )
    if not pure:
        mesh = Mesh(np.array(devices[:1]), (AXIS,))
        return Layout(mesh, per_device=num_runs, num_runs=num_runs)

    # one run per core of a CPU, all on an accelerator, unless another strategy is asked for
    strategy = config.strategy
    if strategy == "auto":
        strategy = "map" if platform == "cpu" else "vmap"
    usable = len(devices) if strategy == "map" or platform != "cpu" else 1
    count = min(config.devices or usable, num_runs)
    per_device = 1 if strategy == "map" else math.ceil(num_runs / count)
    mesh = Mesh(np.array(devices[:count]), (AXIS,))
    return Layout(mesh, per_device=per_device, num_runs=num_runs)


def local_rows(x: jax.Array) -> list[np.ndarray]:
    """The rows x[0], x[1], ... of an array laid over devices; on a CPU without a copy."""
    shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return [row for shard in shards for row in np.asarray(shard.data)]


def return_free_memory() -> None:
    """Hand memory that was freed, such as the compiler's, back to the system.

    Only where the C library can do that (glibc).
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim:
        trim(0)


def available_bytes() -> int | None:
    """Free memory of the first device, or of this machine; None if it cannot be told."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    return free_host_bytes()


def free_host_bytes() -> int | None:
    """Free memory of this machine, or of the part of it that this process may use.

    None if it cannot be told.
    """
    sizes = {}
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                name, rest = line.split(":", 1)
                sizes[name] = int(rest.split()[0]) * 1024
        return min([sizes["MemAvailable"], *_cgroup_free()])
    except (OSError, KeyError, ValueError):
        return None


def _cgroup_free() -> list[int]:
    try:
        with (
            open("/sys/fs/cgroup/memory.max") as limit,
            open("/sys/fs/cgroup/memory.current") as used,
        ):
            return [int(limit.read()) - int(used.read())]
    except (OSError, ValueError):  # no cgroup, or "max"
        return []

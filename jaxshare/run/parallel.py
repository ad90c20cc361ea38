"""How runs (seeds x sweep points) are laid over devices.

A *wave* is what runs at the same time: `devices / data x per_device` runs. strategy=map puts one
run on each device (on a CPU every core is a device), or on `data` of them; strategy=vmap puts all
runs of a device under one vmap. Waves follow one another in Python, so no replay is ever copied
from one to the next.

ours: lax.map inside each device would slice and re-stack every replay at each call; waves give the
same order of work, and the program of one run is the same program however many runs there are.
"""

from __future__ import annotations

import ctypes
import math
import os

import jax

from jaxshare.run import gang
from jaxshare.run.layout import Layout, mesh_of
from jaxshare.settings.run_parts import ParallelConfig
from jaxshare.types import RefusedError

# vmapped runs hang on jaxlib 0.10.2's concurrency-optimised CPU scheduler (seen with two cores)
PLAIN_SCHEDULER = "--xla_cpu_enable_concurrency_optimized_scheduler=false"


def prepare(config: ParallelConfig, num_runs: int, pure: bool) -> None:
    """Set what must be set before JAX starts.

    That is the number of CPU devices, a scheduler that does not hang vmapped runs, and what other
    processes there are. Raises RefusedError if it is too late for the scheduler, or if they are
    not there.
    """
    count = _of_runs(config, config.devices or os.cpu_count() or 1, num_runs)
    flags = os.environ.get("XLA_FLAGS", "")
    vmapped = config.strategy == "vmap" or (not pure and num_runs > 1)
    if vmapped:
        os.environ["XLA_FLAGS"] = f"{flags} {PLAIN_SCHEDULER}".strip()
        count = min(config.devices or 1, num_runs) if pure else 1
    try:
        jax.config.update("jax_num_cpu_devices", max(1, count // config.processes))
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
    if config.processes > 1:
        gang.join(config)


def layout(config: ParallelConfig, num_runs: int, pure: bool) -> Layout:
    """Choose devices and runs per device.

    An environment on the host (not pure) has all runs on one device under vmap, so that one call
    serves them all. Raises RefusedError if more devices are asked for than there are.
    """
    devices = jax.devices()
    if config.processes > 1 and config.processes != jax.process_count():
        raise RefusedError(
            f"parallel.processes={config.processes} cannot be set once JAX has started in this "
            "process: run this job as a command of its own."
        )
    platform = devices[0].platform
    if not pure and (config.devices > 1 or config.strategy == "map"):
        raise RefusedError(
            f"parallel.devices={config.devices} parallel.strategy={config.strategy}: all runs of "
            "an environment on the host share one device under vmap, so that one call serves them "
            "all. Leave both settings out."
        )
    if _of_runs(config, config.devices, num_runs) > len(devices):
        needed = "" if config.data == 1 else f" parallel.data={config.data}"
        raise RefusedError(
            f"parallel.devices={config.devices}{needed}, but only {len(devices)} {platform} "
            "devices are here."
        )
    if not pure:
        return Layout(mesh_of(devices[:1]), per_device=num_runs, num_runs=num_runs)

    # one run per core of a CPU, all on an accelerator, unless another strategy is asked for
    strategy = config.strategy
    if strategy == "auto":
        strategy = "map" if platform == "cpu" or config.data > 1 else "vmap"
    usable = len(devices) if strategy == "map" or platform != "cpu" else 1
    count = _of_runs(config, config.devices or usable, num_runs)
    per_device = 1 if strategy == "map" else math.ceil(num_runs / count)
    mesh = mesh_of(_shared_out(devices, count, config), config.data)
    return Layout(mesh, per_device=per_device, num_runs=num_runs)


def _of_runs(config: ParallelConfig, usable: int, num_runs: int) -> int:
    """How many of the usable devices there are runs for; `data` of them at least, for one run."""
    if config.data == 1:
        return min(usable, num_runs)
    return config.data * max(1, min(usable // config.data, num_runs))


def _shared_out(devices: list[jax.Device], count: int, config: ParallelConfig) -> list[jax.Device]:
    """`count` of the devices, run after run; each process has as many of every run's."""
    if config.processes == 1:
        return devices[:count]

    # the devices of each process
    each = count // config.processes
    of_run = config.data // config.processes
    by_process: dict[int, list[jax.Device]] = {}
    for device in devices:
        by_process.setdefault(device.process_index, []).append(device)
    if min(len(here) for here in by_process.values()) < each:
        raise RefusedError(
            f"parallel.data={config.data} in parallel.processes={config.processes} needs {each} "
            "devices in each process. Use a smaller parallel.data, or fewer parallel.devices."
        )

    # of each run the next few of every process
    chosen = []
    for start in range(0, each, of_run):
        for _, here in sorted(by_process.items()):
            chosen.extend(here[start : start + of_run])
    return chosen


def return_free_memory() -> None:
    """Hand memory that was freed, such as the compiler's, back to the system.

    Only where the C library can do that (glibc).
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim:
        trim(0)


def available_bytes() -> int | None:
    """Free memory of the first device, or of this machine; None if it cannot be told."""
    stats = jax.local_devices()[0].memory_stats()
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

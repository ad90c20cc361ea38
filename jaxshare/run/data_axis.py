"""Which runs may be dealt into shards and laid over several devices (`parallel.data`)."""

from __future__ import annotations

from jaxshare.settings.records import Settings
from jaxshare.types import Algorithm, Env, RefusedError


def check(settings: Settings, env: Env, algorithm: Algorithm) -> None:
    """Raise RefusedError where `parallel.data` or `parallel.shards` cannot be used."""
    parallel = settings.run.parallel
    shards = parallel.num_shards
    if shards == 1:
        if parallel.data > 1:
            _refuse_uneven(settings, "parallel.data", parallel.data)
        return
    _check_devices(settings)
    what = f"parallel.data={parallel.data}" if parallel.data > 1 else f"parallel.shards={shards}"
    _check_kind(settings, env, algorithm, what)
    _check_sizes(settings, algorithm)


def _check_devices(settings: Settings) -> None:
    """Whether shards and devices go together."""
    parallel = settings.run.parallel
    data = parallel.data
    if parallel.num_shards % data:
        _refuse_uneven(settings, "parallel.data", data)
    if data > 1 and parallel.strategy == "vmap":
        raise RefusedError(
            f"parallel.data={data} parallel.strategy=vmap: a device has a part of one run or "
            "several whole runs. Leave one of them out."
        )
    if data > 1 and parallel.devices % data:
        raise RefusedError(
            f"parallel.devices={parallel.devices} cannot be shared out in groups of "
            f"parallel.data={data}. Use a multiple of it, or leave parallel.devices out."
        )


def _check_kind(settings: Settings, env: Env, algorithm: Algorithm, what: str) -> None:
    """Whether what the run learns from can be dealt into shards."""
    # where environments are, and where experience is drawn from
    leave_out = "Leave it out."
    if env.host:
        raise RefusedError(
            f"{what} is for JAX environments, and env={settings.env_name} is on the host, which "
            f"one device calls. {leave_out}"
        )
    if algorithm.experience == "dataset":
        raise RefusedError(
            f"{what}: a data set is not dealt into shards; every device has all of it. {leave_out}"
        )
    if algorithm.window:
        raise RefusedError(
            f"{what}: algo.window={algorithm.window} draws steps out of the whole replay, which "
            f"shards divide. Use algo.window=0, or leave it out."
        )
    if algorithm.observe or algorithm.before_update:
        # what stands beside the run
        names = ", ".join(settings.modifiers)
        raise RefusedError(
            f"{what}: modifiers=[{names}] watch or play beside the run, which was not tried over "
            f"several devices. {leave_out}"
        )


def _check_sizes(settings: Settings, algorithm: Algorithm) -> None:
    """Whether all sizes can be divided by the number of shards."""
    run = settings.run
    shards = run.parallel.num_shards

    # what is dealt out as it is
    sizes = {"num_envs": run.num_envs}
    if algorithm.experience == "replay":
        sizes |= {"batch_size": run.batch_size, "replay.capacity": run.replay.capacity}
    for key, size in sizes.items():
        if size % shards:
            _refuse_size(f"{key}={size}", shards, f"a multiple of it, such as {key}={8 * shards}")

    # streams are dealt into minibatches within their shards
    if run.num_envs // algorithm.minibatches % shards:
        what = f"num_envs={run.num_envs} in algo.minibatches={algorithm.minibatches}"
        remedy = f"num_envs={shards * algorithm.minibatches} or a multiple of it"
        _refuse_size(what, shards, remedy)


def _refuse_size(what: str, shards: int, remedy: str) -> None:
    raise RefusedError(
        f"{what} cannot be dealt evenly into parallel.shards={shards} (0: parallel.data). "
        f"Use {remedy}."
    )


def _refuse_uneven(settings: Settings, key: str, data: int) -> None:
    shards = settings.run.parallel.num_shards
    raise RefusedError(
        f"{key}={data} does not divide parallel.shards={shards}: each device has whole shards. "
        f"Use parallel.shards={data} or a multiple of it, or parallel.data=1."
    )

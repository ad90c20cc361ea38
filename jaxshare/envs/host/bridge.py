"""An `Env` of environments on the host. The only door to `io_callback`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.experimental import io_callback

from jaxshare.envs.host import settings
from jaxshare.envs.host.pool import About, Pool
from jaxshare.envs.host.process import HOSTED
from jaxshare.envs.host.settings import HostConfig, Install, Recipe
from jaxshare.envs.hosted.layout import Columns, box_dim
from jaxshare.types import Array, Box, Discrete, Env, EnvSpec, HostError, TimeStep

Call = Callable[..., Array]  # a function of one array


class HostState(NamedTuple):
    """What JAX carries of an environment on the host."""

    token: Array  # [] i32: of the last call that changed it


def host_env(
    name: str,
    target: str,
    kwargs: Mapping[str, object],
    config: HostConfig,
    install: Install | str,
    asked: str = "",
) -> Env:
    """An `Env` whose slots are objects of a class, made with `kwargs`.

    target: 'file.py:Class' in hosted/, or 'module:Class'.
    install: how to get what the environment needs, for messages.
    asked: the settings that chose it, for messages.
    Raises RefusedError if the environment cannot be made.
    """
    settings.check(config)
    if isinstance(install, str):
        install = Install(install)
    return _env(Pool(Recipe(name, _located(target), kwargs, config, install, asked)))


def _located(target: str) -> str:
    file, _, attribute = target.rpartition(":")
    return f"{HOSTED / file}:{attribute}" if file.endswith(".py") and "/" not in file else target


def _env(pool: Pool) -> Env:
    def render(state: HostState) -> np.ndarray:
        return pool.frame(int(state.token))

    reset, step = _functions(pool)
    control = HostControl(pool, lambda: _env(pool.twin()))
    return Env(_spec(pool.recipe.name, pool.about), reset, step, render, control)


def _spec(name: str, about: About) -> EnvSpec:
    num_agents = about["num_agents"]

    # without types of agents all are of one
    groups = tuple(about.get("groups", (0,) * num_agents))
    group_names = tuple(about.get("group_names", ("agent",)))
    return EnvSpec(
        name=name,
        num_agents=num_agents,
        obs_dim=about["obs_dim"],
        state_dim=about["state_dim"],
        action=_action_space(about),
        episode_limit=about["episode_limit"],
        groups=groups,
        group_names=group_names,
        common_reward=bool(about.get("common_reward", False)),
        pure=False,
    )


def _action_space(about: About) -> Discrete | Box:
    if about.get("num_actions"):
        return Discrete(about["num_actions"])
    dim = box_dim(about)
    return Box(dim, (-1.0,) * dim, (1.0,) * dim)


@dataclass(frozen=True)
class HostControl:
    """What a run does with the host side of an environment besides stepping it."""

    pool: Pool
    twin: Callable[[], Env]  # the same environment with a pool of its own, for evaluation

    def error(self) -> BaseException | None:
        """What stopped the pool, if anything has."""
        return KeyboardInterrupt() if self.pool.interrupted else self.pool.failure

    def settle(self) -> None:
        """After an error, end what JAX keeps of it.

        JAX keeps the last computation with an effect, and would raise its error again at exit.
        """
        number = jax.ShapeDtypeStruct((), jnp.int32)
        jax.block_until_ready(jax.jit(lambda: io_callback(lambda: np.int32(0), number))())

    def record(self) -> None:
        """Keep the pictures of the first slot from the next reset on, for `Env.render`."""
        self.pool.record()

    def close(self) -> None:
        """End the workers. Idempotent."""
        self.pool.close()


# --------------------------------------------------------------------------------------- functions


def _functions(
    pool: Pool,
) -> tuple[
    Callable[[Array], tuple[HostState, TimeStep]],
    Callable[[HostState, Array, Array], tuple[HostState, TimeStep]],
]:
    """reset and step of an `Env`, each one call of the pool."""
    columns = Columns(pool.about)
    info = pool.about.get("info", ())

    # one array each way, of int32 that may stand for float32: every further one costs about 20 µs
    def answer(leading: tuple[int, ...]) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*leading, columns.width), jnp.int32)

    @custom_vmap
    def call_reset(seed: Array) -> Array:
        return io_callback(pool.reset, answer(seed.shape), seed)

    @custom_vmap
    def call_step(request: Array) -> Array:
        return io_callback(pool.step, answer(request.shape[:-1]), request)

    for call in (call_reset, call_step):
        call.def_vmap(_one_call(cast(Call, call)))

    def reset(key: Array) -> tuple[HostState, TimeStep]:
        row = call_reset(jax.random.bits(key, (), jnp.uint32))
        return HostState(row[0]), _timestep(row, columns, info)

    def step(state: HostState, action: Array, key: Array) -> tuple[HostState, TimeStep]:
        numbers = jax.lax.bitcast_convert_type(action, jnp.int32).reshape(-1)
        row = call_step(jnp.concatenate([state.token[None], numbers]))
        return HostState(row[0]), _timestep(row, columns, info)

    return reset, step


def _timestep(row: Array, columns: Columns, info: tuple[str, ...]) -> TimeStep:
    """What a row of the shared block [width] shows. info: names of its last numbers."""
    block = jax.lax.bitcast_convert_type(row, jnp.float32)
    fields = {}
    for name in columns.FIELDS:
        fields[name] = block[columns.slices[name]].reshape(columns.shapes[name])
    flags = {name: fields[name] > 0.5 for name in ("avail", "alive", "terminated", "truncated")}
    named_info = {name: fields["info"][i] for i, name in enumerate(info)}
    return TimeStep(
        obs=fields["obs"],
        state=fields["state"],
        reward=fields["reward"],
        info=named_info,
        **flags,
    )


def _one_call(call: Call) -> Callable[..., tuple[Array, bool]]:
    """A batching rule: the same call with one more leading axis."""

    def rule(axis_size: int, in_batched: list[bool], *args: Array) -> tuple[Array, bool]:
        whole = []
        for array, batched in zip(args, in_batched, strict=True):
            shape = (axis_size, *array.shape)
            whole.append(array if batched else jnp.broadcast_to(array, shape))
        return call(*whole), True

    return rule


# JAX logs every exception of a callback with a traceback; ours reach the person as one message
logging.getLogger("jax._src.callback").addFilter(
    lambda record: not (record.exc_info and isinstance(record.exc_info[1], HostError))
)

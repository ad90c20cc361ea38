"""Time of playing whole episodes: until the last one has ended, against a scan to the episode limit.

    python benchmarks/rollouts.py                          3m of SMAX, whose episodes end early, and MPE spread
    python benchmarks/rollouts.py env=lbf env.scenario=8x8-2p-2f-coop

A fresh learner's first episodes, in all environments of training at once. Both give the same bits, which is checked
first. Rounds of the two alternate, each with keys of its own; the median of the ratios of their times counts. The same
episodes with room for ten times as many steps show what clearing the buffers costs, and that steps write in place.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import _common
import jax
import jax.numpy as jnp
import numpy as np

from jaxshare import cli
from jaxshare.run import build
from jaxshare.training import rollout
from jaxshare.training.program import Program
from jaxshare.trees import Params
from jaxshare.types import Array, Episode

TASKS = (("env=smax", "env.scenario=3m"), ("env=mpe", "env.scenario=spread"))
KEYS = 4  # rollouts of a round
ROOM = 10  # times the steps that are needed
Play = Callable[..., Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help="as for jaxshare.train, instead of the two tasks")
    parser.add_argument("--envs", type=int, default=16, help="environments at a time (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of measuring on each task (default %(default)s)")
    parser.add_argument("--json", help="also write the figures here")
    options = parser.parse_args()
    cli.run_command(lambda: measure(options))


def measure(options: argparse.Namespace) -> None:
    found: dict[str, Any] = {"machine": _common.machine()}
    print(found["machine"])
    for task in [tuple(options.settings)] if options.settings else TASKS:
        settings = cli.settings([*task, f"num_envs={options.envs}"])
        found[" ".join(task)] = compare(build.prepare(settings), options.seconds)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)


def compare(program: Program, seconds: float) -> dict[str, float]:
    """Both ways on one task."""
    limit, num_envs = program.env.spec.episode_limit, program.run.num_envs
    spec = replace(program.env.spec, episode_limit=ROOM * limit)
    ways = {
        "ours": player(program, rollout.episodes),
        "scan": player(program, scanned),
        "room": player(replace(program, env=replace(program.env, spec=spec)), rollout.episodes),
    }
    ours, scan = (jax.device_get(ways[name](jax.random.key(0)).episode) for name in ("ours", "scan"))
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, ours, scan))), "a scan gives other episodes"
    steps = ours.mask.sum(0)
    times = in_turns(ways, seconds)
    name = f"{program.env.spec.name}, {num_envs} environments"
    middle = {name: statistics.median(x) * 1e3 for name, x in times.items()}
    ratio = {name: statistics.median(x / o for x, o in zip(times[name], times["ours"], strict=True)) for name in times}
    print(f"{name}: {steps.max():.0f} steps of at most {limit} to the last end, {steps.mean():.1f} on average")
    print(f"  {middle['ours']:.2f} ms; scan to the limit {middle['scan']:.2f} ms, {ratio['scan']:.3f} times ours")
    print(f"  with room for {ROOM} times as many steps {middle['room']:.2f} ms, {ratio['room']:.3f} times ours")
    print(f"  {len(times['ours'])} rounds of {KEYS} rollouts")
    return {"longest": float(steps.max()), "limit": limit, "ours, ms": middle["ours"], "scan, ms": middle["scan"],
            "scan / ours": ratio["scan"], "room / ours": ratio["room"]}  # fmt: skip


def player(program: Program, play: Play) -> Play:
    """key -> Rollout of the first episodes of training, compiled."""
    algorithm = program.algorithm
    ctx = _common.context(algorithm.hparams)
    params = jax.jit(algorithm.init)(jax.random.key(0)).params

    def first(params: Params, key: Array) -> rollout.Rollout:
        return play(rollout.Players(program.env, algorithm, params, ctx, explore=True), key, program.run.num_envs)

    compiled = jax.jit(first)
    return lambda key: compiled(params, key)


def in_turns(ways: dict[str, Play], seconds: float) -> dict[str, list[float]]:
    """Seconds of one rollout in each round, the ways one after another with the same keys."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for play in ways.values():
        jax.block_until_ready(play(jax.random.key(0)))
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        keys = [jax.random.key(KEYS * len(times["ours"]) + i) for i in range(KEYS)]
        order = list(ways) if len(times["ours"]) % 2 else list(reversed(ways))
        for name in order:
            start = time.perf_counter()
            for key in keys:
                jax.block_until_ready(ways[name](key))
            times[name].append((time.perf_counter() - start) / KEYS)
    return times


def scanned(players: rollout.Players, key: Array, num_envs: int) -> rollout.Rollout:
    """The same episodes as plainly as can be: a scan to the limit, and padding put in afterwards."""
    env = players.env
    reset_key, step_key = jax.random.split(key)
    state, shown = jax.vmap(env.reset)(jax.random.split(reset_key, num_envs))

    def step(carry: Any, key: Array) -> Any:
        state, shown, memory, running = carry
        act_key, env_key = jax.random.split(key)
        memory, action, extras = players.act(memory, shown, act_key)
        stepped = jax.vmap(env.step)(state, action, jax.random.split(env_key, num_envs))
        state, new = jax.tree.map(partial(_select, running), stepped, (state, shown))
        going = running & ~(new.terminated | new.truncated)
        return (state, new, memory, going), (shown, new, {"action": action, "extras": extras}, running)

    start = (state, shown, players.algorithm.initial_carry(num_envs), jnp.ones(num_envs, bool))
    (_, last, *_), (seen, new, acted, running) = jax.lax.scan(
        step, start, jax.random.split(step_key, env.spec.episode_limit)
    )
    slots: dict[str, Any] = {}
    reached = jnp.concatenate([running[:1], running])
    for name, value in rollout.PADDING.items():
        whole = jnp.concatenate([getattr(seen, name), getattr(last, name)[None]])
        slots[name] = _select(reached, whole, jnp.asarray(value, whole.dtype))
    taken: dict[str, Any] = {
        **acted,
        **{name: getattr(new, name) for name in ("reward", "terminated", "truncated", "info")},
    }
    taken = jax.tree.map(lambda x: _select(running, x, jnp.zeros((), x.dtype)), taken)
    info = {name: x.sum(0) for name, x in taken.pop("info").items()}
    return rollout.Rollout(episode=Episode(**slots, **taken, mask=running.astype(jnp.float32)), info=info)


def _select(where: Array, new: Array, old: Array) -> Array:
    return jnp.where(where.reshape(where.shape + (1,) * (new.ndim - where.ndim)), new, old)


if __name__ == "__main__":
    main()

"""Speed of the environments: JAX ports against the originals and Jumanji, every JAX task, and the host bridge.

    python benchmarks/environments.py                      all three parts
    python benchmarks/environments.py --part ports         ours | the original | Jumanji, on one core, with ratios
    python benchmarks/environments.py --part tasks         environment steps/s of every JAX environment
    python benchmarks/environments.py --part bridge        one call of the bridge against stepping the package directly

Random actions, 16 environments under one scan of 100 steps; a rollout that ended is reset (both in ours and in
Jumanji's) when any of the batch has ended. The rounds of rivals alternate, so that a busy machine slows all alike; the
fastest round counts. Ports and tasks run on one core, to which this process binds itself where the system allows it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

import _common
import jax
import jax.numpy as jnp
import numpy as np

from jaxshare import cli, registry
from jaxshare.envs.lbf.task import parse
from jaxshare.types import Box, Env

ENVS, STEPS, SLOTS = 16, 100, 8
PORTS = {
    "lbf": ("8x8-2p-2f-coop", "10x10-3p-3f", "15x15-3p-4f"),
    "rware": ("tiny-2ag", "tiny-4ag", "small-4ag"),
}
TASKS = {
    "smax": ("3m", "8m", "2s3z", "3s5z", "5m_vs_6m", "8m_vs_9m", "10m_vs_11m", "1c3s5z", "2s_vs_1sc", "MMM", "MMM2",
             "corridor_open", "2c_vs_64zg"),
    "mpe": ("spread", "tag", "speaker_listener", "sparse_tag", "CN_3ls3l", "CN_4ls4l", "PP_3p1p", "pred_prey_3a",
            "pred_prey_6a", "pred_prey_9a"),
    "lbf": ("8x8-2p-2f-coop", "10x10-3p-3f", "12x12-2p-1f", "15x15-3p-4f"),
    "rware": ("tiny-2ag", "tiny-4ag", "small-4ag", "medium-4ag", "large-4ag"),
    "jaxmarl": ("switch_riddle", "overcooked", "hanabi"),
}  # fmt: skip
Round = Callable[[], object]  # does a fixed number of steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("all", "ports", "tasks", "bridge"), default="all")
    parser.add_argument("--rounds", type=int, default=20, help="timed rounds of each (default %(default)s)")
    parser.add_argument("--json", help="also write the figures here")
    options = parser.parse_args()
    cli.run_command(lambda: measure(options))


def measure(options: argparse.Namespace) -> None:
    found: dict[str, Any] = {"machine": _common.machine()}
    print(found["machine"])
    if options.part in ("all", "bridge"):  # first: it needs the other cores
        found["bridge"] = bridge(options.rounds)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if options.part in ("all", "ports"):
        found["ports"] = ports(options.rounds)
    if options.part in ("all", "tasks"):
        found["tasks"] = tasks(options.rounds)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)


def in_turns(rounds: dict[str, Round], repeats: int) -> dict[str, float]:
    """The fastest round of each, in seconds."""
    best = dict.fromkeys(rounds, float("inf"))
    for run in rounds.values():
        run()
    for _ in range(repeats):
        for name, run in rounds.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


# ------------------------------------------------------------------------------------------------------------ JAX code


def scanned(reset: Callable, step: Callable, sample: Callable, ended: Callable, envs: int = ENVS) -> Round:
    """STEPS steps of `envs` environments: reset(keys), step(state, action, keys), sample(shown, key), ended(shown)."""

    def one(carry: Any, key: jax.Array) -> Any:
        state, shown = carry
        act, move, again = jax.random.split(key, 3)
        state, shown = step(state, sample(shown, act), jax.random.split(move, envs))
        over = ended(shown)

        def fresh() -> Any:
            new = reset(jax.random.split(again, envs))
            return jax.tree.map(lambda n, o: _select(over, n, o), new, (state, shown))

        return jax.lax.cond(over.any(), fresh, lambda: (state, shown)), shown

    run = jax.jit(lambda carry, key: jax.lax.scan(one, carry, jax.random.split(key, STEPS)))
    last = [jax.jit(reset)(jax.random.split(jax.random.key(0), envs))]
    keys = iter(range(1, 1_000_000))

    def round_() -> None:
        last[0], _ = jax.block_until_ready(run(last[0], jax.random.key(next(keys))))

    return round_


def _select(over: jax.Array, new: Any, old: Any) -> Any:
    if jax.dtypes.issubdtype(new.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_select(over, jax.random.key_data(new), jax.random.key_data(old)))
    return jnp.where(over.reshape(over.shape + (1,) * (new.ndim - 1)), new, old)


def ours(env: Env, masked: bool) -> Round:
    n, action = env.spec.num_agents, env.spec.action

    def sample(shown: Any, key: jax.Array) -> jax.Array:
        if isinstance(action, Box):
            return jax.random.uniform(key, (ENVS, n, action.dim), minval=-1.0)
        if masked:
            return jax.random.categorical(key, jnp.where(shown.avail, 0.0, -jnp.inf)).astype(jnp.int32)
        return jax.random.randint(key, (ENVS, n), 0, action.num_actions)

    return scanned(jax.vmap(env.reset), jax.vmap(env.step), sample, lambda shown: shown.terminated | shown.truncated)


def jumanji(name: str, env: Env) -> Round:
    n, state = env.spec.num_agents, name.split("/")
    game = _jumanji_lbf(state[1]) if state[0] == "lbf" else _jumanji_rware(state[1])
    num_actions = env.spec.action.num_actions  # type: ignore[union-attr]
    return scanned(
        jax.vmap(game.reset),
        jax.vmap(lambda state, action, key: game.step(state, action)),
        lambda shown, key: jax.random.randint(key, (ENVS, n), 0, num_actions),
        jax.vmap(lambda shown: shown.last()),
    )


def _jumanji_lbf(scenario: str) -> Any:
    from jumanji.environments.routing.lbf.env import LevelBasedForaging
    from jumanji.environments.routing.lbf.generator import RandomGenerator

    task = parse(scenario, None)
    generator = RandomGenerator(
        grid_size=task.rows, num_agents=task.players, num_food=task.foods, fov=task.rows, max_agent_level=2,
        force_coop=task.coop,
    )  # fmt: skip
    return LevelBasedForaging(generator=generator, time_limit=25)


def _jumanji_rware(scenario: str) -> Any:
    from jumanji.environments.routing.robot_warehouse.env import RobotWarehouse
    from jumanji.environments.routing.robot_warehouse.generator import RandomGenerator

    size, agents = scenario.split("-")
    rows, columns = {"tiny": (1, 3), "small": (2, 3)}[size]
    n = int(agents.removesuffix("ag"))
    generator = RandomGenerator(
        shelf_rows=rows, shelf_columns=columns, column_height=8, num_agents=n, sensor_range=1, request_queue_size=n
    )
    return RobotWarehouse(generator=generator, time_limit=500)


# -------------------------------------------------------------------------------------------------------- the originals


def original(name: str) -> tuple[Any, int, int]:
    """A bare environment of the package behind a port, its agents and its actions."""
    import gymnasium

    kind, scenario = name.split("/")
    __import__({"lbf": "lbforaging", "rware": "rware"}[kind])
    ids = {"lbf": f"Foraging-{scenario}-v3", "rware": f"rware-{scenario}-v2"}
    game: Any = gymnasium.make(ids[kind], disable_env_checker=True).unwrapped
    return game, len(game.action_space.spaces), int(game.action_space.spaces[0].n)


def stepped(name: str, steps: int) -> Round:
    game, n, num_actions = original(name)
    actions = np.random.default_rng(0).integers(0, num_actions, (steps, n)).tolist()
    game.reset(seed=0)

    def round_() -> None:
        for action in actions:
            if game.step(action)[2]:
                game.reset()

    return round_


def ports(rounds: int) -> dict[str, Any]:
    found, batch = {}, ENVS * STEPS
    print(f"\nports, one core, {ENVS} environments: environment steps/s (aim: lbf 20x, rware 10x the original)")
    print(f"  {'task':<22} {'original':>10} {'Jumanji':>11} {'ours':>11}   ours/original  ours/Jumanji")
    for kind, scenarios in PORTS.items():
        for scenario in scenarios:
            name, module = f"{kind}/{scenario}", registry.get("env", kind)
            env = module.make(module.Config(scenario=scenario))
            runs = {
                "original": stepped(name, STEPS),
                "Jumanji": jumanji(name, env),
                "ours": ours(env, masked=False),
            }
            best = in_turns(runs, rounds)
            rate = {who: (STEPS if who == "original" else batch) / best[who] for who in runs}
            print(
                f"  {name:<22} {rate['original']:>10,.0f} {rate['Jumanji']:>11,.0f} {rate['ours']:>11,.0f}"
                f"   {rate['ours'] / rate['original']:>12.1f}x {rate['ours'] / rate['Jumanji']:>12.2f}x"
            )
            found[name] = rate
    return found


def tasks(rounds: int) -> dict[str, float]:
    found = {}
    print(f"\ntasks in JAX, one core, {ENVS} environments, random available actions: environment steps/s")
    for kind, scenarios in TASKS.items():
        module = registry.get("env", kind)
        for scenario in scenarios:
            env = module.make(module.Config(**{"id" if kind == "jaxmarl" else "scenario": scenario}))
            best = in_turns({"": ours(env, masked=True)}, max(2, rounds // 4))[""]
            found[env.spec.name] = ENVS * STEPS / best
            print(f"  {env.spec.name:<28} {found[env.spec.name]:>12,.0f}", flush=True)
    return found


# ---------------------------------------------------------------------------------------------------------- the bridge


def bridge(rounds: int) -> dict[str, Any]:
    """Eight environments: one call of the bridge from a scan, against a Python loop over the package itself."""
    found = {}
    print(f"\nbridge, {SLOTS} environments a call (aim: at most 150 µs more, or 1.3x direct stepping)")
    print(f"  {'task':<22} {'direct µs':>10} {'bridge µs':>10} {'ratio':>6} {'more µs':>8} {'2 workers µs':>13}")
    for name, scenario in (("lbf", "8x8-2p-2f-coop"), ("rware", "tiny-2ag"), ("rware", "tiny-4ag")):
        kind = {"lbf": "lbforaging", "rware": "rware_host"}[name]
        module = registry.get("env", kind)
        runs: dict[str, Round] = {"direct": _direct(f"{name}/{scenario}")}
        envs = []
        for label, workers in (("bridge", 0), ("2 workers", 2)):
            envs.append(module.make(module.Config(scenario=scenario, max_steps=10**6, workers=workers)))
            runs[label] = _through(envs[-1])
        best = {who: seconds / STEPS * 1e6 for who, seconds in in_turns(runs, rounds).items()}
        for env in envs:
            env.host.close()
        more = best["bridge"] - best["direct"]
        print(
            f"  {name + '/' + scenario:<22} {best['direct']:>10.0f} {best['bridge']:>10.0f} "
            f"{best['bridge'] / best['direct']:>6.2f} {more:>8.0f} {best['2 workers']:>13.0f}"
        )
        found[f"{kind}/{scenario}"] = {**best, "steps/s": SLOTS / best["bridge"] * 1e6}
    return found


def _direct(name: str) -> Round:
    games = [original(name)[0] for _ in range(SLOTS)]
    n, num_actions = original(name)[1:]
    actions = np.random.default_rng(0).integers(0, num_actions, (STEPS, SLOTS, n)).tolist()
    for seed, game in enumerate(games):
        game.reset(seed=seed)

    def round_() -> None:
        for row in actions:
            for game, action in zip(games, row, strict=True):
                game.step(action)

    return round_


def _through(env: Env) -> Round:
    """The same through the bridge: the environments are reset once, before the first round."""
    n, num_actions = env.spec.num_agents, env.spec.action.num_actions  # type: ignore[union-attr]
    unused = jax.random.split(jax.random.key(0), SLOTS)

    def one(state: Any, action: jax.Array) -> Any:
        state, shown = jax.vmap(env.step)(state, action, unused)
        return state, shown.reward.sum()

    run = jax.jit(lambda state, actions: jax.lax.scan(one, state, actions))
    actions = jax.random.randint(jax.random.key(1), (STEPS, SLOTS, n), 0, num_actions)
    last = [jax.jit(jax.vmap(env.reset))(unused)[0]]

    def round_() -> None:
        last[0], _ = jax.block_until_ready(run(last[0], actions))

    return round_


if __name__ == "__main__":
    main()

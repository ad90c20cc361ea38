"""Matrix games: what VDN, QMIX and QPLEX make of a payoff table, beside the best possible.

    python benchmarks/matrix_games.py [--games climbing nm1] [--algos qplex] [--seeds 3]

Every update sees each joint action once, which is uniform exploration (epsilon = 1) without its noise. What is known:

    VDN    the best sum is row mean + column mean - grand mean, and the only optimum; the distance is to that table
    QMIX   with two agents Q_tot is supermodular in the utilities' order; the best such fit has the squared error below
    QPLEX  can represent every table: error 0

A step of benchmarks/claims/lecture.yaml, which has the lecture's tables. Settings: the family's defaults (RMSprop, lr
5e-4) and feed-forward agents; lr falls to 0 in the second half; QPLEX with ten kernels of three layers, as its authors'
matrix games have (`--set` changes any of these).
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import time
from typing import Any

import _common
import jax
import jax.numpy as jnp
import numpy as np

from jaxshare import registry
from jaxshare.envs.matrix import environment as matrix
from jaxshare.envs.matrix.tables import TABLES
from jaxshare.learners.passes import with_values
from jaxshare.learners.records import View
from jaxshare.types import Clock, Context, Discrete, Episode

SUPERMODULAR = {  # squared error of the best fit that is monotone and supermodular, found by enumerating the orders
    "linear": 0, "monotonic": 0, "climbing": 151.5556, "or": 6.25, "nm1": 32.0, "nm2": 38.2222, "stag_hunt_sum": 0.1667,
}  # fmt: skip
SETTINGS = {"qplex": {"num_kernels": 10, "importance_layers": 3}}
KEY = jax.random.key(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", nargs="+", default=["linear", "monotonic", "climbing"], choices=[*SUPERMODULAR])
    parser.add_argument("--algos", nargs="+", default=["vdn", "qmix", "qplex"], choices=["vdn", "qmix", "qplex"])
    parser.add_argument("--seeds", type=int, default=2, help="default %(default)s; the first one's table is shown")
    parser.add_argument("--updates", type=int, default=10_000, help="default %(default)s")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the algorithm, as JSON")
    parser.add_argument("--json", help="also write the figures here")
    options = parser.parse_args()
    changed = {key: _literal(value) for key, value in (item.split("=", 1) for item in options.set)}
    start, figures = time.perf_counter(), {}
    for game, algo in itertools.product(options.games, options.algos):
        runs = train(game, algo, options.updates, options.seeds, changed)
        figures[f"{game}: {algo}"] = report(game, algo, runs)
    print(f"{time.perf_counter() - start:.0f} s, {options.updates} updates a seed; {_common.machine()}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({**figures, "machine": _common.machine()}, file, indent=1)


def _literal(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def every_joint_action(env: Any) -> Episode:
    """One episode of one step for each joint action, as a batch."""
    joint = jnp.array(list(itertools.product(range(env.spec.action.num_actions), repeat=2)), jnp.int32)
    state, first = env.reset(KEY)
    last = jax.vmap(lambda a: env.step(state, a, KEY)[1])(joint)

    def slots(name: str) -> jax.Array:
        end = getattr(last, name)
        return jnp.stack([jnp.broadcast_to(getattr(first, name), end.shape), end])

    return Episode(
        obs=slots("obs"),
        state=slots("state"),
        avail=slots("avail"),
        alive=slots("alive"),
        reward=last.reward[None],
        terminated=last.terminated[None],
        truncated=last.truncated[None],
        action=joint[None],
        mask=jnp.ones((1, len(joint))),
    )


def train(game: str, algo: str, updates: int, seeds: int, changed: dict[str, Any]) -> list[np.ndarray]:
    """Q_tot [A, A] of each seed."""
    env, module = matrix.make(matrix.Config(game=game)), registry.get("algo", algo)
    settings = {"recurrent": False, "obs_last_action": False, **SETTINGS.get(algo, {}), **changed}
    fields = module.Config.__dataclass_fields__
    known = {key: value for key, value in settings.items() if key in fields}
    parts = module.make(module.Config(**known), env.spec)
    algorithm, batch = parts.assemble(), every_joint_action(env)
    hparams = {name: jnp.float32(value) for name, value in algorithm.hparams.items()}
    ctx = Context(hparams=hparams, clock=Clock(*[jnp.int32(0)] * 4), env_steps=jnp.int32(0), total_env_steps=1)

    @jax.jit
    def run(key: jax.Array) -> jax.Array:
        def body(learner: Any, left: jax.Array) -> Any:
            now = dataclasses.replace(ctx, hparams={**hparams, "lr": hparams["lr"] * jnp.minimum(1.0, 2.0 * left)})
            return algorithm.update(learner, batch, now, KEY)[0], None

        learner, _ = jax.lax.scan(body, algorithm.init(key), jnp.linspace(1.0, 0.0, updates))
        view = View(parts, learner, learner.params, batch, ctx, key=None)
        return with_values(view).values.q_tot[0]

    action = env.spec.action
    assert isinstance(action, Discrete)
    actions = action.num_actions
    tables = [np.asarray(run(jax.random.key(seed))) for seed in range(seeds)]
    return [table.reshape(actions, actions) for table in tables]


def report(game: str, algo: str, tables: list[np.ndarray]) -> dict[str, Any]:
    """Print the first seed's table, and the distances of every seed."""
    payoff = np.array(TABLES[game], float)
    best_sum = payoff.mean(1, keepdims=True) + payoff.mean(0, keepdims=True) - payoff.mean()
    errors = [_error(table, payoff) for table in tables]
    least = {"vdn": _error(best_sum, payoff), "qmix": SUPERMODULAR[game], "qplex": 0.0}[algo]
    greedy = [np.unravel_index(table.argmax(), payoff.shape) for table in tables]
    figures: dict[str, Any] = {
        "error": errors,
        "least_error": least,
        "greedy": ["".join("ABC"[action] for action in joint) for joint in greedy],
        "table": tables[0].tolist(),
    }
    if algo == "vdn":
        figures["distance"] = [float(np.abs(table - best_sum).max()) for table in tables]

    print(f"{game}: {algo}\n{np.array2string(tables[0], precision=2, suppress_small=True)}")
    print(f"  squared error {' '.join(f'{e:.4f}' for e in errors)}   at best {least:.4f}")
    paid = []
    for name, joint in zip(figures["greedy"], greedy, strict=True):
        paid.append(f"{name} pays {payoff[joint]:g}")
    print(f"  greedy outcome {' '.join(paid)}   at best {payoff.max():g}\n")
    return figures


def _error(table: np.ndarray, payoff: np.ndarray) -> float:
    return float(np.mean(np.square(table - payoff)))


if __name__ == "__main__":
    main()

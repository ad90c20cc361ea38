"""Matrix games: what VDN, QMIX and QPLEX make of a payoff table, beside the lecture's tables and the best possible.

    python benchmarks/matrix_games.py [--games climbing nm1] [--algos qplex] [--seeds 3]

Every update sees each joint action once, which is uniform exploration (epsilon = 1) without its noise. What is known:

    VDN    the best sum is row mean + column mean - grand mean, and the only optimum; the distance is to that table
    QMIX   with two agents Q_tot is supermodular in the utilities' order; the best such fit has the squared error below
    QPLEX  can represent every table: error 0

Lecture: Albrecht, Christianos and Schäfer's on their book, with the tables of VDN and QMIX for the first three games.
Its settings are not given. Ours: the family's defaults (RMSprop, lr 5e-4) and feed-forward agents; lr falls to 0 in the
second half; QPLEX with ten kernels of three layers, as its authors' matrix games have (`--set` changes any of these).
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
from jaxshare.algos import _value
from jaxshare.envs import matrix
from jaxshare.types import Clock, Context, Episode

LECTURE = {  # rows, columns (utilities), table
    ("linear", "vdn"): ([0.88, 4.88], [0.12, 4.12], [[1, 5], [5, 9]]),
    ("linear", "qmix"): ([0.19, 0.96], [-0.21, 0.68], [[1, 5], [5, 9]]),
    ("monotonic", "vdn"): ([-0.94, 4.08], [-1.45, 3.45], [[-2.43, 2.51], [2.60, 7.53]]),
    ("monotonic", "qmix"): ([-4.66, 1.81], [-4.91, 0.82], [[0, 0], [0, 10]]),
    ("climbing", "vdn"): (
        [-4.28, -6.10, 5.31],
        [-4.56, -4.15, 3.28],
        [[-8.84, -8.43, -1.00], [-10.66, -10.25, -2.82], [0.75, 1.16, 8.59]],
    ),
    ("climbing", "qmix"): (
        [-7.44, 7.65, 11.27],
        [-16.60, -0.24, -4.68],
        [[-11.16, -11.16, -11.16], [-11.15, 2.34, -1.37], [-4.95, 8.72, 5.01]],
    ),
}
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
        **{name: slots(name) for name in ("obs", "state", "avail", "alive")},
        **{name: getattr(last, name)[None] for name in ("reward", "terminated", "truncated")},
        action=joint[None],
        mask=jnp.ones((1, len(joint))),
    )


def train(game: str, algo: str, updates: int, seeds: int, changed: dict[str, Any]) -> list[tuple[np.ndarray, ...]]:
    """(utilities of the rows [A], of the columns [A], Q_tot [A, A]) of each seed."""
    env, module = matrix.make(matrix.Config(game=game)), registry.get("algo", algo)
    settings = {"recurrent": False, "obs_last_action": False, **SETTINGS.get(algo, {}), **changed}
    known = {key: value for key, value in settings.items() if key in module.Config.__dataclass_fields__}
    parts = module.make(module.Config(**known), env.spec)
    algorithm, batch = parts.assemble(), every_joint_action(env)
    hparams = {name: jnp.float32(value) for name, value in algorithm.hparams.items()}
    ctx = Context(hparams=hparams, clock=Clock(*[jnp.int32(0)] * 4), env_steps=jnp.int32(0), total_env_steps=1)

    @jax.jit
    def run(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        def body(learner: Any, left: jax.Array) -> Any:
            now = dataclasses.replace(ctx, hparams={**hparams, "lr": hparams["lr"] * jnp.minimum(1.0, 2.0 * left)})
            return algorithm.update(learner, batch, now, KEY)[0], None

        learner, _ = jax.lax.scan(body, algorithm.init(key), jnp.linspace(1.0, 0.0, updates))
        values = _value._values(parts, learner.params, learner.target_params, batch, ctx)
        return values.q[0, 0], values.q_tot[0]

    found = []
    for seed in range(seeds):
        utilities, q_tot = map(np.asarray, run(jax.random.key(seed)))
        found.append((*utilities, q_tot.reshape(utilities.shape[1], -1)))
    return found


def report(game: str, algo: str, runs: list[tuple[np.ndarray, ...]]) -> dict[str, Any]:
    """Print the tables side by side and the distances of every seed."""
    payoff = np.array(matrix.TABLES[game], float)
    best_sum = payoff.mean(1, keepdims=True) + payoff.mean(0, keepdims=True) - payoff.mean()
    error = lambda table: float(np.mean(np.square(table - payoff)))  # noqa: E731
    least = {"vdn": error(best_sum), "qmix": SUPERMODULAR[game], "qplex": 0.0}[algo]
    blocks = {"payoff": block(payoff), f"{algo}, ours": block(runs[0][2], runs[0][0], runs[0][1])}
    told = LECTURE.get((game, algo))
    if told:
        blocks[f"{algo}, lecture"] = block(np.array(told[2], float), told[0], told[1])
    if algo == "vdn":
        blocks["best sum"] = block(best_sum)
    show(f"{game}: {algo}", blocks)
    errors = [error(run[2]) for run in runs]
    print(f"  squared error {' '.join(f'{e:.4f}' for e in errors)}   at best {least:.4f}", end="")
    print(f"   lecture {error(np.array(told[2], float)):.4f}" if told else "")
    chosen = ["".join("ABC"[i] for i in np.unravel_index(run[2].argmax(), payoff.shape)) for run in runs]
    outcome = [float(payoff[tuple("ABC".index(c) for c in pair)]) for pair in chosen]
    paid = " ".join(f"{pair} pays {pay:g}" for pair, pay in zip(chosen, outcome, strict=True))
    print(f"  greedy outcome {paid}   at best {payoff.max():g}")
    figures = {"error": errors, "least_error": least, "greedy": chosen, "table": runs[0][2].tolist()}
    if algo == "vdn":
        figures["distance"] = [float(np.abs(run[2] - best_sum).max()) for run in runs]
        print(f"  largest distance to the best sum {' '.join(f'{d:.4f}' for d in figures['distance'])}")
    print()
    return figures


def block(table: np.ndarray, rows: Any = None, columns: Any = None) -> list[str]:
    """Lines of a table, with utilities in the margins if there are any."""
    margin = [""] * len(table) if rows is None else [f"{r:7.2f} |" for r in rows]
    head = [] if columns is None else [" " * 9 + "".join(f"{c:8.2f}" for c in columns)]
    body = [m + "".join(f"{x:8.2f}" for x in row) for m, row in zip(margin, table, strict=True)]
    return [*(head or [""]), *body]


def show(title: str, blocks: dict[str, list[str]]) -> None:
    """Print blocks of lines beside each other."""
    print(title)
    width = {name: max(len(name) + 2, *(len(line) for line in lines)) for name, lines in blocks.items()}
    print("  " + "   ".join(f"{name:>{width[name]}}" for name in blocks))
    for i in range(len(next(iter(blocks.values())))):
        print("  " + "   ".join(f"{lines[i]:>{width[name]}}" for name, lines in blocks.items()))


if __name__ == "__main__":
    main()

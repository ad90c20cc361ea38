"""Times jaxshare's sum-tree beside flashbax's: build, set and sample, and what a million updates leave behind.

Both libraries run in this process, in turns, on the same indices and values; both give up (donate) the tree they
update. A cell is the fastest of `--repeats` rounds of `--calls` calls each, in µs. The ratio is ours over the better
of flashbax's two setters, or over its stratified sampler; "slower" marks ratios above 1.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flashbax.buffers import sum_tree as flashbax

from jaxshare.training import sum_tree

SETTERS = {"flashbax scan": flashbax.set_batch_scan, "flashbax bincount": flashbax.set_batch_bincount}
MAPPED = 8  # trees under vmap: seeds
Call = Callable[[], object]


def updating(function, tree, *args) -> Call:
    """Calls `function` on its own last result, which it may overwrite."""
    update, last = jax.jit(function, donate_argnums=0), [tree]

    def call():
        last[0] = jax.block_until_ready(update(last[0], *args))

    return call


def reading(function, *args) -> Call:
    read = jax.jit(function)
    return lambda: jax.block_until_ready(read(*args))


def in_turns(calls: dict[str, Call], repeats: int, inner: int) -> dict[str, float]:
    """The fastest round of each, in µs per call. Rounds alternate, so that a busy machine slows all alike."""
    best = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        call()
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(inner):
                call()
            best[name] = min(best[name], (time.perf_counter() - start) / inner * 1e6)
    return best


def trees(priority):
    """Ours and a maker of flashbax's, which has no bulk build and is donated away by each setter."""
    fill = jax.jit(flashbax.set_batch_scan)
    capacity = len(priority)
    return jax.jit(partial(sum_tree.build, capacity))(priority), lambda: fill(
        flashbax.init(capacity), jnp.arange(capacity), priority
    )


def row(what: str, capacity: int, batch: int, micros: dict[str, float]) -> dict:
    rivals = {name: value for name, value in micros.items() if name != "ours"}
    best = min(rivals, key=rivals.__getitem__)
    ratio = micros["ours"] / rivals[best]
    record = {"what": what, "leaves": capacity, "batch": batch, "us": micros, "best_rival": best, "ratio": ratio}
    rest = "  ".join(f"{name} {value:.0f}" for name, value in rivals.items())
    mark = "" if ratio <= 1 else "  slower"
    print(f"{what:8} {capacity:>9} {batch:>6} {micros['ours']:>9.0f} {ratio:>7.2f}   {rest}{mark}", flush=True)
    return record


def bench_set_and_sample(capacity: int, batch: int, clock, count: int = 1) -> list[dict]:
    """One tree, or `count` trees under vmap."""
    random = np.random.default_rng(0)
    priority = jnp.asarray(random.random(capacity, np.float32))
    index = jnp.asarray(random.integers(0, capacity, (count, batch)), jnp.int32)
    value, keys = jnp.asarray(random.random((count, batch), np.float32)), jax.random.split(jax.random.key(0), count)
    one, make_one = trees(priority)

    def several(tree):
        return jax.tree.map(lambda x: jnp.stack([x] * count), tree) if count > 1 else tree

    def lifted(function):
        return jax.vmap(function) if count > 1 else function

    index, value, keys = (x if count > 1 else x[0] for x in (index, value, keys))
    draw, draw_theirs = (
        partial(sum_tree.sample, batch=batch),
        lambda tree, key: flashbax.stratified_sample(tree, batch, key),
    )
    reads = {
        "ours": reading(lifted(draw), several(one), keys),
        "flashbax": reading(lifted(draw_theirs), several(make_one()), keys),
    }
    sampled = clock(reads)
    sets = {"ours": updating(lifted(sum_tree.set), several(one), index, value)}
    sets |= {name: updating(lifted(setter), several(make_one()), index, value) for name, setter in SETTERS.items()}
    mark = f" x{count}" if count > 1 else ""
    return [row(f"set{mark}", capacity, batch, clock(sets)), row(f"sample{mark}", capacity, batch, sampled)]


def bench_build(capacity: int, clock) -> dict:
    """flashbax's only way to fill a tree is one batched set of every leaf."""
    priority = jnp.asarray(np.random.default_rng(0).random(capacity, np.float32))
    calls = {"ours": reading(partial(sum_tree.build, capacity), priority)}
    for name, setter in SETTERS.items():
        calls[name] = updating(setter, flashbax.init(capacity), jnp.arange(capacity), priority)
    return row("build", capacity, capacity, clock(calls))


def bench_fresh(count: int, clock) -> dict:
    """As many draws as leaves from priorities used once, beside a cumulative sum and a binary search."""
    priority, key = jnp.asarray(np.random.default_rng(0).random(count, np.float32)), jax.random.key(0)

    def search(priority, key):
        edge = jnp.cumsum(priority)
        u = (jnp.arange(count, dtype=jnp.float32) + jax.random.uniform(key, (count,))) / count
        return jnp.searchsorted(edge, u * edge[-1], side="right")

    def tree(priority, key):
        return sum_tree.sample(sum_tree.build(count, priority), key, count)

    calls = {"ours": reading(tree, priority, key), "cumsum+searchsorted": reading(search, priority, key)}
    return row("fresh", count, count, clock(calls))


def drift(updates: int, capacity: int = 16_384, batch: int = 1000) -> dict[str, float]:
    """The root after `updates` random updates followed by setting every leaf to zero."""

    def run(set_batch, tree):
        def step(tree, key):
            keys = jax.random.split(key)
            index = jax.random.randint(keys[0], (batch,), 0, capacity)
            return set_batch(tree, index, jax.random.uniform(keys[1], (batch,))), None

        tree, _ = jax.lax.scan(step, tree, jax.random.split(jax.random.key(0), updates // batch))
        for part in jnp.arange(capacity).reshape(32, -1):  # in parts: a full batch would build our tree afresh
            tree = set_batch(tree, part, jnp.zeros(part.shape))
        return tree.nodes[0]

    roots = {"ours": jax.jit(partial(run, sum_tree.set))(sum_tree.init(capacity))}
    roots |= {name: jax.jit(partial(run, setter))(flashbax.init(capacity)) for name, setter in SETTERS.items()}
    return {name: float(root) for name, root in roots.items()}


def machine() -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flashbax", "numpy")}
    device = jax.devices()[0]
    host = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    day = time.strftime("%Y-%m-%d", time.gmtime())
    return {**versions, "Python": platform.python_version(), "device": device.device_kind, "host": host, "day": day}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three batches, three sizes")
    parser.add_argument("--leaves", type=int, nargs="+", metavar="C", help="default: 10^3 10^4 10^5 10^6")
    parser.add_argument("--batch", type=int, nargs="+", metavar="B", help="default: 32 128 256 1024 4096 8192")
    parser.add_argument("--repeats", type=int, default=15, help="rounds per cell (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=10, help="calls per round (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write every number there")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    sizes = args.leaves or ([10**3, 10**5, 10**6] if args.quick else [10**3, 10**4, 10**5, 10**6])
    batches = args.batch or ([32, 256, 4096] if args.quick else [32, 128, 256, 1024, 4096, 8192])
    clock = partial(in_turns, repeats=args.repeats, inner=args.calls)
    about = machine()
    print("  ".join(f"{name} {value}" for name, value in about.items()))
    print(f"{'what':8} {'leaves':>9} {'batch':>6} {'ours, µs':>9} {'ratio':>7}   rivals, µs")
    rows = [bench_build(size, clock) for size in sizes if size <= 10**5]
    rows += [record for size in sizes for batch in batches for record in bench_set_and_sample(size, batch, clock)]
    mapped = partial(bench_set_and_sample, clock=clock, count=MAPPED)
    rows += [record for size in sizes for batch in batches for record in mapped(size, batch)]
    rows.append(bench_fresh(10_000, clock))
    updates = 10**6
    left = drift(updates)
    print(
        f"root after {updates} updates and zeroing: " + ", ".join(f"{name} {value:g}" for name, value in left.items())
    )
    slower = [f"{r['what']} {r['leaves']}/{r['batch']} ({r['ratio']:.2f})" for r in rows if r["ratio"] > 1]
    print(f"{len(rows) - len(slower)} of {len(rows)} at least as fast; slower: {', '.join(slower) or 'none'}")
    if args.json:
        record = {"machine": about, "rows": rows, "drift": {"updates": updates, "root": left}}
        args.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()

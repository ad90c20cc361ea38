"""What every combination of algorithm and modifiers computes in its first updates, kept as numbers.

A change that should move nothing moves no pin, and one that should is told which ones it moved:

    python tests/pins.py                 measure all, and say what moved (exit status 1 if anything did)
    python tests/pins.py qmix sit        those of some algorithms
    python tests/pins.py --write         keep what was measured

They are in `tests/golden/pins.json`, with a fingerprint of the machine and the versions that made them. There the
comparison is to the bit; elsewhere to TOLERANCE, since another machine may add numbers up in another order.
"""

import argparse
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import sys

import jax
import jax.numpy as jnp
import numpy as np
from combinations import ENVS, PERSONAL, REFUSED, ROWS, collected, program

from jaxshare.training.counting import start_clock

FILE = pathlib.Path(__file__).parent / "golden" / "pins.json"
ITERATIONS = 3
TOLERANCE = 1e-6  # of the norm of an array, or of its sum if that is larger
PACKAGES = ("jax", "jaxlib", "flax", "optax", "distrax", "numpy")
# said outright, so that a pin does not depend on who asks; without optimisations compiling is quick
COMPILER = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@dataclasses.dataclass(frozen=True)
class Combination:
    """What is pinned."""

    algo: str
    modifiers: tuple[str, ...]
    env: str

    @property
    def name(self):
        """Such as 'qmix differ fading'."""
        return " ".join([self.algo, *self.modifiers, self.env])


def combinations():
    """Every algorithm without a modifier in both environments, and with each allowed one where agents differ."""
    allowed = [row for row in ROWS if row not in REFUSED]
    return [
        Combination(algo, modifiers, env)
        for algo, modifiers in allowed
        for env in ENVS
        if env == "fading" or not modifiers
    ]


def fingerprint():
    """What the last bits of a result depend on."""
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {
        **versions,
        "python": ".".join(platform.python_version_tuple()[:2]),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def processor():
    """A hash of the CPU's model and features, which decide how XLA orders sums; its name where they are not told."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    facts = {line for line in lines if line.startswith(("model name", "flags"))}
    return hashlib.sha256("\n".join(sorted(facts)).encode()).hexdigest()[:16]


# ------------------------------------------------------------------------------------------------------- measuring


def measure(combination):
    """The pin of one combination: a hash of all bits, and sums and norms of every array."""
    algo, modifiers, env = combination.algo, combination.modifiers, combination.env
    make_env, share = ENVS[env]
    training = program(algo, modifiers, make_env(), "none" if PERSONAL & {*modifiers} else share)
    hparams = {name: jnp.float32(value) for name, value in training.algorithm.hparams.items()}
    data = collected(algo, env) if training.offline else None

    def train(seed, clock, data):
        state, clock = training.prefill(training.init(seed), hparams, clock)
        if training.offline:
            return training.chunk_offline(ITERATIONS, state, hparams, (clock, data))[0]
        return training.chunk(ITERATIONS, state, hparams, clock)[0]

    compiled = jax.jit(train, compiler_options=COMPILER)
    state, metrics = compiled(jnp.int32(0), start_clock(), data)
    # returns of single agents are parts of the return
    collect = {name: x for name, x in metrics["collect"].items() if not name.startswith("return/")}
    results = {
        "params": state.learner.params,
        "target_params": state.learner.target_params,
        "update": metrics["update"],
        "collect": collect,
    }
    return {"bits": digest(results), "arrays": summary(results)}


def digest(tree):
    """One hash of all bits of a tree."""
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        total.update(np.ascontiguousarray(leaf).tobytes())
    return total.hexdigest()[:16]


def summary(tree):
    """{path: [sum, norm, largest magnitude]} of every array, in 64 bits."""
    numbers = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf, np.float64)
        largest = float(np.abs(array).max(initial=0.0))
        facts = (array.sum(), np.linalg.norm(array), largest)
        numbers[jax.tree_util.keystr(path)] = [float(f"{fact:.9g}") for fact in facts]
    return numbers


# ------------------------------------------------------------------------------------------------------- comparing


def moved(old, new, same_machine):
    """What differs between two pins of a combination, as lines of text; [] if nothing does."""
    if same_machine and old["bits"] == new["bits"]:
        return []
    lines = []
    for path in sorted({*old["arrays"], *new["arrays"]}):
        if path not in old["arrays"]:
            lines.append(f"{path} is new")
        elif path not in new["arrays"]:
            lines.append(f"{path} is no longer there")
        else:
            before, after = np.array(old["arrays"][path]), np.array(new["arrays"][path])
            scale = max(np.abs(before).max(), np.abs(after).max(), 1e-30)
            change = float(np.abs(after - before).max() / scale)
            if change > TOLERANCE or not np.isfinite(change):
                lines.append(f"{path}: sum, norm, largest {before.tolist()} -> {after.tolist()}")
    if not lines and same_machine:
        lines.append(f"the last bits ({old['bits']} -> {new['bits']}); sums agree to {TOLERANCE}")
    return lines


def load():
    """{"fingerprint": ..., "pins": {name of a combination: pin}}."""
    return json.loads(FILE.read_text())


def save(pins):
    """One combination a line, so that a change shows which."""
    lines = [f"{json.dumps(name)}: {json.dumps(pin)}" for name, pin in sorted(pins.items())]
    text = ",\n".join(lines)
    FILE.write_text(f'{{"fingerprint": {json.dumps(fingerprint())},\n"pins": {{\n{text}\n}}}}\n')


def compare(combination, kept):
    """See `moved`, of what is kept and what is measured now."""
    if combination.name not in kept["pins"]:
        return [f"has no pin: keep one by python tests/pins.py {combination.algo} --write"]
    return moved(kept["pins"][combination.name], measure(combination), kept["fingerprint"] == fingerprint())


def main():
    """Measure, say what moved, and keep it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algorithms", nargs="*", help="default: all")
    parser.add_argument("--write", action="store_true", help="keep what was measured")
    options = parser.parse_args()
    kept = load() if FILE.exists() else {"fingerprint": fingerprint(), "pins": {}}
    same_machine = kept["fingerprint"] == fingerprint()
    if not same_machine:
        print(f"another machine or other versions than those of the pins: compared to {TOLERANCE}")
        if options.write and options.algorithms:
            sys.exit("pins of another machine can only be written anew as a whole: leave out the names")

    wanted = [c for c in combinations() if not options.algorithms or c.algo in options.algorithms]
    pins = {}
    changes = 0
    for combination in wanted:
        pins[combination.name] = measure(combination)
        old = kept["pins"].get(combination.name)
        lines = moved(old, pins[combination.name], same_machine) if old else ["is new"]
        changes += bool(lines)
        print(combination.name, *(lines or ["same"]), sep="\n    ", flush=True)
    gone = [] if options.algorithms else sorted(kept["pins"].keys() - pins.keys())
    for name in gone:
        print(f"{name}\n    is no longer a combination")
    print(f"{len(wanted)} combinations, {changes} moved, {len(gone)} gone")
    if options.write:
        others = kept["pins"] if options.algorithms else {}
        save(others | pins)
    elif changes or gone:
        sys.exit(1)


if __name__ == "__main__":
    main()

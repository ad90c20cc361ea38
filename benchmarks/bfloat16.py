"""What compute.dtype=bfloat16 gives: a QMIX update and single products, against float32, in one process.

    python benchmarks/bfloat16.py                      three shapes, a line each; then products alone
    python benchmarks/bfloat16.py --shapes 2s3z        that
    python benchmarks/bfloat16.py --save               also benchmarks/results/bfloat16.json

The update is learner.py's: 32 episodes of full length, four updates to a call. Calls alternate; the median of the
ratios of neighbours counts, above 1 where bfloat16 is faster. Of a product there are three forms: float32, operands
rounded on the way in (as in an update), and operands that are bfloat16 already. What the compiler makes of the rounded
form is told, too: `in bfloat16` if the product that is left reads bfloat16, `in float32` if it was widened again.

The aim is 1.3 at 2s3z and with 10 agents where the machine multiplies bfloat16 (amx_bf16, avx512_bf16, a GPU).
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
from collections.abc import Callable
from functools import partial
from typing import Any

import _common
import jax
import jax.numpy as jnp
import learner
import numpy as np

from jaxshare.ops.precision import dot, rounded_to
from jaxshare.run.compute import computed
from jaxshare.settings.run_parts import ComputeConfig

OUT = pathlib.Path(__file__).parent / "results" / "bfloat16.json"
SHAPES = ("3m", "2s3z", "10 agents")
PRODUCTS = {  # rows, inputs, units: of all steps at once, of one step of the recurrence, and of a square
    "2s3z, embedding": (16_160, 142, 64),
    "10 agents, embedding": (32_320, 176, 64),
    "10 agents, gates": (32_320, 64, 64),
    "2s3z, one step": (160, 64, 64),
    "square": (1024, 1024, 1024),
}
BITS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")  # of a CPU's flags


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=tuple(learner.SHAPES), default=SHAPES)
    parser.add_argument("--repeats", type=int, default=20, help="rounds (default %(default)s)")
    parser.add_argument("--save", action="store_true", help=f"write {OUT.name} into benchmarks/results")
    options = parser.parse_args()
    record: dict[str, Any] = {"machine": _common.machine(), "processor": processor(), "updates": {}, "products": {}}
    print(f"{record['machine']}; {record['processor']}; load {os.getloadavg()[0]:.1f}")
    for name in options.shapes:
        record["updates"][name] = row = update(learner.SHAPES[name], options.repeats)
        print(
            f"update, {name:<22} float32 {row['float32_ms']:8.2f} ms   bfloat16 {row['bfloat16_ms']:8.2f} ms   "
            f"{row['ratio']:.2f} x its speed; losses {row['losses'][0]:.5f} and {row['losses'][1]:.5f}",
            flush=True,
        )
    for name, sizes in PRODUCTS.items():
        record["products"][name] = row = products(sizes, options.repeats)
        print(
            f"product, {name:<21} float32 {row['float32_ms']:8.3f} ms   rounded {row['rounded_ratio']:.2f} x, stored "
            f"{row['stored_ratio']:.2f} x its speed; {row['compiled']}",
            flush=True,
        )
    record["load_after"] = os.getloadavg()[0]
    print(f"load {record['load_after']:.1f}")
    if options.save:
        OUT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def processor() -> str:
    """The device, and which of BITS it has if that is a CPU."""
    device = jax.devices()[0]
    path = pathlib.Path("/proc/cpuinfo")
    if device.platform != "cpu" or not path.exists():
        return device.device_kind
    words = set(path.read_text(encoding="utf-8").split())
    return "CPU with " + (", ".join(bit for bit in BITS if bit in words) or "none of " + ", ".join(BITS))


def update(shape: learner.Shape, repeats: int) -> dict[str, Any]:
    """Times of an update in both types."""
    batches = [learner.episodes(shape, seed) for seed in range(learner.UPDATES)]
    calls: dict[str, Callable[[], Any]] = {}
    losses = []
    for dtype in ("float32", "bfloat16"):
        algorithm = computed(learner.algorithm(shape), ComputeConfig(dtype=dtype))
        calls[dtype] = stepper(algorithm, learner.start(shape), batches)
        losses.append(float(calls[dtype]()["loss/td"]))
    times = learner.interleaved(calls, repeats)
    row = {f"{name}_ms": 1e3 * float(np.median(seconds)) / learner.UPDATES for name, seconds in times.items()}
    return {**row, "ratio": ratio(times, "bfloat16"), "losses": losses}


def stepper(algorithm: Any, state: Any, batches: list[Any]) -> Any:
    """learner.py's call of UPDATES updates, of this algorithm."""
    ctx = _common.context(algorithm.hparams)
    key = jax.random.key(3)
    return learner.stepper(lambda state, batch: algorithm.update(state, batch, ctx, key), state, batches)


def products(sizes: tuple[int, int, int], repeats: int) -> dict[str, Any]:
    """Times of one product in three forms."""
    rows, inputs, units = sizes
    x = jax.random.normal(jax.random.key(0), (rows, inputs))
    kernel = jax.random.normal(jax.random.key(1), (inputs, units))

    def rounded(x: jax.Array, kernel: jax.Array) -> jax.Array:
        with rounded_to("bfloat16"):
            return dot(x, kernel)

    forms = {"float32": jax.jit(dot), "rounded": jax.jit(rounded), "stored": jax.jit(rounded)}
    arguments = dict.fromkeys(forms, (x, kernel))
    arguments["stored"] = (x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    calls: dict[str, Callable[[], Any]] = {}
    for name, form in forms.items():
        calls[name] = partial(form, *arguments[name])
    times = learner.interleaved(calls, 2 * repeats)
    return {
        "float32_ms": 1e3 * float(np.median(times["float32"])),
        "rounded_ratio": ratio(times, "rounded"),
        "stored_ratio": ratio(times, "stored"),
        "compiled": compiled_type(forms["rounded"].lower(x, kernel).compile().as_text() or ""),
    }


def compiled_type(text: str) -> str:
    """In which type the product of a compiled program reads."""
    names = [line.split(" dot(")[1].split(",")[0].strip(") ") for line in text.splitlines() if " dot(" in line]
    if not names:
        return "in a library call"
    # the operand is a parameter of a fusion, or what a line of the program computes
    operand = names[0].split()[-1]
    return "in bfloat16" if f"{operand} = bf16" in text or f"{operand.strip('%')}: bf16" in text else "in float32"


def ratio(times: dict[str, list[float]], other: str) -> float:
    """Speed against float32, the median of neighbours."""
    return float(np.median(np.array(times["float32"]) / np.array(times[other])))


if __name__ == "__main__":
    main()

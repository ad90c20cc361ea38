"""The recurrent unroll against flax's GRUCell in a scan: forward, and forward + backward, interleaved in one process.

    python benchmarks/recurrent.py [--rows 96 --steps 101 --hidden 64]

Both are agents of the same shape (Linear, ReLU, GRU, Linear) on the same inputs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import _common
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxshare.models.agents import q_network


class FlaxAgent(nn.Module):
    hidden: int
    actions: int

    @nn.compact
    def __call__(self, carry, x):
        cell = nn.scan(nn.GRUCell, variable_broadcast="params", split_rngs={"params": False})(self.hidden)
        _, hidden = cell(carry, nn.relu(nn.Dense(self.hidden)(x)))
        return nn.Dense(self.actions)(hidden)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=96, help="batch x agents (default %(default)s)")
    parser.add_argument("--steps", type=int, default=101)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--inputs", type=int, default=86, help="input size (default: SMAX 3m's)")
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    x = jax.random.normal(jax.random.key(0), (options.steps, options.rows, 1, options.inputs))
    losses: dict[str, tuple[Callable[[Any], jax.Array], Any]] = {
        "flax GRUCell in a scan": flax_loss(options, x),
        "jaxshare": our_loss(options, x),
    }
    for label in ("forward", "forward + backward"):
        calls: dict[str, Callable[[], Any]] = {}
        for name, (loss, params) in losses.items():
            fn = jax.jit(loss if label == "forward" else jax.value_and_grad(loss))
            calls[name] = partial(fn, params)
        times: dict[str, list[float]] = {name: [] for name in calls}
        for call in calls.values():
            jax.block_until_ready(call())
        for _ in range(options.repeats):
            for name, call in calls.items():
                times[name] += _common.seconds(call, 1)
        rival = np.array(times["flax GRUCell in a scan"])
        for name, values in times.items():
            ratio = np.median(rival / np.array(values))
            print(f"{label:<20} {name:<24} {np.median(values) * 1e3:7.2f} ms   {ratio:.2f} x flax's speed")
    print(_common.machine())


def flax_loss(options: argparse.Namespace, x: jax.Array) -> tuple[Callable[[Any], jax.Array], Any]:
    """The loss of flax's network, and its parameters."""
    model = FlaxAgent(options.hidden, 8)
    carry = jnp.zeros((options.rows, options.hidden))
    params = model.init(jax.random.key(1), carry, x[:, :, 0])

    def loss(params: Any) -> jax.Array:
        q: Any = model.apply(params, carry, x[:, :, 0])
        return jnp.square(q).mean()

    return loss, params


def our_loss(options: argparse.Namespace, x: jax.Array) -> tuple[Callable[[Any], jax.Array], Any]:
    """The same of ours."""
    net = q_network(options.inputs, 8, options.hidden, recurrent=True, param_sets=(0,))
    start = net.initial_carry(options.rows)

    def loss(params: Any) -> jax.Array:
        return jnp.square(net.unroll(params, start, x)[1]).mean()

    return loss, net.init(jax.random.key(1))


if __name__ == "__main__":
    main()

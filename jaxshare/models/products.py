"""Products of what networks read with their weights, and the gradients of these.

In which numbers: ops/precision.py.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxshare.ops.precision import dot, is_rounded, operand
from jaxshare.ops.spread import is_spread


@jax.custom_vjp
def products(x: jax.Array, kernels: list[jax.Array]) -> list[jax.Array]:
    """x @ kernel for each: x [..., D], kernels [D, F] -> [..., F].

    ours: autodiff forms a weight gradient from a transposed copy of each cotangent, which on a CPU
    costs more than the product; here one transposed copy of x serves all kernels
    (benchmarks/README.md).
    """
    x = operand(x)
    return [dot(x, kernel) for kernel in kernels]


def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x @ kernel, [..., D], [D, F] -> [..., F], with the gradients of autodiff; rounded, with
    rounded operands in these as well.
    """
    return products(x, [kernel])[0] if is_rounded() else x @ kernel


def outer_sums(x: jax.Array, ys: list[jax.Array]) -> list[jax.Array]:
    """Sum over the leading axes of x^T y for each y: [..., D], [..., F] -> [D, F] f32."""
    x = operand(x)
    if is_spread():
        # as rows of one axis they would be gathered on every device
        leading = tuple(range(x.ndim - 1))
        axes = (leading, leading)
        dtype = ys[0].dtype
        return [jnp.tensordot(x, operand(y), axes, preferred_element_type=dtype) for y in ys]
    transposed = x.reshape(-1, x.shape[-1]).T
    if jax.default_backend() == "cpu":
        # or it is folded into the products again
        transposed = jax.lax.optimization_barrier(transposed)
    return [dot(transposed, y.reshape(-1, y.shape[-1])) for y in ys]


def _products_fwd(
    x: jax.Array, kernels: list[jax.Array]
) -> tuple[list[jax.Array], tuple[jax.Array, list[jax.Array]]]:
    return products(x, kernels), (operand(x), kernels)


def _products_bwd(
    saved: tuple[jax.Array, list[jax.Array]], cotangents: list[jax.Array]
) -> tuple[jax.Array, list[jax.Array]]:
    x, kernels = saved
    back = [dot(y, kernel.T) for y, kernel in zip(cotangents, kernels, strict=True)]
    return sum(back[1:], back[0]), outer_sums(x, cotangents)


products.defvjp(_products_fwd, _products_bwd)

"""In which numbers the products of networks are computed: a setting of what is being traced.

`rounded_to` is entered while the functions of a run are traced (run/compute.py), and asked for by
the few lines that multiply (models/products.py). JAX keys its traces by it, so that two runs of one
process never share one. Outside of it, and with float32, nothing is rounded and every product is
what it would be without this file.

With bfloat16 both operands of a product are rounded to 8 bits and its sums are float32, as
hardware for such products has it. All else stays float32: parameters, results, gradients.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp

DTYPES = ("float32", "bfloat16")

# products of float32 as JAX names them; "default" is for each backend what it thinks best
PRECISIONS = ("float32", "tensorfloat32", "default")

_dtype = jax.make_user_context("float32")


@contextlib.contextmanager
def rounded_to(dtype: str, precision: str = "default") -> Iterator[None]:
    """What is traced within has operands of this type, and products of float32 so precise.

    dtype: of DTYPES; precision: of PRECISIONS. A CPU has one precision, and its programs are left
    as they are.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_dtype(dtype))
        if jax.default_backend() != "cpu":
            stack.enter_context(jax.default_matmul_precision(precision))
        yield


def is_rounded() -> bool:
    """Whether operands are rounded."""
    return _dtype.value != "float32"


def operand(x: jax.Array) -> jax.Array:
    """x [...] as it goes into a product, [...]."""
    return x.astype(_dtype.value) if is_rounded() else x


def dot(x: jax.Array, y: jax.Array) -> jax.Array:
    """x @ y: [..., D], [D, F] -> [..., F] f32."""
    if not is_rounded():
        return x @ y
    return jnp.matmul(operand(x), operand(y), preferred_element_type=jnp.float32)

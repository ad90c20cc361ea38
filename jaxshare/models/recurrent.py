"""The recurrent unroll, in one place: a GRU over time with its own backward pass.

    r = sigma(a_r + h W_r),   z = sigma(a_z + h W_z)
    m = h W_n + b_n,          n = tanh(a_n + r m)
    h' = (1 - z) n + z h

The input halves a_r, a_z, a_n are computed for all steps at once outside. ours: autodiff through
the scan is the expensive half of training on a CPU; the backward pass here keeps only the chain of
dh inside the reverse scan and forms the weight gradients as one product over all steps
(benchmarks/recurrent.py has the ratio).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from jaxshare.models.base import add_bias
from jaxshare.models.products import outer_sums


@struct.dataclass
class GRUWeights:
    """The recurrent half of a GRU."""

    reset: jax.Array  # [H, H]
    update: jax.Array  # [H, H]
    new: jax.Array  # [H, H]
    new_bias: jax.Array  # [H]


@struct.dataclass
class Gates:
    """One array per gate.

    Split on purpose: slices of a concatenated array cost more than the products on a CPU.
    """

    reset: jax.Array  # [T, rows, H]
    update: jax.Array  # [T, rows, H]
    new: jax.Array  # [T, rows, H]


@jax.custom_vjp
def gru_unroll(
    weights: GRUWeights, gates: Gates, carry: jax.Array, keep: jax.Array | None = None
) -> jax.Array:
    """Hidden states after each step: input halves `gates` [T, rows, H], carry [rows, H]
    -> [T, rows, H].

    keep: [T, rows, 1], 0 where memory is emptied before the step, else 1; None: it is kept
    throughout.
    """
    return _forward(weights, gates, carry, keep)[0]


def _forward(weights: GRUWeights, gates: Gates, carry: jax.Array, keep: jax.Array | None):
    def step(h: jax.Array, at: tuple[Gates, jax.Array | None]):
        a, keep = at
        h = h if keep is None else h * keep
        r = jax.nn.sigmoid(a.reset + h @ weights.reset)
        z = jax.nn.sigmoid(a.update + h @ weights.update)
        n = jnp.tanh(a.new + r * add_bias(h @ weights.new, weights.new_bias))
        h = (1.0 - z) * n + z * h
        return h, (h, r, z, n)

    _, (hidden, r, z, n) = jax.lax.scan(step, carry, (gates, keep))
    return hidden, r, z, n


def _gru_fwd(weights: GRUWeights, gates: Gates, carry: jax.Array, keep: jax.Array | None):
    hidden, r, z, n = _forward(weights, gates, carry, keep)
    before = jnp.concatenate([carry[None], hidden[:-1]])
    return hidden, (weights, before if keep is None else before * keep, r, z, n, keep)


def _gru_bwd(saved, cotangent: jax.Array):
    weights, before, r, z, n, keep = saved
    m = add_bias(before @ weights.new, weights.new_bias)
    slope_n = (1.0 - z) * (1.0 - jnp.square(n))  # d h' / d a_n
    slope_r = m * r * (1.0 - r)  # d n-preactivation / d a_r
    slope_z = (before - n) * z * (1.0 - z)  # d h' / d a_z

    def step(dh: jax.Array, at):
        (dh_out, slope_n, slope_r, slope_z, r, z), keep = at
        dh = dh + dh_out
        d_new = dh * slope_n
        d_reset = d_new * slope_r
        d_update = dh * slope_z
        back = d_reset @ weights.reset.T + d_update @ weights.update.T
        back = back + (d_new * r) @ weights.new.T
        back = dh * z + back
        d_gates = Gates(reset=d_reset, update=d_update, new=d_new)
        return back if keep is None else back * keep, d_gates

    per_step = (cotangent, slope_n, slope_r, slope_z, r, z)
    d_carry, d_gates = jax.lax.scan(
        step, jnp.zeros_like(cotangent[0]), (per_step, keep), reverse=True
    )
    d_m = d_gates.new * r
    reset, update, new = outer_sums(before, [d_gates.reset, d_gates.update, d_m])
    d_weights = GRUWeights(reset=reset, update=update, new=new, new_bias=d_m.sum((0, 1)))
    # keep is data, never a function of parameters: no gradient
    return d_weights, d_gates, d_carry, None if keep is None else jnp.zeros_like(keep)


gru_unroll.defvjp(_gru_fwd, _gru_bwd)

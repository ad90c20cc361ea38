"""Names for trees of arrays, which JAX leaves untyped: they say what a tree holds; and zeros."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

Tree: TypeAlias = Any  # arrays, numpy's or JAX's, or their shapes, in containers of any kind
Params: TypeAlias = dict[str, Any]  # {"agent": ..., "mixer": ...}: trees of a learner's parameters
Carry: TypeAlias = Any  # a tree of arrays [B, N, ...]: what an acting network remembers
EnvState: TypeAlias = Any  # a tree of arrays: all that an environment goes on from
Batch: TypeAlias = Any  # an Episode, or on policy a Segment: what an update learns from
Data: TypeAlias = Any  # an Episode in the layout of a replay, [E, T(+1), ...], or None


def zeros(tree: Tree) -> Tree:
    """Zeros of the shapes and types of a tree of arrays, or of shapes alone."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree)

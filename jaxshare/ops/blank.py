"""Zeros in the place of what was not computed."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxshare.trees import Tree


def zeros(tree: Tree) -> Tree:
    """Zeros of the shapes and types of a tree of arrays, or of shapes alone: the same tree."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree)

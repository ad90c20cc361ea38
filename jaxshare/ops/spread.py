"""One run over several devices: hints for XLA about which axis of an array is laid over them.

XLA cuts the program; what is written here stays what is computed. Nothing happens unless the
program is traced for a mesh with the axis `data` (run/parallel.py), so that one device has the
program that it would have without this file.
"""

from __future__ import annotations

from typing import TypeVar

import jax
from jax.sharding import PartitionSpec as P

DATA = "data"  # the axis of the mesh that environments, rings and batches lie along

T = TypeVar("T")


def num_devices() -> int:
    """Over how many devices a run is laid by the program that is being traced."""
    return jax.sharding.get_abstract_mesh().shape.get(DATA, 1)


def is_spread() -> bool:
    """Whether these are several."""
    return num_devices() > 1


def spread(tree: T, axis: int = 0) -> T:
    """The same tree, with this axis of each of its arrays laid over the devices.

    tree: of arrays [..., B, ...]. One that cannot be cut evenly is left to XLA.
    """
    count = num_devices()
    if count == 1:
        return tree

    def lay(x: jax.Array) -> jax.Array:
        if x.shape[axis] % count:
            return x
        return jax.lax.with_sharding_constraint(x, P(*[None] * axis, DATA))

    return jax.tree.map(lay, tree)

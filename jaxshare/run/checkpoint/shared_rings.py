"""Replays that lie over the devices of several processes: each writes and reads its own part.

All processes call these functions, with the same folder on storage that they share. What is written
is what one process would write, so that any number of processes can read it.
"""

from __future__ import annotations

import pathlib

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxshare.run.checkpoint import contents
from jaxshare.run.checkpoint.step_folders import plain_path
from jaxshare.run.layout import Laid
from jaxshare.trees import Tree
from jaxshare.types import Episode


def write(folder: pathlib.Path, rings: list[Episode]) -> None:
    """Write the filled slots of each run's rings.

    rings: fields [K, slots, T(+1), ...] laid over the devices of all processes.
    """
    with plain_path(folder.parent) as parent, _of_all() as orbax:
        args = ocp.args.PyTreeSave(contents.rings_tree(rings))
        orbax.save(parent / folder.name, args=args)


def read(folder: pathlib.Path, shapes: list[Episode], laid: Laid) -> list[Episode]:
    """What `write` has written, laid over the devices of all processes.

    shapes: of each run's rings, as ShapeDtypeStructs [K, slots, T(+1), ...].
    """
    wanted = contents.rings_tree(shapes)

    # empty arrays were not written; what stands for them is the same in all processes
    def how(solid: jax.ShapeDtypeStruct, shape: jax.ShapeDtypeStruct) -> ocp.RestoreArgs:
        if 0 in shape.shape:
            return ocp.RestoreArgs(restore_type=np.ndarray)
        return ocp.ArrayRestoreArgs(sharding=laid, global_shape=solid.shape)

    restore_args = jax.tree.map(how, wanted, {contents.RUNS: shapes})
    with plain_path(folder.parent) as parent, _of_all() as orbax:
        args = ocp.args.PyTreeRestore(item=wanted, restore_args=restore_args)
        stored = orbax.restore(parent / folder.name, args=args)[contents.RUNS]

    def as_it_was(array: jax.Array | np.ndarray, shape: jax.ShapeDtypeStruct) -> Tree:
        return np.zeros(shape.shape, shape.dtype) if 0 in shape.shape else array

    return jax.tree.map(as_it_was, stored, shapes)


def _of_all() -> ocp.Checkpointer:
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler())

"""Reading parts of a checkpoint by orbax, whatever goes wrong with its files."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxshare.run.checkpoint import errors
from jaxshare.run.checkpoint.step_folders import StepFolders
from jaxshare.trees import Tree
from jaxshare.types import RefusedError


def read_part(handler: ocp.Checkpointer, folder: pathlib.Path, shapes: Tree) -> Tree:
    """The tree of arrays in a folder, as numpy has them."""
    restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
    args = ocp.args.PyTreeRestore(item=shapes, restore_args=restore_args)
    return handler.restore(folder, args=args)


@contextmanager
def reading(folders: StepFolders, step: int) -> Iterator[None]:
    """Turn what goes wrong with a checkpoint's files into an error that says what it is."""
    try:
        yield
    except RefusedError as error:
        if folders.path(step).is_dir():
            raise
        # what orbax tells of a folder that is being removed lacks arrays
        raise errors.unread(folders, step, error) from error
    except Exception as error:
        raise errors.unread(folders, step, error) from error


def shape_of(stored: ocp.metadata.ArrayMetadata) -> jax.ShapeDtypeStruct:
    """Shape and dtype of a stored array."""
    return jax.ShapeDtypeStruct(stored.shape, stored.dtype)


def tree_of(metadata: object) -> Tree:
    """The tree of arrays in what orbax tells of a folder."""
    item = getattr(metadata, "item_metadata", metadata)
    return getattr(item, "tree", item)

"""Run directories as a person names them: paths, patterns, and labels of their groups."""

from __future__ import annotations

import glob
import os
import pathlib
from collections.abc import Sequence

from jaxshare.run import folder
from jaxshare.run.loggers import METRICS
from jaxshare.types import RefusedError


def expand(items: Sequence[str]) -> list[tuple[str, pathlib.Path]]:
    """(label or "", directory) for every `DIR`, `GLOB` or `LABEL=DIR or GLOB`, each directory once.

    Raises RefusedError for a directory with two labels.
    """
    named: dict[pathlib.Path, tuple[str, pathlib.Path]] = {}
    for item in items:
        label, pattern = labelled(item)
        for name in sorted(glob.glob(pattern)) or [pattern]:
            path = pathlib.Path(name)
            before, _ = named.setdefault(path.resolve(), (label, path))
            if before != label:
                where = f"in '{before}' and in '{label}'"
                raise RefusedError(f"{path} is named twice, {where}: name it once.")
    return list(named.values())


def labelled(item: str) -> tuple[str, str]:
    """("QMIX", "runs/q*") of "QMIX=runs/q*"; the label is empty where there is none."""
    label, equals, pattern = item.partition("=")
    if not equals or pathlib.Path(item).exists() or "/" in label:
        return "", item
    return label, pattern


def is_run(argument: str) -> bool:
    """Whether an argument with an equals sign is a path, or labels run directories: no setting."""
    _, _, pattern = argument.partition("=")
    paths = glob.glob(os.path.expanduser(pattern))
    return pathlib.Path(argument).exists() or any(is_run_dir(pathlib.Path(path)) for path in paths)


def at_home(item: str) -> str:
    """A run with its label, in which a shell leaves ~ alone: LABEL=~/DIR."""
    label, equals, pattern = item.partition("=")
    if not equals or pathlib.Path(item).exists():
        return os.path.expanduser(item)
    return f"{label}={os.path.expanduser(pattern)}"


def is_run_dir(path: pathlib.Path) -> bool:
    """Whether it has settings and a log."""
    return (path / folder.CONFIG).is_file() and (path / METRICS).is_file()

"""The versions that a run was made with, in its folder."""

from __future__ import annotations

import importlib.metadata
import json
import pathlib
import platform

from jaxshare import __version__, durable
from jaxshare.run import reader
from jaxshare.types import RefusedError

VERSIONS = "versions.json"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "chex", "jaxmarl", "orbax-checkpoint", "numpy")


def read_versions(run_dir: pathlib.Path) -> dict[str, str]:
    """The versions that a run was made with; {} if they were not written.

    Raises RefusedError for a damaged file.
    """
    path = run_dir / VERSIONS
    if not path.is_file():
        return {}
    return reader.read_json(path, reader.VERSIONS, "Restore it from a copy, or delete it.")


def made_by(run_dir: pathlib.Path) -> str:
    """Words for an error about a run of another version of jaxshare, or none."""
    try:
        version = read_versions(run_dir).get("jaxshare", "")
    except (OSError, RefusedError):
        version = ""
    return f", made by jaxshare {version}" if version and version != __version__ else ""


def write_versions(run_dir: pathlib.Path) -> None:
    """Write the versions of what a run depends on. Raises OSError."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    versions |= {"jaxshare": __version__, "python": platform.python_version()}
    durable.write_text(run_dir / VERSIONS, json.dumps(versions, indent=1) + "\n")

"""What a person reads of an environment that cannot be made, or failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxshare.envs.host.settings import Recipe
from jaxshare.types import HostError, RefusedError


def failed(recipe: Recipe, facts: Mapping[str, Any]) -> HostError:
    """Of a failure while playing; facts: as `hosted.errors.SlotError` has them."""
    where = ""
    if facts["slot"] is not None:
        episode = f"episode {facts['episode']} of it, seed {facts['seed']}, step {facts['step']}"
        where = f" in environment {facts['slot']} ({episode})"
    lines = f"\n{facts['traceback'].rstrip()}" if facts["traceback"] else ""
    place = f"raised by {facts['doing']}{where}, process {facts['pid']}"
    return HostError(f"{recipe.name}: {facts['error']}, {place}.{lines}")


def refused(recipe: Recipe, words: str, missing: str | None) -> RefusedError:
    """Of an environment that cannot be made. A remedy is named only for a module that is not there.

    words: what went wrong.
    missing: the module.
    """
    asked = f"{recipe.asked}: " if recipe.asked else ""
    text = f"{asked}{recipe.name} cannot be made: {words.rstrip('.')}."
    if missing is None:
        return RefusedError(text)

    # where it is to be installed, and by what
    python = recipe.config.python
    where = f" for {python}" if python else ""
    if recipe.install.brings(missing):
        return RefusedError(f"{text} Remedy{where}: {recipe.install.how}")
    if "." in missing:  # the package is there, and has no such part
        return RefusedError(text)
    return RefusedError(
        f"{text} Remedy{where}: pip install the package that has the module {missing}, or add its "
        "folder to PYTHONPATH"
    )

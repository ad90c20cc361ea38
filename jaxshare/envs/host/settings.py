"""What an environment on the host is made with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from jaxshare.settings.fields import UNITS, file_path, static
from jaxshare.settings.validate import check_record
from jaxshare.types import RefusedError


@dataclass(frozen=True)
class HostConfig:
    """What every environment on the host has besides its own settings."""

    workers: int = static(
        0,
        least=-1,
        most=UNITS,
        note="-1 is one per core, 0 no process.",
        help="processes; 0: none, in the trainer itself, without timeout; -1: one per CPU core",
        source="ours: what is fastest for small games",
    )
    timeout: float = static(
        300.0,
        above=0,
        most=1e7,
        help="seconds for one step or reset of all environments of a worker",
        source="ours: many times what any of them takes",
    )
    python: str = file_path("", help="interpreter of the workers; empty: this one")


@dataclass(frozen=True)
class Install:
    """How to get what an environment needs."""

    how: str  # a command, and what else is to be done
    modules: tuple[str, ...] = ()  # which it brings; empty: whatever is missing

    def brings(self, module: str) -> bool:
        """Whether a module, or the package above it, comes with it."""
        return not self.modules or any(f"{name}.".startswith(f"{module}.") for name in self.modules)


@dataclass(frozen=True)
class Recipe:
    """What every environment of a pool is made with."""

    name: str  # for messages
    target: str  # 'path.py:Class' or 'module:Class'
    kwargs: Mapping[str, object]  # of that class
    config: HostConfig
    install: Install
    asked: str = ""  # the settings that chose it, for messages


def check(config: HostConfig) -> None:
    """Raise RefusedError for settings that cannot work here."""
    check_record(config, "env.")
    if config.python and config.workers == 0:
        raise RefusedError(
            f"env.python={config.python} needs worker processes: add env.workers=1 or more."
        )
    if config.python and not os.access(config.python, os.X_OK):
        raise RefusedError(
            f"env.python={config.python} is not a program: name a Python interpreter by its path."
        )

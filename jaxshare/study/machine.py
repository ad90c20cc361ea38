"""The machine that figures come from, in one line."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time

import jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "jaxmarl")


def machine() -> str:
    """Versions, machine and day (UTC)."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    python = f"Python {platform.python_version()}"
    cores = f"{os.cpu_count()} cores"
    day = time.strftime("%Y-%m-%d", time.gmtime())
    return f"{versions}; {python}; {cores}; {jax.devices()[0].device_kind}; {day}"

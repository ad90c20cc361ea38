"""Names of what there is, as `python -m jaxshare.list` shows it."""

from __future__ import annotations

from jaxshare import registry
from jaxshare.plugins import presets
from jaxshare.settings import hydra


def list_algorithms() -> list[str]:
    """Names for `algo=`."""
    return registry.names("algo")


def list_envs() -> list[str]:
    """Names for `env=`, those included whose package is not installed."""
    return registry.names("env")


def list_modifiers() -> list[str]:
    """Names for `modifiers=[…]`."""
    return registry.names("modifiers")


def list_presets() -> list[str]:
    """Names for `preset=`."""
    return [*hydra.presets(), *presets.names()]

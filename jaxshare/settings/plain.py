"""Settings as a run directory's `config.yaml` has them."""

from __future__ import annotations

from typing import Any

from jaxshare import registry
from jaxshare.settings.hydra import filled
from jaxshare.settings.records import RunConfig, Settings
from jaxshare.types import RefusedError


def from_plain(tree: dict[str, Any]) -> Settings:
    """Settings from a run directory's `config.yaml`, where keys that are missing have today's defaults.

    Raises RefusedError if it does not fit this version; the message names the key, but not the file.
    """
    try:
        algo_name = str(tree["algo_name"])
        env_name = str(tree["env_name"])
        run = tree["run"]
        modifiers = tree.get("modifiers") or {}
        return Settings(
            run=filled(RunConfig, run, "run"),
            algo_name=algo_name,
            algo=filled(registry.get("algo", algo_name).Config, tree.get("algo"), "algo"),
            env_name=env_name,
            env=filled(registry.get("env", env_name).Config, tree.get("env"), "env"),
            modifiers={k: filled(registry.get("modifiers", k).Config, v, k) for k, v in modifiers.items()},
            sweep=tree.get("sweep") or {},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise RefusedError(f"it does not fit this version of jaxshare ({str(error).splitlines()[0]}).") from error

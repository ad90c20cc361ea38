"""Settings as a run directory's `config.yaml` has them."""

from __future__ import annotations

from typing import Any

from jaxshare import registry
from jaxshare.settings.hydra import filled
from jaxshare.settings.records import RunConfig, Settings
from jaxshare.types import RefusedError


def from_plain(tree: dict[str, Any]) -> Settings:
    """Settings from a run directory's `config.yaml`; keys that are missing have today's defaults.

    Raises RefusedError if it does not fit this version; it names the key, but not the file.
    """
    try:
        # what must be there
        algo_name = str(tree["algo_name"])
        env_name = str(tree["env_name"])
        run = tree["run"]

        # the records of entries
        modifiers = {}
        for name, values in (tree.get("modifiers") or {}).items():
            modifiers[name] = filled(registry.get("modifiers", name).Config, values, name)
        run_config = filled(RunConfig, run, "run")
        algo = filled(registry.get("algo", algo_name).Config, tree.get("algo"), "algo")
        env = filled(registry.get("env", env_name).Config, tree.get("env"), "env")
        return Settings(
            run=run_config,
            algo_name=algo_name,
            algo=algo,
            env_name=env_name,
            env=env,
            modifiers=modifiers,
            sweep=tree.get("sweep") or {},
            zipped=bool(tree.get("zipped")),
        )
    except (KeyError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise RefusedError(f"it does not fit this version of jaxshare ({reason}).") from error


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat

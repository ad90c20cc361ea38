"""Settings as a run directory's `config.yaml` has them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jaxshare import registry
from jaxshare.settings.fields import befores
from jaxshare.settings.hydra import filled
from jaxshare.settings.records import RunConfig, Settings
from jaxshare.types import RefusedError


def from_plain(tree: dict[str, Any]) -> Settings:
    """Settings from a run directory's `config.yaml`; keys that are missing have today's defaults,
    or what runs had before there was such a key.

    Raises RefusedError if it does not fit this version; it names the key, but not the file.
    """
    try:
        # what must be there
        algo_name = str(tree["algo_name"])
        env_name = str(tree["env_name"])
        run = with_values(tree["run"], newer(tree["run"]))

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


def newer(run: dict[str, Any]) -> dict[str, Any]:
    """Settings that there were not yet when those of a run were written, by dotted name.

    Each with what runs had then; only those that say so (`Setting.before`).
    """
    written = flatten(run)
    return {key: value for key, value in befores(RunConfig).items() if key not in written}


def with_values(tree: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The same tree with other values under dotted names."""
    tree = dict(tree)
    for key, value in values.items():
        first, _, rest = key.partition(".")
        tree[first] = with_values(tree.get(first) or {}, {rest: value}) if rest else value
    return tree


def without(tree: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """The same tree without some dotted names that it has."""
    tree = dict(tree)
    for key in keys:
        first, _, rest = key.partition(".")
        if rest:
            tree[first] = without(tree[first], [rest])
        else:
            del tree[first]
    return tree


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat

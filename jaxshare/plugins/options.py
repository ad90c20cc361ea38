"""Hydra's side of entries from outside: choices of `algo=`, `env=` and `preset=`, and settings.

Their nodes hold plain values, not classes: launchers send them to processes that cannot import a
file's module. Types are checked when the settings become records.
"""

from __future__ import annotations

import pathlib
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from jaxshare.plugins.entries import Entry, imported
from jaxshare.types import RefusedError

SCHEMA = "schema"

_stored: dict[tuple[str, str], Entry] = {}


def offer() -> bool:
    """Make every entry from outside that is imported a choice; whether there was anything to do."""
    changed = False
    for kind in ("algo", "env", "modifiers"):
        for name, entry in imported(kind).items():
            if _stored.get((kind, name)) is not entry:
                _store(entry)
                _stored[kind, name] = entry
                changed = True
    return changed


def _store(entry: Entry) -> None:
    node = plain(entry.module.Config)
    if entry.kind == "modifiers":
        _add_to_schema(entry.name, node)
        return
    content = {entry.kind: node, **getattr(entry.module, "RUN", {})}
    ConfigStore.instance().store(
        group=entry.kind, name=entry.name, node=content, package="_global_"
    )


def _add_to_schema(name: str, node: dict[Any, Any]) -> None:
    """A modifier's settings stand under its name, beside those of the run."""
    store = ConfigStore.instance()
    schema = store.load(f"{SCHEMA}.yaml").node
    if name in schema and (("modifiers", name) not in _stored):
        raise RefusedError(
            f"modifiers=[{name}] is called as the setting {name} is: give it another name."
        )
    with open_dict(schema):
        schema[name] = node
    store.store(name=SCHEMA, node=schema)


def plain(config: type) -> dict[Any, Any]:
    """The defaults of a class of settings as plain values. Raises RefusedError."""
    try:
        values = OmegaConf.to_container(OmegaConf.structured(config))
    except OmegaConfBaseException as error:
        what = str(error).splitlines()[0].rstrip(".")
        raise RefusedError(
            f"{config.__module__}.{config.__qualname__} cannot be settings: {what}."
        ) from error
    assert isinstance(values, dict)
    return values


def offer_preset(name: str, tree: dict[str, Any]) -> None:
    """Make a preset a choice. tree: settings, and `defaults` that choose algorithm and "
    "environment."""
    group = "/".join(["preset", *name.split("/")[:-1]])
    ConfigStore.instance().store(
        group=group, name=name.split("/")[-1], node=tree, package="_global_"
    )


def read_yaml(path: pathlib.Path) -> dict[str, Any]:
    """A YAML file as hydra reads it, `${...}` as it stands. Raises RefusedError naming the file."""
    try:
        tree = OmegaConf.to_container(OmegaConf.load(path))
    except OSError as error:
        raise RefusedError(f"preset {path} cannot be read ({error.strerror or error}).") from error
    except Exception as error:  # of the YAML parser, or of OmegaConf
        what = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RefusedError(f"preset {path} cannot be read: {what}.") from error
    if not isinstance(tree, dict):
        raise RefusedError(f"preset {path} holds no settings: write one key: value a line.")
    return {str(key): value for key, value in tree.items()}

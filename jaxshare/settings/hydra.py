"""Hydra's composing: groups and records in, records out, and its errors in sentences."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    GrammarParseError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)

from jaxshare import registry, spelling
from jaxshare.settings.records import RunConfig, Settings
from jaxshare.settings.sweeps import is_zipped, sweep_of
from jaxshare.types import RefusedError


@lru_cache(maxsize=1)
def register() -> None:
    """Put the schema and one option per file of algos/ and envs/ into hydra's store.

    An algorithm's `RUN` holds its own defaults of run settings, such as {"num_envs": 4}.
    """
    store = ConfigStore.instance()
    for kind in ("algo", "env"):
        for name, module in registry.modules(kind).items():
            node = OmegaConf.create({kind: opened(module.Config), **getattr(module, "RUN", {})})
            store.store(group=kind, name=name, node=node, package="_global_")
    no_names: list[str] = dataclasses.field(default_factory=list)
    no_sweep: dict[str, Any] = dataclasses.field(default_factory=dict)
    extra: list[Any] = [("modifiers", list[str], no_names)]
    extra.append(("sweep", dict[str, Any], no_sweep))
    for name, module in registry.modules("modifiers").items():
        extra.append((name, module.Config, dataclasses.field(default_factory=module.Config)))
    schema = dataclasses.make_dataclass("Schema", extra, bases=(RunConfig,), frozen=True)
    node = opened(schema)
    OmegaConf.set_struct(node, False)  # hydra adds the groups algo and env
    store.store(name="schema", node=OmegaConf.create({key: node._get_node(key) for key in node}))


def opened(config: type) -> DictConfig:
    """A structured config that hydra may override; those of frozen dataclasses are read-only."""
    node = OmegaConf.structured(config)

    def unlock(node: Any) -> None:
        if isinstance(node, DictConfig | ListConfig):
            OmegaConf.set_readonly(node, None)
            if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
                for key in node:
                    unlock(node._get_node(key))

    unlock(node)
    return node


def config_dir() -> pathlib.Path:
    """The YAML folder: inside the installed package, or at the top of a checkout."""
    package = pathlib.Path(__file__).resolve().parent.parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "config.yaml").is_file():
            return folder
    raise RefusedError("jaxshare's configs folder is missing: reinstall the package.")


def presets() -> list[str]:
    """Names of the shipped presets, as 'main_job' or 'differ/fig4'."""
    folder = config_dir() / "preset"
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


def composed(lines: Sequence[str]) -> DictConfig:
    """The configuration of these overrides, hydra's own included. Raises RefusedError."""
    with initialize_config_dir(config_dir=str(config_dir()), version_base="1.3"):
        try:
            return compose("config", list(lines), return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise refusal(error) from error


def keys(cfg: Any, prefix: str = "") -> list[str]:
    """All keys of a configuration but hydra's, groups of keys included."""
    names = []
    for key in cfg:
        if not prefix and key == "hydra":
            continue
        names.append(f"{prefix}{key}")
        child = cfg._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none():
            names.extend(keys(child, f"{prefix}{key}."))
    return names


def values(cfg: DictConfig) -> dict[str, Any]:
    """All settings of a configuration by key, without groups of them."""
    selected = {key: OmegaConf.select(cfg, key) for key in keys(cfg)}
    groups = [key for key, value in selected.items() if isinstance(value, DictConfig) and value]
    return {key: _object(value) for key, value in selected.items() if key not in groups}


def from_config(cfg: DictConfig, choices: Mapping[str, str]) -> Settings:
    """Settings from a composed configuration and the chosen option of each group."""
    try:
        names = [str(name) for name in cfg.modifiers]
        for name in names:
            registry.get("modifiers", name)
            if names.count(name) > 1:
                raise RefusedError(f"modifiers=[{','.join(names)}] has {name} twice: name it once.")

        # the record of each part; a run_dir that is not chosen is empty
        run = {f.name: _object(cfg[f.name]) for f in dataclasses.fields(RunConfig)}
        run["run_dir"] = run["run_dir"] or ""
        modifiers = {name: _settings_of("modifiers", name, cfg[name], name) for name in names}
        algo = _settings_of("algo", choices["algo"], cfg.algo, "algo")
        env = _settings_of("env", choices["env"], cfg.env, "env")
        run_config = RunConfig(**run)
        sweep = _plain(cfg.sweep)
        return Settings(
            run=run_config,
            algo_name=choices["algo"],
            algo=algo,
            env_name=choices["env"],
            env=env,
            modifiers=modifiers,
            sweep=sweep_of(sweep),
            zipped=is_zipped(sweep),
        )
    except OmegaConfBaseException as error:
        raise refusal(error) from error


def _settings_of(kind: str, name: str, node: Any, key: str) -> Any:
    """The record of an entry's settings.

    Nodes of entries from outside hold plain values; see `plugins.options`.
    """
    if OmegaConf.get_type(node) is not dict:
        return _object(node)
    values: Any = OmegaConf.to_container(node, resolve=True)
    return filled(registry.get(kind, name).Config, values, key)


def _plain(node: DictConfig) -> dict[object, object]:
    """A node as nested dicts and lists of plain values."""
    return cast(dict[object, object], OmegaConf.to_container(node))


def _object(node: object) -> Any:
    """A node's value: a record, a tuple or a plain value."""
    if isinstance(node, ListConfig):
        return tuple(cast(list[object], OmegaConf.to_object(node)))
    return OmegaConf.to_object(node) if isinstance(node, DictConfig) else node


def filled(config: type, values: dict[str, Any] | None, key: str) -> Any:
    """A record with plain values; key: what it is called in messages. Raises RefusedError."""
    try:
        return OmegaConf.to_object(OmegaConf.merge(opened(config), _literally(values or {})))
    except OmegaConfBaseException as error:
        full_key = ".".join([key, *filter(None, [getattr(error, "full_key", "")])])
        if isinstance(error, ConfigKeyError | ConfigAttributeError):
            raise RefusedError(
                f"{full_key} is no setting of this version of jaxshare: use the version that made "
                "it, or another run_dir."
            ) from error
        raise RefusedError(f"{full_key} does not fit: {str(error).splitlines()[0]}.") from error


def _literally(value: Any) -> Any:
    """Plain values whose texts OmegaConf takes as they stand.

    A file cannot ask for `${oc.env:PASSWORD}`.
    """
    if isinstance(value, dict):
        return {key: _literally(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_literally(inner) for inner in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def from_overrides(config: type, overrides: Sequence[Override]) -> Any:
    """A record with these settings, without groups. Raises RefusedError with key and remedy."""
    node = opened(config)
    known = keys(node)
    for override in overrides:
        first, _, rest = override.key_or_group.partition(".")
        takes_any_name = rest and first in node and OmegaConf.get_type(node, first) is dict
        if takes_any_name:  # as env.id
            OmegaConf.update(node, override.key_or_group, override.value(), force_add=True)
            continue
        if override.key_or_group not in known:
            near = registry.suggest(override.key_or_group, known)
            names = ", ".join(known)
            raise RefusedError(f"'{override.key_or_group}' is not a setting.{near} Known: {names}.")
        if override.is_sweep_override():
            raise spelling.several(override, multirun=False)
        check_booleans(override.key_or_group, override.value(), node)
        try:
            OmegaConf.update(node, override.key_or_group, override.value())
        except OmegaConfBaseException as error:
            raise refusal(error) from error
    try:
        return OmegaConf.to_object(node)
    except OmegaConfBaseException as error:
        raise refusal(error) from error


def check_booleans(key: str, value: Any, cfg: DictConfig) -> None:
    """Refuse numbers other than 0 and 1 for true and false: OmegaConf takes them all."""
    if isinstance(value, dict):
        for name, inner in value.items():
            check_booleans(f"{key}.{name}", inner, cfg)
        return
    is_odd = isinstance(value, int) and value not in (0, 1)
    if is_odd and isinstance(OmegaConf.select(cfg, key), bool):
        raise RefusedError(f"{key}={value} is neither true nor false.")


def refusal(error: Exception) -> RefusedError:
    """One sentence out of a hydra or OmegaConf error."""
    full_key = getattr(error, "full_key", None)
    cause = error.__cause__
    if full_key is None and isinstance(cause, Exception):
        full_key = getattr(cause, "full_key", None)
        error = cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    technical = ("full_key:", "object_type=", "See https:")
    sentences = [line.rstrip(".") for line in lines if not line.startswith(technical)]
    message = "; ".join(sentences) or type(error).__name__
    if isinstance(error, InterpolationResolutionError | GrammarParseError):
        message += "; ${...} takes the value of another setting"
        message += ", and \\${ stands for these two characters themselves"
    return RefusedError(f"{full_key}: {message}." if full_key else f"{message}.")

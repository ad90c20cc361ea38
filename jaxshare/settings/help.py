"""`--help` of the commands: the settings of records, their defaults and what is said of them."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from jaxshare import cli, registry, spelling
from jaxshare.settings import hydra
from jaxshare.settings.records import RunConfig


def help_text(template: str, arguments: Sequence[str]) -> str:
    """`--help`: the template filled with what there is to choose and the settings of the present choice."""
    hydra.register()
    groups = [o for o in spelling.overrides(arguments, spelling.training_kinds(), True) if o.key_or_group in cli.GROUPS]
    cli.check_groups(groups)
    cfg = hydra.composed([f"{group.key_or_group}={cli.choices(group)[0]}" for group in groups])  # of several the first
    choices = cfg.hydra.runtime.choices
    values = {key: OmegaConf.select(cfg, key) for key in hydra.keys(cfg)}
    hidden = ("modifiers", "sweep")  # explained in the template
    shown = {k: v for k, v in values.items() if k not in hidden and (not isinstance(v, DictConfig) or not v)}
    explained = notes(RunConfig)
    explained |= notes(registry.get("algo", choices.algo).Config, "algo.")
    explained |= notes(registry.get("env", choices.env).Config, "env.")
    for name, module in registry.modules("modifiers").items():
        explained |= notes(module.Config, f"{name}.")
    return template.format(
        algos="|".join(registry.modules("algo")), envs="|".join(registry.modules("env")),
        modifiers=", ".join(registry.modules("modifiers")), presets=", ".join(hydra.presets()),
        algo=choices.algo, env=choices.env, settings=_settings_text(shown, explained),
    )  # fmt: skip


def small_help(template: str, config: type) -> str:
    """The template with the settings of a dataclass."""
    node = hydra.opened(config)
    values = {key: OmegaConf.select(node, key) for key in hydra.keys(node)}
    shown = {key: value for key, value in values.items() if not isinstance(value, DictConfig) or not value}
    return template.format(settings=_settings_text(shown, notes(config)))


def _settings_text(shown: dict[str, Any], explained: dict[str, str]) -> str:
    lines = []
    for key, value in shown.items():
        text = f"  {key}={'null' if value is None else str(value).lower() if isinstance(value, bool) else value}"
        lines.append(f"{text:<38} {explained[key]}" if explained.get(key) else text)
    return "\n".join(lines)


def notes(config: type, prefix: str = "") -> dict[str, str]:
    """The comment beside each field of a dataclass, or in the line above it, by key.

    What `--help` shows is what the source says.
    """
    declaration = re.compile(r"^(?:    # (?P<above>.*)\n)?    (?P<name>\w+): [^#\n]*?(?:  # (?P<beside>.*))?$", re.M)
    found: dict[str, str] = {}
    for base in reversed(config.__mro__[:-1]):
        for match in declaration.finditer(inspect.getsource(base)):
            found[prefix + match["name"]] = match["beside"] or match["above"] or ""
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(field.default_factory):
            found |= notes(field.default_factory, f"{prefix}{field.name}.")
    return found

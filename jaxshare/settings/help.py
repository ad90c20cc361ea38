"""`--help` of the commands, from what the fields of settings say of themselves."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jaxshare import cli, registry, spelling
from jaxshare.plugins import arguments as plugins
from jaxshare.plugins import presets
from jaxshare.settings import hydra
from jaxshare.settings.fields import declared
from jaxshare.settings.records import RunConfig
from jaxshare.settings.rows import Row, range_text, rows, value_text

COLUMN = 36  # where explanations begin
WIDTH = 100


@dataclass(frozen=True)
class Section:
    """Settings under a heading."""

    heading: str
    rows: list[Row]


def help_text(template: str, arguments: Sequence[str]) -> str:
    """`--help` of training: what there is to choose, and the settings of the present choice.

    template: with places for algos, envs, modifiers, presets, algo, env and settings.
    Raises RefusedError for a choice that there is not.
    """
    arguments = plugins.understood(arguments)
    cli.register()

    # compose the chosen groups, of several the first
    overrides = spelling.overrides(arguments, spelling.training_kinds(), sweeping=True)
    groups = [override for override in overrides if override.key_or_group in cli.GROUPS]
    cli.check_groups(groups)
    cfg = hydra.composed([f"{group.key_or_group}={cli.choices(group)[0]}" for group in groups])
    choices = cfg.hydra.runtime.choices

    # write sections with its values
    values = hydra.values(cfg)
    env_title = f"environment (env={choices.env})"
    env_rows = list(rows(registry.get("env", choices.env).Config, "env."))
    sections = [
        *_run_sections(),
        *_algorithm_sections(choices.algo),
        Section(env_title, env_rows),
        *_modifier_sections(),
    ]

    # what there is to choose
    names = {}
    names["algos"] = "|".join(registry.names("algo"))
    names["envs"] = "|".join(registry.names("env"))
    names["modifiers"] = ", ".join(registry.names("modifiers"))
    names["presets"] = ", ".join([*hydra.presets(), *presets.names()])
    settings = "\n\n".join(_section_text(section, values) for section in sections)
    return template.format(**names, algo=choices.algo, env=choices.env, settings=settings)


def small_command(
    template: str,
    config: type,
    command: Callable[[Any], Any],
    arguments: Sequence[str],
    read: Callable[[Sequence[str]], Any] | None = None,
) -> None:
    """Call a command without groups with its settings, or print its help.

    template, config: as in `small_help`.
    command: of the settings, an object of `config`.
    read: arguments -> the settings, for a command that has other arguments besides.
    """
    if any(argument in ("-h", "--help") for argument in arguments):
        print(small_help(template, config))
        return
    command(read(arguments) if read else cli.small_config(config, arguments))


def small_help(template: str, config: type) -> str:
    """`--help` of a command without groups: its template with the settings of its class."""
    return template.format(settings=_lines(rows(config)))


# ------------------------------------------------------------------------------------- sections


def _run_sections() -> Iterator[Section]:
    yield Section("run", list(rows(RunConfig, inner=False)))
    settings = declared(RunConfig)
    for field in dataclasses.fields(RunConfig):
        if dataclasses.is_dataclass(field.default_factory):
            records = list(rows(field.default_factory, f"{field.name}."))
            yield Section(f"{field.name}: {settings[field.name].help}", records)


def _algorithm_sections(name: str) -> Iterator[Section]:
    config = registry.get("algo", name).Config
    yield Section(f"algorithm (algo={name})", list(rows(config, "algo.", inner=False)))
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(field.default_factory):
            heading = f"hyper-parameters of {name}, which a sweep may vary (as sweep.lr=[...])"
            yield Section(heading, list(rows(field.default_factory, f"algo.{field.name}.")))


def _modifier_sections() -> Iterator[Section]:
    for name, module in registry.loaded("modifiers").items():
        heading = f"modifier {name} (modifiers=[{name}])"
        yield Section(heading, list(rows(module.Config, f"{name}.")))


# ----------------------------------------------------------------------------------------- text


def _section_text(section: Section, values: dict[str, Any]) -> str:
    """A section with the values of the present choice."""
    return f"{section.heading}\n{_lines(_present(row, values) for row in section.rows)}"


def _present(row: Row, values: dict[str, Any]) -> Row:
    """The row with its present value; another one than the default has not its source."""
    value = values.get(row.key, row.value)
    if value_text(value) == row.text:
        return row
    return Row(row.key, value, dataclasses.replace(row.setting, source=""))


def _lines(settings: Iterable[Row]) -> str:
    return "\n".join(_line(row) for row in settings)


def _line(row: Row) -> str:
    """`  key=value   what it is [what it may be] (source)`, in as many lines as that needs."""
    words = [row.setting.help]
    allowed = range_text(row.setting.allowed)
    if allowed:
        words.append(allowed if allowed[0] in "[(" else f"[{allowed}]")
    if row.setting.source:
        words.append(f"({row.setting.source.partition(';')[0]})")
    start = f"  {row.key}={row.text}".ljust(COLUMN)
    return textwrap.fill(
        f"{start} {' '.join(words)}",
        width=WIDTH,
        subsequent_indent=" " * (COLUMN + 1),
        break_long_words=False,
        break_on_hyphens=False,
    )

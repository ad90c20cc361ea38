"""The page of all settings, docs/settings.md, from what their fields say of themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from jaxshare import registry
from jaxshare.settings.fields import declared
from jaxshare.settings.records import RunConfig
from jaxshare.settings.rows import Row, range_text, rows

INTRODUCTION = """\
# Settings

Made by `python -m jaxshare.settings > docs/settings.md` from the declarations in the source; do not
edit it. `python -m jaxshare.train --help algo=qmix env=smax` shows those of one choice.

A setting is `key=value` on the command line. The ones below `algo.hparams`, and those of modifiers
that are marked with *, may be varied by a sweep, `sweep.lr=[1e-4,5e-4]`, within the same range.
Sources: `paper` and `code` name whose default it is, `ours` that it is ours.
"""
HEADER = """\
| setting | default | may be | what it is | source |
|---|---|---|---|---|"""
DEPARTURES = """\
## Defaults that are not the papers'

Settings whose source names a default of the code's or of ours, and beside it what the paper has, or
that it is silent. Other departures stand at the top of the file of each algorithm, modifier and
environment; [coverage.md](coverage.md) goes through five texts.

| setting | default | whose | source |
|---|---|---|---|"""
SHARED_HEADER = """\
| setting | may be | what it is | defaults |
|---|---|---|---|"""


@dataclass(frozen=True)
class Use:
    """A setting as one algorithm has it."""

    algorithm: str
    row: Row


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION, *_run_parts(), *_algorithm_parts()]
    parts.append("## Environments\n")
    for name, module in registry.modules("env").items():
        parts.append(f"### env={name}\n\n{_table(rows(module.Config, 'env.'))}\n")
    parts.append("## Modifiers\n")
    for name, module in registry.modules("modifiers").items():
        table = _table(rows(module.Config, f"{name}."), stars=True)
        parts.append(f"### modifiers=[{name}]\n\n{table}\n")
    parts.append(_departures())
    return "\n".join(parts)


def _run_parts() -> Iterator[str]:
    yield f"## Run\n\n{_table(rows(RunConfig, inner=False))}\n"
    settings = declared(RunConfig)
    for field in dataclasses.fields(RunConfig):
        if dataclasses.is_dataclass(field.default_factory):
            table = _table(rows(field.default_factory, f"{field.name}."))
            yield f"### {field.name}: {settings[field.name].help}\n\n{table}\n"


# ----------------------------------------------------------------------------------- algorithms


def _algorithm_parts() -> Iterator[str]:
    """What several algorithms have in one table, with all defaults; then what only one has."""
    # who has the same setting
    uses: dict[tuple[str, str, str], list[Use]] = {}
    for name, module in registry.modules("algo").items():
        for row in rows(module.Config, "algo."):
            same = (row.key, row.setting.help, _may_be(row))
            uses.setdefault(same, []).append(Use(name, row))

    # what several have
    shared = [entries for entries in uses.values() if len(entries) > 1]
    shared.sort(key=lambda entries: (".hparams." in entries[0].row.key, -len(entries)))
    lines = "\n".join(_shared_line(entries) for entries in shared)
    yield f"## Algorithms\n\n### Settings of several algorithms\n\n{SHARED_HEADER}\n{lines}\n"

    # what only one has
    single = [entries[0] for entries in uses.values() if len(entries) == 1]
    for name, module in registry.modules("algo").items():
        text = f"### algo={name}\n"
        run = getattr(module, "RUN", {})
        if run:
            text += f"\nSettings of the run whose defaults are its own: {_settings_text(run)}.\n"
        settings = [use.row for use in single if use.algorithm == name]
        if settings:
            text += f"\n{_table(settings)}\n"
        yield text


def _shared_line(entries: list[Use]) -> str:
    """A row of the shared table: one default after another, with the algorithms that have it."""
    by_default: dict[tuple[str, str], list[str]] = {}
    for use in entries:
        by_default.setdefault((use.row.text, use.row.setting.source), []).append(use.algorithm)
    defaults = []
    for (text, source), names in by_default.items():
        whose = f" ({source})" if source else ""
        defaults.append(f"{_code(text)} {', '.join(names)}{whose}")
    row = entries[0].row
    cells = [_code(row.key), _may_be(row), row.setting.help, "<br>".join(defaults)]
    return _line(cells)


def _settings_text(tree: dict[str, object], prefix: str = "") -> str:
    """`num_envs=4`, `eval.every=1000` of a nested dict."""
    texts = []
    for key, value in tree.items():
        if isinstance(value, dict):
            texts.append(_settings_text(value, f"{prefix}{key}."))
        else:
            texts.append(_code(f"{prefix}{key}={value}"))
    return ", ".join(texts)


# ----------------------------------------------------------------------------------- departures


def _departures() -> str:
    """The section of settings whose default is not the paper's; a line for all that agree."""
    whose: dict[tuple[str, str, str], list[str]] = {}
    for name, row in _all_rows():
        source = row.setting.source
        if is_departure(source):
            whose.setdefault((row.key, row.text, source), []).append(name)

    lines = [DEPARTURES]
    for (key, text, source), names in whose.items():
        lines.append(_line([_code(key), _code(text), ", ".join(names), source]))
    return "\n".join(lines) + "\n"


def is_departure(source: str) -> bool:
    """Whether a source names another default first, and then the paper."""
    first, *others = source.split("; ")
    return not first.startswith("paper") and any(part.startswith("paper") for part in others)


def _all_rows() -> Iterator[tuple[str, Row]]:
    """Every setting, with the name of the entry that has it."""
    for row in rows(RunConfig):
        yield "run", row
    for kind in ("algo", "env", "modifiers"):
        for name, module in registry.modules(kind).items():
            prefix = name if kind == "modifiers" else kind
            for row in rows(module.Config, f"{prefix}."):
                yield name, row


# --------------------------------------------------------------------------------------- tables


def _table(settings: Iterable[Row], stars: bool = False) -> str:
    """A table of settings; stars: mark those that a sweep may vary."""
    lines = [HEADER]
    for row in settings:
        name = _code(row.key) + ("*" if stars and row.setting.is_swept else "")
        setting = row.setting
        lines.append(_line([name, _code(row.text), _may_be(row), setting.help, setting.source]))
    return "\n".join(lines)


def _may_be(row: Row) -> str:
    if isinstance(row.value, bool):
        return "true, false"
    allowed = range_text(row.setting.allowed, most_names=None)
    choices = row.setting.allowed.choices if row.setting.allowed else ()
    return allowed.replace("|", ", ") if choices else allowed


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _line(cells: list[str]) -> str:
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"

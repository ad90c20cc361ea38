"""Where a searched setting stands among the settings of a run, and the settings with it changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jaxshare import registry
from jaxshare.results.directories import IRRELEVANT
from jaxshare.settings.fields import Setting, declared, swept_values
from jaxshare.settings.ranges import Range
from jaxshare.settings.records import EntryConfig, RunConfig, Settings
from jaxshare.settings.rows import rows
from jaxshare.types import RefusedError

HPARAMS = "algo.hparams."
SAME_TASK = ("env", "eval", "data", "dataset", "total_env_steps", "total_updates")


@dataclass(frozen=True)
class Place:
    """A setting that may be searched."""

    key: str  # as a sweep names it if it is swept, else as the command line does
    value: object  # what it is without a search
    setting: Setting

    @property
    def is_swept(self) -> bool:
        """Whether trials that differ in it can be runs of one program."""
        return self.setting.is_swept

    @property
    def allowed(self) -> Range | None:
        """Its declared range."""
        return self.setting.allowed

    @property
    def full_key(self) -> str:
        """As the command line names it."""
        return f"{HPARAMS}{self.key}" if self.is_swept and "." not in self.key else self.key


def place_of(key: str, text: str, settings: Settings) -> Place:
    """Where `search.KEY` stands. Raises RefusedError if it is no setting, or not to be searched."""
    key = key.removeprefix(HPARAMS)
    what = f"search.{key}={text}"
    if key.split(".")[0] in SAME_TASK:
        raise RefusedError(
            f"{what}: trials with different ones are not asked for the same, so their scores "
            "cannot be compared. Search for each by itself."
        )
    if any(key == name or key.startswith(f"{name}.") for name in IRRELEVANT):
        raise RefusedError(f"{what}: {key} changes no result. Set it, as in {key}=….")

    # a scalar that a sweep may vary, or any other setting
    places = {place.key: place for place in _places(settings)}
    place = places.get(key)
    if place is None:
        near = registry.suggest(key, places)
        raise RefusedError(
            f"{what}: '{key}' is not a setting here.{near} `python -m jaxshare.train --help "
            f"algo={settings.algo_name}` lists them."
        )
    if not isinstance(place.value, bool | int | float | str) or place.setting.is_path:
        raise RefusedError(f"{what}: only numbers, true or false, and names can be searched.")
    return place


def _places(settings: Settings) -> Iterator[Place]:
    """All settings by the names that a search has for them."""
    hparams = getattr(settings.algo, "hparams", None)
    if hparams is not None:
        config: type = type(hparams)
        settings_of = declared(config)
        for name in swept_values(hparams):
            yield Place(name, getattr(hparams, name), settings_of[name])
    for prefix, record in (("", settings.run), ("algo.", settings.algo)):
        yield from _of_record(prefix, record)
    for name, config in settings.modifiers.items():
        yield from _of_record(f"{name}.", config)


def _of_record(prefix: str, record: EntryConfig | RunConfig) -> Iterator[Place]:
    for row in rows(type(record), prefix):
        value = record
        for name in row.key.removeprefix(prefix).split("."):
            value = getattr(value, name)
        yield Place(row.key, value, row.setting)


# ------------------------------------------------------------------------------------- changing


def with_value(settings: Settings, full_key: str, value: object) -> Settings:
    """The settings with one changed. Raises RefusedError if that does not go with the others."""
    owner, _, rest = full_key.partition(".")
    if owner == "algo":
        return dataclasses.replace(settings, algo=_changed(settings.algo, rest, value))
    if owner in settings.modifiers:
        config = _changed(settings.modifiers[owner], rest, value)
        return dataclasses.replace(settings, modifiers={**settings.modifiers, owner: config})
    return dataclasses.replace(settings, run=_changed(settings.run, full_key, value))


def _changed(record: Any, key: str, value: object) -> Any:
    first, _, rest = key.partition(".")
    inner = _changed(getattr(record, first), rest, value) if rest else value
    return dataclasses.replace(record, **{first: inner})

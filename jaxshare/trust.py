"""Whose code runs.

What a run directory of somebody else names is not imported or started without the user's word.
A `config.yaml` may name any import path, interpreter or game as its environment. Commands that
build an environment from a run directory read its settings through `run_settings`, which refuses
such names unless

* the command line repeats them (`env.id=mymodule:Env`),
* an installed package lists them under the entry points of the group `jaxshare.trusted_imports`,
* or the user says `trust=true`.

The same holds for algorithms, environments and modifiers that are not jaxshare's own and that the
directory names by dotted path or file (`jaxshare.plugins.again`): the command line repeats them
(`plugins=[my_pkg.my_algo]`), an installed package offers them, or the user says `trust=true`. A
file of settings that a command line names as its preset may not name code by itself either.

An adapter in `envs/` declares by `foreign(config)` which of its settings name code that is not its
own package's.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import pathlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxshare import registry, spelling
from jaxshare.plugins import again, origins
from jaxshare.run.folder import CONFIG, read_config, read_settings
from jaxshare.settings.fields import flag, free_table, text_list
from jaxshare.settings.records import EntryConfig, Settings
from jaxshare.types import RefusedError

# of entry points whose values are import paths, as env.id has them
GROUP = "jaxshare.trusted_imports"
PLACES = ("python", "sc2path")  # where a program lies on this machine: the command line's counts


@dataclass(frozen=True)
class RunCode:
    """Of commands that restore a run, whose settings may name code that is not ours."""

    trust: bool = flag(
        False,
        help="run the code that config.yaml names: environments, interpreters, games not ours",
    )
    env: dict[str, Any] = free_table(help="or name that code again, as in env.id=mymodule:Env")
    plugins: list[str] = text_list(
        help="or dotted paths and files of what it has from outside, as plugins=[my_pkg.my_algo]",
    )


@dataclass(frozen=True)
class Permission:
    """What the user's own command line says of the code that a file names."""

    trust: bool = False  # whatever it is
    # settings of the environment, as in {"id": "mymodule:Env"}
    env: Mapping[str, Any] = field(default_factory=dict)
    takes_env: bool = True  # whether the command has such arguments at all
    plugins: Sequence[str] = ()  # dotted paths and files of entries that are not ours


def run_settings(
    run_dir: pathlib.Path,
    permission: Permission,
    suitable: Callable[[Settings], None] | None = None,
) -> Settings:
    """The settings of a run directory from which an environment may be built.

    permission: of the command line.
    suitable: raises RefusedError for runs that the command has no use for, which is to be told
    before a permission is asked for.
    Raises RefusedError if it is no run directory, or names code without permission.
    """
    again.find_again(read_config(run_dir), run_dir / CONFIG, permission.plugins, permission.trust)
    settings = read_settings(run_dir)
    if suitable is not None:
        suitable(settings)
    return permitted(settings, run_dir / CONFIG, permission)


def permitted(settings: Settings, file: pathlib.Path, permission: Permission) -> Settings:
    """Settings that a file holds, if the code that they name may run.

    Programs that the command line names take the place of the file's.
    Raises RefusedError that shows what the file names and how to allow it.
    """
    settings = _with_places(settings, file, permission)
    unknown = {} if permission.trust else _unnamed(settings, permission)
    if not unknown:
        return settings

    # say what, and how to allow it
    arguments = {key: _argument(key, value) for key, value in unknown.items()}
    names = [argument or f"env.{key} (not shown)" for key, argument in arguments.items()]
    ways = ["say trust=true"]
    if all(arguments.values()) and permission.takes_env:
        ways.insert(0, f"repeat it on the command line ({' '.join(arguments.values())})")
    raise RefusedError(
        f"{file} names code that would run here: {', '.join(names)}. If you know it, "
        f"{' or '.join(ways)}."
    )


def arguments(settings: Settings) -> str:
    """What a later command about this run needs behind its `run_dir`; "" if nothing.

    For settings of the user's own command line only.
    """
    named = _unnamed(settings, Permission())
    parts = [_argument(key, value) for key, value in named.items()]
    outside = again.arguments(origins.names_of(settings))
    return "".join(f" {part}" for part in parts) + outside if all(parts) else " trust=true"


def check_preset(settings: Settings, name: str, keys: Sequence[str]) -> None:
    """Refuse code of an environment that only the preset of a command line names, a file.

    name: of the preset. keys: of the command line, which must have each such setting as a whole.
    Raises RefusedError that shows what the file names.
    """
    named = _unnamed(settings, Permission())
    unknown = {key: value for key, value in named.items() if f"env.{key}" not in keys}
    if unknown:
        parts = [_argument(key, value) or f"env.{key}=…" for key, value in unknown.items()]
        raise RefusedError(
            f"preset={name} names code that would run here. If you know it, repeat it on the "
            f"command line: {' '.join(parts)}."
        )


def foreign_settings(settings: Settings) -> dict[str, Any]:
    """Settings by which code is chosen that is neither ours nor of an adapter's own package."""
    module = registry.get("env", settings.env_name)
    if not getattr(module, "HOST", False):
        return {}
    keys = ["python", *getattr(module, "foreign", _none)(settings.env)]
    values = {key: getattr(settings.env, key) for key in keys}
    # numbers among the arguments name no code
    return {
        key: value
        for key, value in values.items()
        if value and (key != "kwargs" or _has_text(value))
    }


def _none(config: EntryConfig) -> tuple[str, ...]:
    return ()


def _unnamed(settings: Settings, permission: Permission) -> dict[str, Any]:
    """What neither the command line nor an installed package names."""
    installed = _installed()
    unnamed = {}
    for key, value in foreign_settings(settings).items():
        if permission.env.get(key) != value and value not in installed:
            unnamed[key] = value
    return unnamed


def _installed() -> list[Any]:
    """Import paths that installed packages offer as environments, and lists of their modules."""
    points = importlib.metadata.entry_points(group=GROUP)
    return [*(point.value for point in points), *([point.module] for point in points)]


def _with_places(settings: Settings, file: pathlib.Path, permission: Permission) -> Settings:
    """The settings with the command line's programs; its others must be those of the file."""
    known = [f.name for f in dataclasses.fields(settings.env)]

    # take programs, compare all others
    places: dict[str, Any] = {}
    for key, value in permission.env.items():
        if key not in known:
            near = registry.suggest(key, known)
            raise RefusedError(
                f"env.{key}={value} is not a setting of env={settings.env_name}, which {file} "
                f"names.{near}"
            )
        if key in PLACES:
            places[key] = str(value)
        elif getattr(settings.env, key) != value:
            written = origins.shown(_spelled(getattr(settings.env, key)))
            raise RefusedError(
                f"env.{key}={value} is not what {file} says ({written}): the run is of that "
                "environment. Leave it out, or repeat it."
            )
    if not places:
        return settings
    return dataclasses.replace(settings, env=dataclasses.replace(settings.env, **places))


def _has_text(value: object) -> bool:
    """Whether there is any text in it: numbers and flags name no code."""
    if isinstance(value, Mapping):
        return any(_has_text(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_has_text(item) for item in value)
    return isinstance(value, str)


# ---------------------------------------------------------------------------------- how it is shown


def _argument(key: str, value: object) -> str:
    """The argument of the command line that repeats a setting; "" if it cannot be shown in full."""
    text = shlex.quote(f"env.{key}={_spelled(value)}")
    return text if len(text) <= origins.LONGEST and text.isprintable() else ""


def _spelled(value: object) -> str:
    """A value in hydra's grammar, in quotes that a shell's quotes leave readable."""
    return spelling.in_grammar(value, spelling.Quote.double)

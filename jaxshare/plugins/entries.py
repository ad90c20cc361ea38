"""What an entry from outside must be, and the entries that this process has imported so far.

An entry is a module, or anything else, with `Config` (a frozen dataclass whose fields all have
defaults) and `make`. Of an environment an `Env`, or a function that makes one, will do; a logger is
a function, or has one named `make`; a preset is a folder of YAML files, or one such file.
"""

from __future__ import annotations

import dataclasses
import inspect
import pathlib
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeAlias

from jaxshare.types import Discrete, Env, RefusedError

GROUPS = {  # kinds, and the groups of entry points that offer them
    "algo": "jaxshare.algos",
    "env": "jaxshare.envs",
    "modifiers": "jaxshare.modifiers",
    "preset": "jaxshare.presets",
    "logger": "jaxshare.loggers",
}
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
PARAMS = "__dataclass_params__"  # of a dataclass, which type checkers do not know
RESERVED = ("algo", "env", "hydra", "logger", "modifiers", "preset", "sweep")  # first words of keys
INSTALLED = "installed"
MODULE = "module"
FILE = "file"
PYTHON = "python"

Module: TypeAlias = Any  # with `Config` and `make`: a module, or anything that has them


@dataclass(frozen=True)
class Origin:
    """Where an entry came from.

    how: installed (an entry point), module (a dotted path), file, or python (registered there).
    """

    how: str
    module: str = ""  # the import path
    package: str = ""  # the distribution, as pip names it
    version: str = ""
    file: str = ""  # the absolute path
    sha256: str = ""  # of the file

    def plain(self) -> dict[str, str]:
        """What there is to say, as a run directory keeps it."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value}

    def words(self) -> str:
        """Where from, for people."""
        distribution = f"{self.package} {self.version}".strip()
        if self.how == INSTALLED:
            return f"package {distribution}"
        if self.how == MODULE:
            return f"{self.module}, package {distribution}" if distribution else self.module
        return {FILE: self.file, PYTHON: "registered in Python"}.get(self.how, "of unknown origin")


@dataclass(frozen=True)
class Entry:
    """Something that a name stands for. origin: None if it is jaxshare's own."""

    kind: str
    name: str
    module: Module
    origin: Origin | None = None


@dataclass(frozen=True)
class NoSettings:
    """Settings of what has none."""


@dataclass(frozen=True)
class Wrapped:
    """An environment, or a logger, that stands alone, as a module with `Config` and `make`."""

    make: Callable[..., Any]
    Config: type = NoSettings
    HOST: bool = False
    ACTIONS: str = ""
    text: str = ""
    env: Env | None = None  # if it is the same one every time


# ------------------------------------------------------------------------------------- the process

_imported: dict[tuple[str, str], Entry] = {}


def imported(kind: str) -> dict[str, Entry]:
    """Entries from outside that this process has, by name."""
    return {name: entry for (of, name), entry in _imported.items() if of == kind}


def keep(entry: Entry) -> Entry:
    """Know an entry by its name from now on, in place of an older one of that name."""
    _imported[entry.kind, entry.name] = entry
    return entry


def forget(kind: str, name: str) -> None:
    """Know it no more."""
    _imported.pop((kind, name), None)


# ------------------------------------------------------------------------------------ the contract


def checked(kind: str, name: str, thing: object, about: str) -> Module:
    """What stands for the thing as an entry of this kind, with `Config` and `make`.

    about: how a message begins, as in "algo=my_pkg.my_algo".
    Raises RefusedError that says what is missing.
    """
    if not NAME.fullmatch(name) or (kind == "modifiers" and not name.isidentifier()):
        raise RefusedError(
            f"{about} would be called {name!r}: give it a name of letters, digits and _, as in "
            f"my_{kind.rstrip('s')}."
        )
    if kind == "modifiers" and name in RESERVED:
        raise RefusedError(
            f"{about} would be called {name}, as other settings are: give it another name."
        )

    # a preset is a place, all others have two names
    if kind == "preset":
        return _checked_preset(thing, about)
    if not isinstance(thing, ModuleType):
        thing = _wrapped(kind, thing)
    problem = _problem(kind, thing)
    if problem:
        raise RefusedError(f"{about} {problem}.")
    return thing


def wrapped_env(env: Env | Callable[[], Env]) -> Wrapped:
    """An environment, or a function that makes one, as an entry without settings."""
    if not isinstance(env, Env):
        maker = env
        return Wrapped(make=lambda config: maker(), text=inspect.getdoc(maker) or "")
    actions = "discrete" if isinstance(env.spec.action, Discrete) else "continuous"
    return Wrapped(
        make=lambda config: env,
        HOST=not env.spec.pure,
        ACTIONS=actions,
        text=env.spec.name,
        env=env,
    )


def _wrapped(kind: str, thing: object) -> object:
    if hasattr(thing, "Config") or hasattr(thing, "make"):
        return thing
    if kind == "env" and (isinstance(thing, Env) or callable(thing)):
        return wrapped_env(thing)
    if kind == "logger" and callable(thing):
        return Wrapped(make=thing, text=inspect.getdoc(thing) or "")
    return thing


def _problem(kind: str, module: object) -> str:
    """What is wrong with it, and what to do; "" if nothing."""
    if not callable(getattr(module, "make", None)):
        return f"has no function make: export {_signature(kind)}"
    if kind == "logger":
        return ""
    config = getattr(module, "Config", None)
    if not isinstance(config, type) or not dataclasses.is_dataclass(config):
        return "has no Config: export a frozen dataclass of its settings, empty if there are none"
    if not getattr(config, PARAMS).frozen:
        return "has a Config that is not frozen: write @dataclass(frozen=True) above it"
    try:
        config()
    except TypeError as error:
        return f"has a Config without defaults ({error}): give every setting a default"
    return ""


def _signature(kind: str) -> str:
    return {
        "algo": "make(config, spec), which returns a learner",
        "env": "make(config), which returns an Env",
        "modifiers": "make(config, parts), which returns the changed learner",
        "logger": "make(run_dir, names, settings), which returns what has write and close",
    }[kind]


def _checked_preset(thing: object, about: str) -> pathlib.Path:
    if not isinstance(thing, str | pathlib.Path) or not pathlib.Path(thing).exists():
        raise RefusedError(
            f"{about} is no folder of presets, and no YAML file: name one that is there."
        )
    return pathlib.Path(thing).absolute()


def in_words(error: BaseException) -> str:
    """An error of somebody's code in one line: its kind, its message, and where it was raised."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not _is_machinery(frame.filename)
    ]
    where = f" at line {frames[-1].lineno} of {frames[-1].filename}" if frames else ""
    return f"{text}{where}"


def _is_machinery(file: str) -> bool:
    """Whether it only imports others."""
    path = pathlib.Path(file)
    in_importlib = "importlib" in path.parts[-3:]
    in_plugins = path.parent == pathlib.Path(__file__).parent
    return file.startswith("<") or in_importlib or in_plugins

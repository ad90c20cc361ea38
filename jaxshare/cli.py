"""The command line: arguments turned into settings, or refused, and how a command ends."""

from __future__ import annotations

import errno
import itertools
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

from jaxshare import registry, spelling, surroundings, trust
from jaxshare.plugins import arguments as plugins
from jaxshare.plugins import options
from jaxshare.plugins import presets as outside
from jaxshare.settings import hydra
from jaxshare.settings.records import Settings
from jaxshare.spelling import Override
from jaxshare.types import HostError, RefusedError

GROUPS = ("algo", "env", "preset")

T = TypeVar("T")


def settings(arguments: Sequence[str]) -> Settings:
    """Settings from `key=value` arguments. Raises RefusedError naming key, value and remedy."""
    arguments = plugins.understood(arguments)
    register()
    overrides = spelling.overrides(arguments, spelling.training_kinds())
    for override in overrides:
        if override.is_sweep_override():
            raise spelling.several(override, multirun=True)
    check_arguments([override.input_line or "" for override in overrides])
    cfg = hydra.composed([spelled(override.input_line or "") for override in overrides])
    for override in overrides:
        hydra.check_booleans(override.key_or_group, override.value(), cfg)
    check_modifiers(cfg.modifiers, overrides)
    choices = cfg.hydra.runtime.choices
    return permitted(hydra.from_config(cfg, choices), choices, overrides)


def register() -> None:
    """Let hydra know all entries: ours, and those from outside that this process has imported."""
    hydra.register()
    if options.offer():
        _keys_with.cache_clear()


def permitted(
    settings: Settings, choices: Mapping[str, object], overrides: list[Override]
) -> Settings:
    """The settings, if no file that is their preset chooses code of an environment by itself.

    choices: of hydra's groups. overrides: of the command line. Raises RefusedError.
    """
    preset = str(choices.get("preset"))
    if preset in outside.files():
        trust.check_preset(settings, preset, [override.key_or_group for override in overrides])
    return settings


def small_config(config: type[T], arguments: Sequence[str]) -> T:
    """A dataclass from `key=value` arguments, without groups. Raises RefusedError."""
    return hydra.from_overrides(config, spelling.overrides(arguments, spelling.kinds_of(config)))


def check_arguments(arguments: Sequence[str], sweeping: bool = False) -> None:
    """Raise RefusedError for settings that there are not.

    sweeping: that there are in none of the combinations of a multirun.
    """
    register()
    overrides = spelling.overrides(arguments, spelling.training_kinds(), sweeping)
    groups = [override for override in overrides if override.key_or_group in GROUPS]
    if any(override.is_sweep_override() and not override.is_choice_sweep() for override in groups):
        return  # such as glob(*), which hydra expands
    check_groups(groups)
    known: dict[str, None] = {}
    for combination in itertools.product(*map(choices, groups)):
        pairs = zip(groups, combination, strict=True)
        lines = [f"{group.key_or_group}={name}" for group, name in pairs]
        known |= dict.fromkeys(_keys_with(tuple(lines)))
    for override in overrides:
        _check_key(override, known)


def check_groups(groups: list[Override]) -> None:
    """Raise RefusedError for an algorithm, environment or preset that there is not."""
    for override in groups:
        for name in choices(override):
            if override.key_or_group == "preset":
                if name != "null":
                    registry.one_of(
                        "preset", name, [*hydra.presets(), *outside.names(), *outside.files()]
                    )
            else:
                registry.get(override.key_or_group, name)


def known_keys(groups: Sequence[str]) -> tuple[str, ...]:
    """All keys that there are with arguments such as `algo=qmix` and `env=lbf`.

    Groups of keys are among them.
    """
    register()
    parsed = spelling.overrides(groups, spelling.training_kinds())
    chosen = [override for override in parsed if override.key_or_group in GROUPS]
    check_groups(chosen)
    return _keys_with(
        tuple(f"{override.key_or_group}={choices(override)[0]}" for override in chosen)
    )


@lru_cache(maxsize=64)
def _keys_with(groups: tuple[str, ...]) -> tuple[str, ...]:
    """All keys of the configuration with these groups."""
    return tuple(hydra.keys(hydra.composed(groups)))


def choices(group: Override) -> list[str]:
    """The names that a group is given: several in a multirun."""
    if group.is_sweep_override():
        return list(group.sweep_string_iterator())
    return ["null" if group.value() is None else str(group.value())]


def _check_key(override: Override, known: Collection[str]) -> None:
    key = override.key_or_group
    if key in GROUPS or key.startswith(("sweep.", "hydra.", "hydra/")):
        return
    parts = key.split(".")
    if "kwargs" in parts:
        key = ".".join(parts[: parts.index("kwargs") + 1])
    if key not in known:
        near = registry.suggest(key, known)
        what = f"'{key}' (in {override.input_line}) is not a setting."
        raise RefusedError(f"{what}{near} `--help` lists the settings.")


def check_modifiers(used: Collection[str], overrides: list[Override]) -> None:
    """Raise RefusedError for a setting of a modifier that is not in use."""
    for override in overrides:
        owner = override.key_or_group.split(".")[0]
        if owner in registry.loaded("modifiers") and owner not in used:
            what = f"{override.input_line} has no effect: {owner} is not in use."
            raise RefusedError(f"{what} Add modifiers=[{owner}].")


def spelled(argument: str, sweeping: bool = False) -> str:
    """An argument as hydra wants it; `sweep.*` keys are added. See `spelling.spelled`."""
    if argument.startswith("-"):
        return argument
    line = spelling.spelled(argument, spelling.training_kinds(), sweeping)
    key = line.partition("=")[0]
    return f"++{line}" if _is_free(key) and not key.startswith("+") else line


def _is_free(key: str) -> bool:
    """Whether any name may follow: sweep.<hyper-parameter>, and env.kwargs.<name> for a package."""
    return key.split(".")[0] == "sweep" or "kwargs" in key.split(".")


# ----------------------------------------------------------------------------------------- main


def run_command(command: Callable[[], None]) -> None:
    """Run a command; a refusal becomes a message on stderr and exit status 1, never a traceback."""
    try:
        surroundings.prepare_process()
        command()
    except (RefusedError, HostError, OSError) as error:
        print(f"error: {told(error)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def told(error: Exception) -> str:
    """What a person is told of an error that is no mistake of the program."""
    if not isinstance(error, OSError):
        return str(error)
    remedy = ": raise the limit, as by ulimit -n 4096" if error.errno == errno.EMFILE else ""
    return f"{error.filename or 'input/output'}: {error.strerror or error}{remedy}"

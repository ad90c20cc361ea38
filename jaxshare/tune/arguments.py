"""What the command line and the YAML file of a search say, sorted by whom it concerns."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

from jaxshare import cli, registry
from jaxshare.plugins.options import read_yaml
from jaxshare.settings.rows import value_text
from jaxshare.settings.validate import check_record
from jaxshare.tune.settings import Config
from jaxshare.types import RefusedError

SEARCH = "search."
SETTINGS = "settings"  # key of the file: settings of training
SUFFIXES = (".yaml", ".yml")
OURS = tuple(field.name for field in dataclasses.fields(Config))
REFUSED = {  # settings of training that a search has for itself, and why
    "run_dir": "each batch of trials has a folder in out. Name out=… instead",
    "resume": "the same command goes on by itself. Leave it out",
    "sweep": "a search chooses the points. Say search.… instead",
}


@dataclass(frozen=True)
class Asked:
    """What is asked for."""

    training: list[str]  # arguments of jaxshare.train
    search: dict[str, str]  # "lr" -> "log(1e-4,1e-2)"
    config: Config


def sorted_out(arguments: Sequence[str]) -> Asked:
    """The arguments by whom they concern; those of a file come first. Raises RefusedError."""
    lines: list[str] = []
    files = [argument for argument in arguments if _is_file(argument)]
    if len(files) > 1:
        raise RefusedError(f"{' and '.join(files)} are two searches: name one file.")
    for file in files:
        lines += _lines(pathlib.Path(file))
    lines += [argument for argument in arguments if argument not in files]

    # whom each concerns
    search: dict[str, str] = {}
    ours = []
    training = []
    for line in lines:
        key, _, value = line.partition("=")
        if key.split(".")[0] in REFUSED:
            raise RefusedError(f"{line} has no effect here: {REFUSED[key.split('.')[0]]}.")
        if line.startswith("-"):
            raise RefusedError(f"'{line}' is not understood: write key=value, as in trials=32.")
        if key.startswith(SEARCH):
            search[key.removeprefix(SEARCH)] = value.strip()
        elif key in OURS:
            ours.append(line)
        else:
            training.append(line)

    config = cli.small_config(Config, ours)
    check_record(config)
    if not config.out and files:
        config = dataclasses.replace(config, out=f"runs/tune/{pathlib.Path(files[0]).stem}")
    return Asked(training, search, config)


def _is_file(argument: str) -> bool:
    return "=" not in argument and argument.endswith(SUFFIXES)


def _lines(path: pathlib.Path) -> list[str]:
    """The file as arguments. Raises RefusedError naming file and key."""
    tree = read_yaml(path)
    known = (SETTINGS, "search", *OURS)
    for key in tree:
        if key not in known:
            near = registry.suggest(key, known)
            raise RefusedError(f"{path}: '{key}' is no key here.{near} Known: {', '.join(known)}.")
    settings = tree.pop(SETTINGS, None) or []
    search = tree.pop("search", None) or {}
    if not isinstance(settings, list):
        raise RefusedError(f"{path}: settings must be a list, as in [algo=qmix, env=matrix].")
    if not isinstance(search, dict):
        raise RefusedError(f"{path}: search must be a mapping, as in {{lr: 'log(1e-4,1e-2)'}}.")

    # as arguments
    lines = [str(line) for line in settings]
    lines += [f"{SEARCH}{key}={value_text(value)}" for key, value in search.items()]
    return [*lines, *[f"{key}={value_text(value)}" for key, value in tree.items()]]

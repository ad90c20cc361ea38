"""The folder of a run: its name, its settings, and whether a run in it can go on."""

from __future__ import annotations

import dataclasses
import datetime
import json
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml

from jaxshare import durable
from jaxshare.plugins import origins
from jaxshare.run import reader, versions
from jaxshare.run.checkpoint.step_folders import FOLDER, UNFINISHED
from jaxshare.run.lock import Lock
from jaxshare.run.loggers import METRICS
from jaxshare.settings.hydra import filled
from jaxshare.settings.plain import flatten, from_plain, newer, with_values, without
from jaxshare.settings.records import RunConfig, Settings
from jaxshare.types import RefusedError

CONFIG = "config.yaml"
FREE_TO_CHANGE: tuple[str, ...] = (
    "run.resume",
    "run.run_dir",
    "run.logger",
    "run.progress",
    "run.checkpoint.",
    "run.parallel.devices",
    "run.parallel.data",
    "run.parallel.process",
    "run.parallel.coordinator",
    # where and how environments on the host run, on which their episodes do not depend
    "env.workers",
    "env.timeout",
    "env.python",
    "env.sc2path",
)
RESTORE = "Restore it from a copy, or choose another run_dir."
# of config.yaml, where they are missing
OPTIONAL: dict[str, Any] = {"env": {}, "modifiers": {}, "sweep": {}}


@dataclass(frozen=True)
class Opened:
    """A run directory in use by this process."""

    settings: Settings  # with the name of the directory
    run_dir: pathlib.Path
    resuming: bool  # whether there is a run in it to go on with
    lock: Lock


@contextmanager
def in_use(settings: Settings) -> Iterator[Opened]:
    """The run directory of the settings, for this process alone while the context lasts.

    Without a run_dir it gets a new name. Raises RefusedError if it cannot be written, another
    process has it, it is used and resume=never, or it holds another configuration.
    """
    settings = named(settings)
    run_dir = pathlib.Path(settings.run.run_dir)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = Lock(run_dir)
    except OSError as error:
        raise _unwritable(run_dir, error) from error
    try:
        run_dir, resuming = open_run_dir(settings)
        yield Opened(settings, run_dir, resuming, lock)
    finally:
        lock.release()


def named(settings: Settings) -> Settings:
    """The settings with a run_dir; one that was not chosen is made, and is nobody else's."""
    if settings.run.run_dir:
        return settings
    name = "+".join([settings.algo_name, *settings.modifiers])
    base = f"runs/{name}-{settings.env_name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    run_dir = new_folder(base)
    return dataclasses.replace(settings, run=dataclasses.replace(settings.run, run_dir=run_dir))


def new_folder(base: str) -> str:
    """Make a folder that was not there: `base`, or with -2, -3, … behind it.

    Raises RefusedError.
    """
    number = 1
    while True:
        path = pathlib.Path(base if number == 1 else f"{base}-{number}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(exist_ok=False)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise _unwritable(path, error) from error
        else:
            return str(path)


def open_run_dir(settings: Settings) -> tuple[pathlib.Path, bool]:
    """The run directory, made if need be, and whether there is a run in it to go on with.

    A new run's settings and versions are written. Raises RefusedError if it cannot be written, is
    used and resume=never, or holds another configuration.
    """
    # begin a new run
    run_dir = pathlib.Path(settings.run.run_dir)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        if not _used(run_dir):
            versions.write_versions(run_dir)
            write_settings(settings, run_dir)
            return run_dir, False
    except OSError as error:
        raise _unwritable(run_dir, error) from error

    # go on with the one that is there
    if not (run_dir / CONFIG).exists() or not _ours(run_dir):
        raise RefusedError(
            f"run_dir={run_dir} holds something that is not a jaxshare run: choose another run_dir."
        )
    if settings.run.resume == "never":
        raise RefusedError(
            f"run_dir={run_dir} already holds a run: go on with resume=auto, or choose another "
            "run_dir."
        )
    _refuse_differences(run_dir, settings)
    return run_dir, True


def goes_on(settings: Settings) -> bool:
    """Whether there is a run in the directory of the settings, so that nothing new is begun."""
    run_dir = settings.run.run_dir
    return bool(run_dir) and pathlib.Path(run_dir).is_dir() and _used(pathlib.Path(run_dir))


def as_begun(settings: Settings) -> Settings:
    """The settings with which a run goes on, if there is one in their directory.

    What there was no setting for when it was begun stays as it was then, whatever the command says.
    """
    run_dir = pathlib.Path(settings.run.run_dir)
    if not goes_on(settings) or not (run_dir / CONFIG).is_file():
        return settings
    old = newer(read_config(run_dir)["run"])
    if not old:
        return settings
    run = with_values(plain(settings)["run"], old)
    return dataclasses.replace(settings, run=filled(RunConfig, run, "run"))


def how_to_go_on(run_dir: pathlib.Path) -> str:
    """The words that make the same command go on with this run."""
    return f"resume=auto run_dir={run_dir}"


def _unwritable(run_dir: pathlib.Path, error: OSError) -> RefusedError:
    return RefusedError(
        f"run_dir={run_dir} cannot be written ({error.strerror or error}): choose another run_dir."
    )


def _used(run_dir: pathlib.Path) -> bool:
    """Whether there is something to lose.

    A run that died before its first checkpoint leaves nothing.
    """
    metrics = run_dir / METRICS
    folder = run_dir / FOLDER
    has_checkpoints = folder.is_dir() and any(
        UNFINISHED not in path.name for path in folder.iterdir()
    )
    foreign = (run_dir / CONFIG).exists() and not _ours(run_dir)
    return has_checkpoints or foreign or (metrics.exists() and metrics.stat().st_size > 0)


def _ours(run_dir: pathlib.Path) -> bool:
    """Whether versions.json or, if that is damaged, config.yaml is as a run writes it."""
    try:
        return "jaxshare" in reader.read_json(run_dir / versions.VERSIONS, reader.VERSIONS, RESTORE)
    except (OSError, RefusedError):
        pass
    try:
        read_config(run_dir)
    except (OSError, RefusedError):
        return False
    return True


# --------------------------------------------------------------------------------------- settings


def plain(settings: Settings) -> dict[str, Any]:
    """Settings as nested dicts of plain values.

    parallel.shards is told as a number, which stays when the number of devices changes.
    """
    tree = json.loads(json.dumps(dataclasses.asdict(settings)))
    tree["run"]["parallel"]["shards"] = settings.run.parallel.num_shards
    return tree


def check_is_run(run_dir: pathlib.Path) -> None:
    """Raise RefusedError for what is no run directory."""
    if not (run_dir / CONFIG).is_file():
        raise RefusedError(f"run_dir={run_dir} is not a run directory: it has no {CONFIG}.")


def read_config(run_dir: pathlib.Path) -> dict[str, Any]:
    """The plain settings of a run directory, as they are written.

    Raises RefusedError if it is not one.
    """
    check_is_run(run_dir)
    return {**OPTIONAL, **reader.read_yaml(run_dir / CONFIG, reader.CONFIG, RESTORE)}


def read_settings(run_dir: pathlib.Path) -> Settings:
    """The settings of a run directory; what its version did not have yet has today's defaults.

    The one place where a folder, which may come from another person, becomes settings. Raises
    RefusedError for a setting that this version does not know, or a value that does not fit.
    """
    tree = read_config(run_dir)
    try:
        return from_plain(tree)
    except RefusedError as error:
        raise RefusedError(f"{run_dir / CONFIG}{versions.made_by(run_dir)}: {error}") from error


def write_settings(settings: Settings, run_dir: pathlib.Path) -> None:
    """Write the settings of a run, and where entries from outside came from. Raises OSError."""
    tree = {**plain(settings), **origins.record(origins.names_of(settings))}
    # what an older run did not say it goes on not saying, and so goes on as it began
    if (run_dir / CONFIG).is_file():
        tree["run"] = without(tree["run"], newer(read_config(run_dir)["run"]))
    durable.write_text(run_dir / CONFIG, yaml.safe_dump(tree, sort_keys=False))


def _refuse_differences(run_dir: pathlib.Path, settings: Settings) -> None:
    # entries first: what the folder names besides those of the command is not imported
    changed = origins.changes(read_config(run_dir), origins.names_of(settings))
    if not changed:
        changed = _changed_settings(run_dir, settings)
    if changed:
        rest = "; …" if len(changed) > 5 else ""
        raise RefusedError(
            f"run_dir={run_dir} holds a run of another configuration ({'; '.join(changed[:5])}"
            f"{rest}). Use those settings, or choose another run_dir. Nothing was changed."
        )


def _changed_settings(run_dir: pathlib.Path, settings: Settings) -> list[str]:
    old = flatten(plain(read_settings(run_dir)))
    new = flatten(plain(settings))
    free = FREE_TO_CHANGE
    if not settings.modifiers:
        free = (*free, "run.total_env_steps")

    changed = []
    for key in sorted(old.keys() | new.keys()):
        before = old.get(key)
        now = new.get(key)
        if before != now and not key.startswith(free):
            changed.append(f"{key.removeprefix('run.')} was {before}, now {now}")
    return changed

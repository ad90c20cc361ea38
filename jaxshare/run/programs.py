"""Compiled programs that are kept from one start of a command to the next.

JAX's own cache saves the compiler's work; tracing and lowering are done anew at every start, which
takes longer than all the rest of it. What is kept here is called without either. A program belongs
to its settings, to every file that Python has imported by then, and to the machine: with anything
else another name is looked for. Only commands keep programs: a script may have changed a function
of jaxshare's, of which no file tells.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import pickle
import platform
import stat
import sys
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental import serialize_executable

from jaxshare import durable, registry
from jaxshare.run.folder import plain
from jaxshare.settings.plain import flatten
from jaxshare.settings.records import Settings
from jaxshare.surroundings import MOST_KEPT, processor

FOLDER = "jaxshare"  # in JAX's folder of compiled programs
SUFFIX = ".program"
DIGEST = 32  # bytes before the program: a damaged file is compiled anew
# what no program depends on; seeds are arguments, of which only the number counts
FREE = (
    "run.seed", "run.seeds", "run.run_dir", "run.init_from", "run.resume", "run.logger",
    "run.progress",
)  # fmt: skip
JAX_HAD_IT = "/jax/compilation_cache/cache_hits"  # an event
FLAGS = ("XLA_FLAGS", "NVIDIA_TF32_OVERRIDE")
OF_THE_CACHE = ("cache", "log", "coordinator", "platform_name")  # JAX's settings that change none


@dataclass(frozen=True)
class KeptPrograms:
    """Of one command.

    name: of everything that they depend on; devices: that they were made for.
    """

    folder: pathlib.Path
    name: str
    devices: tuple[jax.Device, ...]

    def _path(self, program: str) -> pathlib.Path:
        return self.folder / f"{self.name}-{program}{SUFFIX}"

    def read(self, program: str) -> jax.stages.Compiled | None:
        """A program, or None if it is not there, or is damaged, or somebody else's."""
        path = self._path(program)
        try:
            if not _is_mine(path) or not _is_mine(self.folder):
                return None
            content = path.read_bytes()
            if hashlib.sha256(content[DIGEST:]).digest() != content[:DIGEST]:
                return None
            executable, in_tree, out_tree = pickle.loads(content[DIGEST:])
            os.utime(path)
            return serialize_executable.deserialize_and_load(
                executable, in_tree, out_tree, execution_devices=self.devices
            )
        except Exception:  # JAX says in many ways that it cannot read what another one wrote
            return None

    def made(self, program: str, lowered: jax.stages.Lowered) -> jax.stages.Compiled:
        """Compile a program, and keep it.

        Not one that JAX has read from its own folder: written again, it lacks some of its code.
        """
        hits = []

        def note(event: str, **about: str | int) -> None:
            if event == JAX_HAD_IT:
                hits.append(event)

        jax.monitoring.register_event_listener(note)
        try:
            compiled = lowered.compile()
        finally:
            jax.monitoring.unregister_event_listener(note)
        if not hits:
            self.write(program, compiled)
        return compiled

    def write(self, program: str, compiled: jax.stages.Compiled) -> None:
        """Keep a program, if JAX can write it and there is room."""
        try:
            content = pickle.dumps(serialize_executable.serialize(compiled))
        except Exception:  # as above: some programs cannot be written
            return
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_room(self.folder, len(content))
            digest = hashlib.sha256(content).digest()
            durable.write_bytes(self._path(program), digest + content)
            self._path(program).chmod(0o600)  # whatever the user's files are as a rule
        except OSError:  # no room, or no right: the run goes on
            return


def kept_by(settings: Settings, devices: tuple[jax.Device, ...]) -> KeptPrograms | None:
    """Where a command of these settings keeps its programs, or None where it does not.

    To be asked once all parts are made, so that their files are imported.
    devices: of its layout.
    """
    # where nothing is to be kept, or what is to be run could not be told by its files
    cache = jax.config.values["jax_compilation_cache_dir"]
    is_alone = settings.run.parallel.processes == 1
    if not cache or not jax.config.values["jax_enable_compilation_cache"] or not is_alone:
        return None
    if not _is_ours(settings):
        return None

    # all that a program depends on
    facts = {
        "settings": _settings(settings),
        "runs": len(settings.runs()),
        "files": _files(),
        "machine": _machine(devices),
        "flags": {name: os.environ.get(name, "") for name in FLAGS},
        "jax": _flags_of_jax(),
    }
    text = json.dumps(facts, sort_keys=True, default=str)
    name = hashlib.sha256(text.encode()).hexdigest()[:32]
    return KeptPrograms(pathlib.Path(cache, FOLDER), name, devices)


def _is_mine(path: pathlib.Path) -> bool:
    """Whether nobody else can have written it: a program is code. Raises OSError."""
    status = path.stat()
    others = stat.S_IWGRP | stat.S_IWOTH
    is_owner = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    return is_owner and not status.st_mode & others


def _is_ours(settings: Settings) -> bool:
    """Whether all parts are jaxshare's own: others may be made by any code."""
    names = {"algo": [settings.algo_name], "env": [settings.env_name]}
    names["modifiers"] = [*settings.modifiers]
    return all(name in registry.modules(kind) for kind in names for name in names[kind])


def _settings(settings: Settings) -> dict[str, Any]:
    flat = flatten(plain(settings))
    return {key: value for key, value in flat.items() if key not in FREE}


def _files() -> list[tuple[str, int, int]]:
    """Every imported file, and all of jaxshare's, with size and time of change."""
    paths = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    package = pathlib.Path(__file__).parent.parent
    paths |= {str(path) for path in package.rglob("*.py")}
    return [_state(path) for path in sorted(filter(None, paths))]


def _state(path: str) -> tuple[str, int, int]:
    try:
        status = os.stat(path)
    except OSError:  # in an archive
        return path, 0, 0
    return path, status.st_size, status.st_mtime_ns


def _machine(devices: tuple[jax.Device, ...]) -> list[str]:
    """What code is made for."""
    kinds = [f"{device.platform} {device.device_kind} {device.id}" for device in devices]
    return [
        sys.version,
        platform.machine(),
        devices[0].client.platform_version,
        *kinds,
        processor(),
    ]


def _flags_of_jax() -> dict[str, Any]:
    flags = dict(jax.config.values)
    for name in jax.config.values:
        if any(word in name for word in OF_THE_CACHE):
            del flags[name]
    return flags


def _make_room(folder: pathlib.Path, size: int) -> None:
    """Remove what was not used for longest, until `size` bytes more may be kept."""
    files = [(path, path.stat()) for path in folder.glob(f"*{SUFFIX}")]
    files.sort(key=lambda pair: pair[1].st_mtime)
    total = size + sum(status.st_size for _, status in files)
    for path, status in files:
        if total <= MOST_KEPT:
            return
        path.unlink(missing_ok=True)
        total -= status.st_size

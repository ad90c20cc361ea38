"""The process that a command runs in.

Its streams, open files, folders of modules, JAX's flags, and where compiled programs are kept.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import platform
import sys
from contextlib import suppress
from typing import Protocol, TextIO, cast

import jax

from jaxshare.types import RefusedError


class Flags(Protocol):
    """Those of JAX's that type checkers do not know."""

    jax_enable_x64: bool
    jax_platforms: str | None
    jax_compilation_cache_dir: str | None


CONFIG = cast(Flags, jax.config)
PLAIN = "jaxshare.plain"  # name of the error handler
REPLACED = {
    "…": "...", "→": "->", "←": "<-", "–": "-", "—": "-", "−": "-", "×": "x", "≤": "<=", "≥": ">=",
    "µ": "u", "’": "'", "“": '"', "”": '"',
}  # fmt: skip
MOST_KEPT = 4 * 2**30  # ours: bytes of compiled programs; what was not used for longest makes room
# ours: files that a run may want open; measured: 34 in one of the smallest on two cores
FILES = 128
WANTED_FILES = 4096  # the limit is raised to this where the system allows it


def prepare_process() -> None:
    """What every command does first."""
    for stream in (sys.stdout, sys.stderr):
        make_tolerant(stream)
    see_current_folder()
    allow_files()
    keep_compiled()
    if CONFIG.jax_enable_x64:
        jax.config.update("jax_enable_x64", False)
        note = (
            "note: JAX_ENABLE_X64 is set, and jaxshare computes in 32 bits: it is turned off here."
        )
        print(note, file=sys.stderr)


# ------------------------------------------------------------------------------------------ streams


def make_tolerant(stream: TextIO) -> None:
    """Let a stream show what its encoding lacks in other characters, instead of failing."""
    reconfigure = getattr(stream, "reconfigure", None)
    fails = getattr(stream, "errors", None) in ("strict", "surrogateescape", "backslashreplace")
    if reconfigure is not None and fails:
        with suppress(AttributeError, ValueError, OSError):  # replaced by something else, or closed
            reconfigure(errors=PLAIN)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Of what cannot be encoded: ASCII that looks like it, or its number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = ""
    for letter in error.object[error.start : error.end]:
        text += REPLACED.get(letter) or letter.encode("ascii", "backslashreplace").decode()
    return text, error.end


codecs.register_error(PLAIN, _plain)

# ----------------------------------------------------------------------------------- modules, files


def see_current_folder() -> None:
    """Import modules of the current folder, as `python -m` does; not with `python -P`.

    ours: what is installed goes first, so that a folder of people's files replaces no package.
    """
    if sys.flags.safe_path or "" in sys.path:
        return
    with suppress(FileNotFoundError):
        folder = os.getcwd()
        if folder not in sys.path:
            sys.path.append(folder)


def allow_files() -> int | None:
    """Raise the limit of open files as far as the system allows: the limit then, or None."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    highest = WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, WANTED_FILES)
    if soft < highest:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
            return highest
    return soft


# ---------------------------------------------------------------------------------------- compiling


def keep_compiled() -> None:
    """Let JAX keep what it compiles in a folder of the user's, unless another one is named.

    Programs are those of one kind of processor: a home folder may be seen by several.
    """
    if CONFIG.jax_compilation_cache_dir is not None:
        return
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    kind = hashlib.sha256(processor().encode()).hexdigest()[:8]
    folder = os.path.join(base, "jaxshare", kind)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError:  # no home: everything is compiled anew
        return
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_compilation_cache_max_size", MOST_KEPT)


def processor() -> str:
    """What the processor is called and can do, which compiled code depends on."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = ("model name", "flags", "Features")
            return "".join(sorted({line for line in lines if line.startswith(names)}))
    except OSError:
        return platform.processor()


# ------------------------------------------------------------------------------------------ machine


def check_machine() -> None:
    """Raise RefusedError if a run cannot work here.

    That is with too few open files, with JAX in 64 bits, or with devices that are not there.
    """
    files = allow_files()
    if files is not None and files < FILES:
        raise RefusedError(
            f"only {files} files may be open at a time here, and a run may need {FILES} for its "
            f"checkpoints: ulimit -n {WANTED_FILES}, or ask who limits them."
        )
    if CONFIG.jax_enable_x64:
        raise RefusedError(
            "jax_enable_x64 is on, and jaxshare computes in 32 bits: turn it off before, by "
            'jax.config.update("jax_enable_x64", False).'
        )
    check_devices()


def check_devices() -> None:
    """Raise RefusedError if JAX does not start on the devices that it is told to use."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        platforms = CONFIG.jax_platforms
        if not platforms:
            raise
        lines = str(error).splitlines()
        why = "there is none, or JAX is without it"
        if lines:
            why = lines[0].split(" (set JAX_PLATFORMS")[0]
        raise RefusedError(
            f"JAX_PLATFORMS={platforms}: JAX cannot start on it ({why}). Unset JAX_PLATFORMS to "
            "use what is there, or say JAX_PLATFORMS=cpu."
        ) from error

"""Processes of this machine, and what tells one from another that has its number."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess


def started(pid: int) -> str:
    """When a process was started, in the kernel's ticks since the machine's start; "" for none."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return _started_by_ps(pid) if not os.path.exists("/proc/self/stat") else ""

    # Z, X: it ended, of which its parent was not told yet
    fields = text.rpartition(")")[2].split()
    state = fields[0]
    return "" if state in "ZX" else fields[19]


def _started_by_ps(pid: int) -> str:
    """The same where there is no /proc, as on macOS."""
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def boot() -> str:
    """A name of this start of this machine.

    The machine's own name where the kernel has none, and processes are asked instead.
    """
    try:
        return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def namespace() -> str:
    """The numbers of processes that this one sees: a container has its own; "" if not told."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""

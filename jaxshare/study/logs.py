"""What jobs print, a file each."""

from __future__ import annotations

import pathlib
import re

LOGS = "logs"
TAIL = 65_536  # bytes of a log that are looked at for what went wrong


def log_of(name: str, root: pathlib.Path) -> pathlib.Path:
    """The log of a job."""
    return root / LOGS / f"{name}.log"


def last_line(log: pathlib.Path) -> str:
    """The last error a log has, or its last line; without the paths of the machine."""
    text = _tail(log)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"error:|[\w.]*(Error|Exception)\b", line)]
    line = (errors or lines or [""])[-1]
    here = str(pathlib.Path.cwd())
    return line.replace(here, ".").replace(str(log.parent.parent), "RUNS")[:300]


def _tail(log: pathlib.Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def size_of(path: pathlib.Path) -> int:
    """Bytes of a file, 0 if there is none: a log is opened long before its first record."""
    try:
        return path.stat().st_size
    except OSError:
        return 0

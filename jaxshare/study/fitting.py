"""How many runs of some settings fit into memory, so that one program can train them.

python -m jaxshare.study.fitting SETTINGS...    bytes of one run, and of each further one
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from jaxshare import cli
from jaxshare.run import build, memory
from jaxshare.study.language import Settings
from jaxshare.types import RefusedError

SHARE = 0.8  # of the memory may be used: the estimate leaves the libraries out
IRRELEVANT = ("seed", "seeds", "total_", "eval.every", "algo.hparams.", "sweep.", "run_dir")


class Fitting:
    """Asks once for every kind of run."""

    def __init__(self, num_bytes: float) -> None:
        """num_bytes: of memory, for one job."""
        self._num_bytes = num_bytes
        self._known: dict[tuple[tuple[str, str], ...], int] = {}

    def most(self, settings: Settings) -> int:
        """How many runs fit, at least one. Raises RefusedError for settings that are refused."""
        key = tuple(sorted(p for p in settings.items() if not p[0].startswith(IRRELEVANT)))
        if key not in self._known:
            first, each = _measured(settings)
            others = int((SHARE * self._num_bytes - first) / each)
            self._known[key] = 1 + max(0, others)
        return self._known[key]


def physical_bytes() -> int:
    """The memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _measured(settings: Mapping[str, str]) -> tuple[int, int]:
    """Bytes of one run, and of each further one: told by a process of its own, which starts JAX."""
    words = [f"{name}={value}" for name, value in settings.items() if name != "seeds"]
    command = [sys.executable, "-m", "jaxshare.study.fitting", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RefusedError(f"pack=auto: {lines[-1].removeprefix('error: ')}")
    first, each = done.stdout.splitlines()[-1].split()
    return int(first), int(each)


def _estimate(words: list[str]) -> str:
    """What one run takes, and what a second one adds, in bytes."""
    sizes = []
    for seeds in (1, 2):
        settings = cli.settings([*words, f"seeds={seeds}", "parallel.devices=1"])
        program, layout = build.lay_out(settings)
        sizes.append(memory.needs(program, layout).total)
    return f"{sizes[0]} {max(1, sizes[1] - sizes[0])}"


def main() -> None:
    """Entry point."""
    cli.run_command(lambda: print(_estimate(sys.argv[1:])))


if __name__ == "__main__":
    main()

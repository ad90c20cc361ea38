"""The package as it was at another commit, beside today's in one process."""

import contextlib
import importlib
import pathlib
import subprocess
import sys
import tempfile
from types import ModuleType
from typing import Any

REPOSITORY = pathlib.Path(__file__).parent.parent
PACKAGE = "jaxshare"


class Before:
    """The modules of a commit. They keep to each other, today's to theirs."""

    def __init__(self, commit: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        archive = subprocess.run(
            ["git", "archive", commit, PACKAGE, "configs"], cwd=REPOSITORY, capture_output=True, check=True
        )
        subprocess.run(["tar", "-x", "-C", self._folder.name], input=archive.stdout, check=True)
        self._modules: dict[str, ModuleType] = {}

    @contextlib.contextmanager
    def active(self) -> Any:
        """While it lasts, importing the package means that commit's."""
        today = _taken()
        sys.modules.update(self._modules)
        sys.path.insert(0, self._folder.name)
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.path.remove(self._folder.name)
            self._modules = _taken()
            sys.modules.update(today)


def _taken() -> dict[str, ModuleType]:
    """All modules of the package, taken out of those that are imported."""
    names = [name for name in sys.modules if name == PACKAGE or name.startswith(f"{PACKAGE}.")]
    return {name: sys.modules.pop(name) for name in names}

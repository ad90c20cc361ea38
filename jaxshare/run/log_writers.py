"""Where the records of a run go: metrics.jsonl, and the loggers that were asked for."""

from __future__ import annotations

import pathlib
from typing import Any

from jaxshare import registry
from jaxshare.run import folder
from jaxshare.run.loggers import JsonLines, Logger
from jaxshare.settings.records import Settings


class LogWriters:
    """metrics.jsonl and other loggers, opened together. Raises RefusedError if one cannot be."""

    def __init__(self, run_dir: pathlib.Path, settings: Settings) -> None:
        self.file = JsonLines(run_dir)
        self._loggers: list[Logger] = [self.file, *_others(run_dir, settings)]

    def write(self, run: int, record: dict[str, Any]) -> None:
        """Log one record of run `run`."""
        for logger in self._loggers:
            logger.write(run, record)

    def close(self) -> None:
        """Flush and close all."""
        for logger in self._loggers:
            logger.close()


def _others(run_dir: pathlib.Path, settings: Settings) -> list[Logger]:
    labels = settings.labels()
    names = [describe(label).replace(" ", "_").replace("=", "_") for label in labels]
    plain = folder.plain(settings)
    factories = [registry.get("logger", name) for name in dict.fromkeys(settings.run.logger)]
    return [factory.make(run_dir, names, plain) for factory in factories]


def describe(label: dict[str, Any]) -> str:
    """'seed=0 lr=0.001': which run a label names."""
    return " ".join(f"{name.removeprefix('sweep.')}={value}" for name, value in label.items())

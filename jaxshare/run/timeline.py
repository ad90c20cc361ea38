"""What a run spent its time on before and between its chunks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Phase:
    """Something that took time. Seconds since the epoch."""

    name: str
    begun: float
    ended: float


@dataclass
class Timeline:
    """All phases of a run, in the order in which they ended."""

    phases: list[Phase] = field(default_factory=list)

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Note how long what is inside takes, whether it fails or not."""
        begun = time.time()
        try:
            yield
        finally:
            self.phases.append(Phase(name, begun, time.time()))

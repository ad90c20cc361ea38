"""What a run spent its time on before and between its chunks."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

NEWEST = 1000  # ours: of a long run only so many are of use


@dataclass(frozen=True)
class Phase:
    """Something that took time. Seconds since the epoch."""

    name: str
    begun: float
    ended: float


@dataclass
class Timeline:
    """The newest phases of a run, in the order in which they ended."""

    phases: deque[Phase] = field(default_factory=lambda: deque(maxlen=NEWEST))

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Note how long what is inside takes, whether it fails or not."""
        begun = time.time()
        try:
            yield
        finally:
            self.phases.append(Phase(name, begun, time.time()))

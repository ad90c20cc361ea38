"""Learning from windows: pieces of stored episodes, one step long where that is all that is needed.

A window begins at a transition drawn uniformly among all that are stored; with `window=1` a batch
is of single transitions. Networks must not need what went before.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.learners.records import Source
from jaxshare.settings.fields import STEPS, static
from jaxshare.settings.shared import Agents
from jaxshare.training.replay import uniform_without_replacement
from jaxshare.types import EnvSpec, RefusedError


@dataclass(frozen=True)
class Windows(Agents):
    """What a batch is made of, and who reads it."""

    window: int = static(
        0,
        least=0,
        most=STEPS,
        note="1: single transitions.",
        help="steps of the pieces that batch_size counts; 0: whole episodes",
        source="code: PyMARL, EPyMARL; SEQL and the lecture have 1",
    )

    def check_window(self) -> None:
        """Raise RefusedError for what cannot be learned from windows."""
        if self.window and self.recurrent:
            raise RefusedError(
                f"algo.window={self.window}: recurrent agents need what went before. Use "
                "algo.recurrent=false, or algo.window=0 to learn from whole episodes."
            )
        # not even the action before
        if self.window and self.obs_last_action:
            raise RefusedError(
                f"algo.window={self.window}: the action before a window is not read. Use "
                "algo.obs_last_action=false, or algo.window=0 to learn from whole episodes."
            )


def window_source(window: int, spec: EnvSpec) -> Source:
    """A replay of which windows are drawn, or whole episodes.

    Raises RefusedError for a window that is longer than an episode.
    """
    if window > spec.episode_limit:
        raise RefusedError(
            f"algo.window={window} is longer than an episode of env={spec.name} "
            f"({spec.episode_limit} steps). Use algo.window=0 to learn from whole episodes."
        )
    return Source(sample=None if window else uniform_without_replacement, window=window)

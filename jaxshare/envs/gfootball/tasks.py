"""The academy tasks of Google Research Football."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """Who plays, who is seen, and whether ours all start in the other half."""

    agents: int
    opponents: int  # the first so many of the other team are observed
    forward: bool = True
    wings: tuple[int, ...] = ()  # agents that begin at the side of the field, the others amid it


# wings. paper: DIFFER's Table 2 counts types of agents, 1-2 and 2-2, and does not say which; ours:
# by the places where the game's scenarios put the players
TASKS = {
    "academy_3_vs_1_with_keeper": Task(3, 2, wings=(1, 2)),
    "academy_counterattack_hard": Task(4, 3, wings=(0, 3)),
    "academy_counterattack_easy": Task(4, 2),
    "academy_pass_and_shoot_with_keeper": Task(2, 2),
    "academy_run_pass_and_shoot_with_keeper": Task(2, 2),
    "academy_corner": Task(11, 11, forward=False),
    "academy_single_goal_versus_lazy": Task(11, 11, forward=False),
}

"""The academy tasks of Google Research Football."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """Who plays, who is seen, and whether ours all start in the other half."""

    agents: int
    opponents: int  # the first so many of the other team are observed
    forward: bool = True


TASKS = {
    "academy_3_vs_1_with_keeper": Task(3, 2),
    "academy_counterattack_hard": Task(4, 3),
    "academy_counterattack_easy": Task(4, 2),
    "academy_pass_and_shoot_with_keeper": Task(2, 2),
    "academy_run_pass_and_shoot_with_keeper": Task(2, 2),
    "academy_corner": Task(11, 11, forward=False),
    "academy_single_goal_versus_lazy": Task(11, 11, forward=False),
}

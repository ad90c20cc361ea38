"""Settings of level-based foraging, and which of them go together."""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.envs.lbf.task import Task, room
from jaxshare.settings.fields import flag, free_text, ranges, static, time_limit
from jaxshare.settings.validate import check_record, check_value
from jaxshare.types import RefusedError

REWARDS = ("individual", "sum")
RULES = ("v1", "v2", "v3")  # of the ids of lbforaging 1.0.15, 1.1.1 and 2.0.0
LEVELS = 2**15  # ours: the highest
FARTHEST = 100  # ours: sight; more than any grid, and few enough for `grid_observation`
SMALLEST = 5  # side of the grid; the original's ids have 5 to 19
LARGEST = 30  # ours: a row or a column is five bits of a cell's number


@dataclass(frozen=True)
class Config:
    """Settings of level-based foraging."""

    scenario: str = free_text(
        "8x8-2p-2f-coop",
        help="size, players and foods, as in the ids of lbforaging",
        source="paper: SEAC",
    )
    max_steps: int = time_limit(25, source="paper: SEAC; lbforaging's ids have 50")
    rules: str = static(
        "v3",
        choices=RULES,
        help="whose rules: of lbforaging 2.0.0 (v3), 1.0.15 (v1), or 1.1.1 (v2)",
        source="code: lbforaging; SEAC and EPyMARL's paper have v1",
    )
    reward: str = static(
        "individual",
        choices=REWARDS,
        help="to each agent its own, or to each the sum of all",
        source="code: lbforaging",
    )
    normalize_reward: bool = flag(
        True, help="all the food of an episode is worth 1 to the team", source="code: lbforaging"
    )
    penalty: float = static(
        0.0,
        least=0,
        note="It is subtracted.",
        help="what each agent pays for a LOAD that fails for want of level",
        source="code: lbforaging",
    )
    min_player_level: int = static(
        1, least=1, most=LEVELS, help="least level of a player", source="code: lbforaging's ids"
    )
    max_player_level: int = static(
        2, least=1, most=LEVELS, help="largest level of a player", source="code: lbforaging's ids"
    )
    max_food_level: int | None = static(
        None,
        least=1,
        most=LEVELS,
        help="largest level of a food; null: the sum of the three lowest player levels",
        source="code: lbforaging's ids",
    )
    sight: int | None = static(
        None,
        least=1,
        most=FARTHEST,
        help="how far agents see; null: as the scenario's name says (2s-), else the whole grid",
        source="code: lbforaging's ids",
    )
    grid_observation: bool = flag(
        False,
        help="agents see three layers of (2 * sight + 1)^2 cells; false: a list of what is there",
        source="code: lbforaging's ids",
    )
    mask_actions: bool = flag(
        False,
        help="actions that would do nothing are unavailable",
        source="code: lbforaging and EPyMARL show no mask",
    )


def check(config: Config, task: Task) -> None:
    """Raise RefusedError for a grid or settings that no game can have."""
    _check_grid(config, task)
    check_value("env.sight", task.sight, ranges(Config)["sight"])  # which may be the scenario's
    check_record(config, "env.")
    if config.rules != RULES[-1] and config.max_food_level is not None:
        raise RefusedError(
            f"env.max_food_level={config.max_food_level} is not in env.rules={config.rules}, whose "
            "food levels follow those of the players: leave it out, or take "
            f"env.rules={RULES[-1]}."
        )
    if config.max_player_level < config.min_player_level:
        raise RefusedError(
            f"env.max_player_level={config.max_player_level} is below "
            f"env.min_player_level={config.min_player_level}."
        )


def _check_grid(config: Config, task: Task) -> None:
    """Whether the grid has room for all who are to be on it."""
    scenario = f"env.scenario={config.scenario}"
    if not all(SMALLEST <= side <= LARGEST for side in (task.rows, task.cols)):
        raise RefusedError(
            f"{scenario}: both sides of the grid must lie between {SMALLEST} and {LARGEST}."
        )
    if task.players < 1 or task.foods < 1:
        raise RefusedError(f"{scenario}: needs at least one player and one food.")

    # foods keep their distance, players need cells to move to
    if task.foods > room(task):
        raise RefusedError(
            f"{scenario}: foods lie three moves apart and off the border, so this grid has room "
            f"for {room(task)}. Take a larger grid or fewer foods."
        )
    cells = task.rows * task.cols
    if task.players > cells // 2:
        raise RefusedError(f"{scenario}: players may fill at most half of the cells ({cells}).")

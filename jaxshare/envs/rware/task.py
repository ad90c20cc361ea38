"""What a scenario's name says of a warehouse, and what is refused of it."""

from __future__ import annotations

import re
from typing import TypeVar

from jaxshare.envs.rware.layout import Layout
from jaxshare.envs.rware.settings import Config
from jaxshare.registry import suggest
from jaxshare.settings.fields import ranges
from jaxshare.settings.validate import check_value
from jaxshare.types import RefusedError

T = TypeVar("T")

SCENARIOS = (
    "tiny-2ag",
    "tiny-2ag-hard",
    "tiny-2ag-easy",
    "tiny-4ag",
    "tiny-4ag-hard",
    "tiny-4ag-easy",
    "small-4ag",
    "small-4ag-hard",
    "small-4ag-easy",
    "medium-4ag",
    "large-4ag",
    "large-8ag",
)
SIZES = {  # shelf rows, shelf columns
    "tiny": (1, 3),
    "small": (2, 3),
    "medium": (2, 5),
    "large": (3, 5),
}
REQUESTS = {"-easy": 2.0, None: 1.0, "-hard": 0.5}  # per agent
PAYS = {"indiv": "individual", "global": "global", "twostage": "two-stage"}
IDS = re.compile(
    r"(rware-)?((?P<sight>\d+)s-)?"
    r"((?P<size>tiny|small|medium|large)|(?P<rows>\d+)x(?P<columns>\d+))(-(?P<height>\d+)h)?"
    r"-(?P<agents>\d+)ag(?P<difficulty>-easy|-hard)?(-(?P<requests>\d+)req)?"
    r"(-(?P<pays>indiv|global|twostage))?(-v2)?"
)
WORD = 32  # bits of a row


def read_layout(config: Config) -> Layout:
    """The warehouse that a scenario's name and the settings say.

    Raises RefusedError for an unknown name, and for what cannot be built or played.
    """
    name = config.scenario
    match = IDS.fullmatch(name)
    if not match:
        raise RefusedError(
            f"env.scenario={name} is not known.{suggest(name, SCENARIOS)} Known: "
            f"{', '.join(SCENARIOS)}, and others of the form "
            "{tiny,small,medium,large}-<n>ag[-easy|-hard]."
        )
    parts = match.groupdict()

    # sizes
    if parts["size"]:
        rows, columns = SIZES[parts["size"]]
    else:
        rows = int(parts["rows"])
        columns = int(parts["columns"])
    height = int(parts["height"] or 8)
    agents = int(parts["agents"])

    # what settings may say as well
    sight = int(parts["sight"]) if parts["sight"] else None
    pays = PAYS[parts["pays"]] if parts["pays"] else None
    sensor_range = _either(name, "sensor_range", config.sensor_range, sight, 1)
    reward_type = _either(name, "reward_type", config.reward_type, pays, "individual")
    layout = Layout(
        shelf_rows=rows,
        shelf_columns=columns,
        column_height=height,
        num_agents=agents,
        num_requests=_num_requests(name, parts),
        sensor_range=sensor_range,
        reward_type=reward_type,
    )
    _check_sizes(f"env.scenario={name}", layout)
    check_value("env.sensor_range", layout.sensor_range, ranges(Config)["sensor_range"])
    if layout.reward_type == "global" and config.reward == "sum":
        raise RefusedError(
            "env.reward=sum: reward_type=global pays every agent for all already; use "
            "reward=individual."
        )
    return layout


def _num_requests(name: str, parts: dict[str, str]) -> int:
    """Of the name itself, or of its difficulty."""
    if parts["difficulty"] and parts["requests"]:
        raise RefusedError(
            f"env.scenario={name}: the number of requests is given twice; leave one out."
        )
    if parts["requests"]:
        return int(parts["requests"])
    return int(int(parts["agents"]) * REQUESTS[parts["difficulty"]])


def _either(name: str, key: str, setting: T | None, in_name: T | None, usual: T) -> T:
    """What was set, else what the name says, else what is usual.

    Raises RefusedError where the first two differ.
    """
    if setting is not None and in_name is not None and setting != in_name:
        raise RefusedError(
            f"env.{key}={setting}, but env.scenario={name} says {in_name}: leave one of them out."
        )
    return next(value for value in (setting, in_name, usual) if value is not None)


def _check_sizes(key: str, layout: Layout) -> None:
    """Raise RefusedError for a map that cannot be, or has no room."""
    if min(layout.shelf_rows, layout.column_height, layout.num_agents) < 1:
        raise RefusedError(f"{key}: rows, column height and number of agents must be 1 or more.")
    if layout.shelf_columns % 2 == 0 or layout.width > WORD:
        raise RefusedError(
            f"{key}: the number of shelf columns must be odd and at most 9 (1, 3, 5, 7 or 9)."
        )

    # room for all
    cells = layout.height * layout.width
    shelves = int(layout.shelf_cells().sum())
    if layout.num_agents > cells:
        raise RefusedError(f"{key}: {layout.num_agents} agents do not fit in {cells} cells.")
    if not 1 <= layout.num_requests < shelves:
        raise RefusedError(
            f"{key}: {layout.num_requests} requests for {shelves} shelves; needed are at least "
            "one, and fewer than shelves. Take another number of agents or difficulty (-hard "
            "halves the requests, -easy doubles them)."
        )

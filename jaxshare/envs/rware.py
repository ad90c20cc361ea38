"""Multi-robot warehouse: robots fetch requested shelves, bring them to a goal, and put them back somewhere.

Source: rware 2.0.0 (Christianos et al. 2020, SEAC; Papoudakis et al. 2021), written anew in JAX.

Faithful, and tested step by step against the original: layouts, start states, turning, driving, loading and unloading,
who moves when robots compete for cells, deliveries, all three kinds of reward, observations for any sensor range. Ties
between equally long queues are decided as the original decides them: see `_rware_order`.
Departs, on purpose:

* The 500 steps are a time limit, hence `truncated`; the original calls this end a true one. `max_inactivity_steps`, off
  by default, is a true end.
* Shelves have no identity: nothing that can be seen depends on it. A new request is drawn, as in the original, evenly
  from the shelves that are not requested, but by another random generator.
* Robots send no messages (the original's `msg_bits` is 0 in all of its tasks), and observations are the flat ones.
* A task in which nothing can be delivered (`tiny-1ag-hard`: no request) or in which the original fails (as many
  requests as shelves) is refused.

The state is the observations of the robots, one after the other, as in EPyMARL. All actions are always available.

Observation: own column, row, whether loaded, direction (one of up, down, left, right), whether on a highway; then for
each cell of the square around the robot, row by row: robot there, its direction (up if nobody is there), shelf there,
shelf is requested.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.envs import _raster, _rware_rules
from jaxshare.envs._rware_rules import DOWN, EAST, UP, WEST, Layout, State
from jaxshare.registry import suggest
from jaxshare.settings.fields import STEPS, flag, free_text, ranges, static, time_limit
from jaxshare.settings.validate import check_record, check_value
from jaxshare.types import Array, Discrete, Env, EnvSpec, RefusedError, TimeStep

ACTIONS = "discrete"
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
SIZES = {
    "tiny": (1, 3),
    "small": (2, 3),
    "medium": (2, 5),
    "large": (3, 5),
}  # shelf rows, shelf columns
REQUESTS = {"-easy": 2.0, None: 1.0, "-hard": 0.5}  # per agent
REWARDS = ("individual", "sum")
REWARD_TYPES = ("individual", "global", "two-stage")
IDS = re.compile(
    r"(rware-)?((?P<sight>\d+)s-)?((?P<size>tiny|small|medium|large)|(?P<rows>\d+)x(?P<columns>\d+))(-(?P<height>\d+)h)?"
    r"-(?P<agents>\d+)ag(?P<difficulty>-easy|-hard)?(-(?P<requests>\d+)req)?(-(?P<pays>indiv|global|twostage))?(-v2)?"
)
PAYS = {"indiv": "individual", "global": "global", "twostage": "two-stage"}
WORD = 32


@dataclass(frozen=True)
class Config:
    """Settings of the warehouse."""

    scenario: str = free_text(
        "tiny-2ag",
        help="also small, medium, large, any number of agents, -easy, -hard",
        source="paper: SEAC's smallest",
    )
    max_steps: int = time_limit(500, source="code: rware")
    reward: str = static(
        "individual",
        choices=REWARDS,
        help="who delivers is paid, or every agent receives the sum over the team",
        source="code: rware",
    )
    reward_type: str | None = static(
        None,
        choices=REWARD_TYPES,
        help="what is paid for; null: individual, or what the scenario's name says",
        source="code: rware",
    )
    sensor_range: int | None = static(
        None,
        least=1,
        most=15,
        help="how far agents see; null: 1, or what the scenario's name says",
        source="code: rware",
    )
    normalised_coordinates: bool = flag(
        False,
        help="own column and row as numbers from 0 to 1",
        source="code: rware",
    )
    max_inactivity_steps: int | None = static(
        None,
        least=1,
        most=STEPS,
        note="null is off.",
        help="end after so many steps without a delivery; null: off",
        source="code: rware",
    )


def scenarios() -> tuple[str, ...]:
    """Names of the usual tasks; any other name of the original's pattern works too."""
    return SCENARIOS


def make(config: Config) -> Env:
    """One warehouse. Raises RefusedError for an unknown name and for impossible numbers."""
    _check(config)
    layout = _layout(config)
    window = (2 * layout.sensor_range + 1) ** 2
    obs_dim = 8 + 7 * window
    spec = EnvSpec(
        name=f"rware/{config.scenario}",
        num_agents=layout.num_agents,
        obs_dim=obs_dim,
        state_dim=layout.num_agents * obs_dim,
        action=Discrete(5),
        episode_limit=config.max_steps,
        groups=(0,) * layout.num_agents,
        group_names=("robot",),
        common_reward=config.reward == "sum"
        or layout.reward_type == "global"
        or layout.num_agents == 1,
    )
    return Env(
        spec=spec, reset=_reset(layout, config), step=_step(layout, config), render=_render(layout)
    )


def _check(config: Config) -> None:
    check_record(config, "env.")


def _layout(config: Config) -> Layout:
    """Reads the scenario's name, and refuses what cannot be built or played."""
    name = config.scenario
    found = IDS.fullmatch(name)
    if not found:
        raise RefusedError(
            f"env.scenario={name} is not known.{suggest(name, SCENARIOS)} Known: {', '.join(SCENARIOS)}, and others of "
            "the form {tiny,small,medium,large}-<n>ag[-easy|-hard]."
        )
    said = found.groupdict()
    rows, columns = (
        SIZES[said["size"]] if said["size"] else (int(said["rows"]), int(said["columns"]))
    )
    agents = int(said["agents"])
    if said["difficulty"] and said["requests"]:
        raise RefusedError(
            f"env.scenario={name}: the number of requests is given twice; leave one out."
        )
    requests = (
        int(said["requests"]) if said["requests"] else int(agents * REQUESTS[said["difficulty"]])
    )
    layout = Layout(
        shelf_rows=rows,
        shelf_columns=columns,
        column_height=int(said["height"] or 8),
        num_agents=agents,
        num_requests=requests,
        sensor_range=_either(
            name, "sensor_range", config.sensor_range, said["sight"] and int(said["sight"]), 1
        ),
        reward_type=_either(
            name,
            "reward_type",
            config.reward_type,
            said["pays"] and PAYS[said["pays"]],
            "individual",
        ),
    )
    _check_layout(name, layout, config)
    return layout


def _either(name: str, key: str, setting: Any, in_name: Any, usual: Any) -> Any:
    """What was set, else what the name says, else what is usual; refused where the first two differ."""
    if setting is not None and in_name is not None and setting != in_name:
        raise RefusedError(
            f"env.{key}={setting}, but env.scenario={name} says {in_name}: leave one of them out."
        )
    return next(value for value in (setting, in_name, usual) if value is not None)


def _check_layout(name: str, layout: Layout, config: Config) -> None:
    key = f"env.scenario={name}"
    if min(layout.shelf_rows, layout.column_height, layout.num_agents) < 1:
        raise RefusedError(f"{key}: rows, column height and number of agents must be 1 or more.")
    if layout.shelf_columns % 2 == 0 or layout.width > WORD:
        raise RefusedError(
            f"{key}: the number of shelf columns must be odd and at most 9 (1, 3, 5, 7 or 9)."
        )
    cells, shelves = layout.height * layout.width, int(layout.shelf_cells().sum())
    if layout.num_agents > cells:
        raise RefusedError(f"{key}: {layout.num_agents} agents do not fit in {cells} cells.")
    if not 1 <= layout.num_requests < shelves:
        raise RefusedError(
            f"{key}: {layout.num_requests} requests for {shelves} shelves; needed are at least one, and fewer than "
            "shelves. Take another number of agents or difficulty (-hard halves the requests, -easy doubles them)."
        )
    check_value("env.sensor_range", layout.sensor_range, ranges(Config)["sensor_range"])
    if layout.reward_type == "global" and config.reward == "sum":
        raise RefusedError(
            "env.reward=sum: reward_type=global pays every agent for all already; use reward=individual."
        )


def _reset(layout: Layout, config: Config) -> Callable[[Array], tuple[State, TimeStep]]:
    n, standing = layout.num_agents, layout.shelf_cells()
    shelf_y, shelf_x = (axis.astype(np.uint32) for axis in np.nonzero(standing))
    rows = np.arange(layout.height, dtype=np.uint32)
    observe = _rware_rules.observing(layout, config.normalised_coordinates)

    def reset(key: Array) -> tuple[State, TimeStep]:
        key_cell, key_direction, key_requests = jax.random.split(key, 3)
        cell = _distinct(key_cell, n, layout.height * layout.width)
        asked = _distinct(key_requests, layout.num_requests, len(shelf_x))
        bit = jnp.uint32(1) << jnp.asarray(shelf_x)[asked]
        in_row = jnp.asarray(shelf_y)[asked][:, None] == rows[None, :]
        state = State(
            x=cell % layout.width,
            y=cell // layout.width,
            direction=jax.random.randint(key_direction, (n,), 0, 4, jnp.int32),
            carrying=jnp.zeros(n, bool),
            wanted=jnp.zeros(n, bool),
            delivered=jnp.zeros(n, bool),
            shelves=jnp.asarray(
                np.sum(standing << np.arange(layout.width), axis=1, dtype=np.uint32)
            ),
            requests=jnp.sum(jnp.where(in_row, bit[:, None], 0), axis=0, dtype=jnp.uint32),
            steps=jnp.int32(0),
            inactive=jnp.int32(0),
        )
        no = jnp.zeros((), bool)
        zero = jnp.zeros((), jnp.float32)
        return state, _show(
            observe(state), jnp.zeros(n, jnp.float32), terminated=no, truncated=no, deliveries=zero
        )

    return reset


def _distinct(key: Array, number: int, total: int) -> Array:
    """`number` different integers below `total` in random order: the start of a shuffle, without a sort."""
    other = jax.random.randint(key, (number,), jnp.arange(number), total)

    def swap(i: Array, order: Array) -> Array:
        return order.at[i].set(order[other[i]]).at[other[i]].set(order[i])

    return jax.lax.fori_loop(0, number, swap, jnp.arange(total))[:number]


def _step(
    layout: Layout, config: Config
) -> Callable[[State, Array, Array], tuple[State, TimeStep]]:
    drive, deliver = _rware_rules.driving(layout), _rware_rules.delivering(layout)
    observe = _rware_rules.observing(layout, config.normalised_coordinates)

    def step(state: State, action: Array, key: Array) -> tuple[State, TimeStep]:
        state, put_back = _rware_rules.toggle(layout, drive(state, action), action)
        state, paid = deliver(state, _rware_rules.draws(layout, key))
        deliveries = jnp.sum(paid, dtype=jnp.float32)
        reward = _reward(layout.reward_type, paid, put_back, deliveries)
        if config.reward == "sum":
            reward = jnp.full_like(reward, jnp.sum(reward))
        steps, inactive = state.steps + 1, jnp.where(deliveries > 0, 0, state.inactive + 1)
        state = state.replace(steps=steps, inactive=inactive)  # type: ignore[attr-defined]
        limit = config.max_inactivity_steps
        terminated = jnp.zeros((), bool) if limit is None else inactive >= limit
        truncated = ~terminated & (steps >= config.max_steps)
        return state, _show(
            observe(state),
            reward,
            terminated=terminated,
            truncated=truncated,
            deliveries=deliveries,
        )

    return step


def _reward(kind: str, paid: Array, put_back: Array, deliveries: Array) -> Array:
    if kind == "global":
        return jnp.full(paid.shape, deliveries)
    if kind == "two-stage":
        return 0.5 * (paid.astype(jnp.float32) + put_back.astype(jnp.float32))
    return paid.astype(jnp.float32)


def _show(
    obs: Array, reward: Array, *, terminated: Array, truncated: Array, deliveries: Array
) -> TimeStep:
    n = obs.shape[0]
    return TimeStep(
        obs=obs,
        state=obs.reshape(-1),
        avail=jnp.ones((n, 5), bool),
        alive=jnp.ones(n, bool),
        reward=reward,
        terminated=terminated,
        truncated=truncated,
        info={"deliveries": deliveries},
    )


def _render(layout: Layout) -> Callable[[State], np.ndarray]:
    side = max(layout.height, layout.width)

    def render(state: State) -> np.ndarray:
        """The map as uint8 [300, 300, 3]: shelves grey, requested ones red, goals green, robots blue with a nose."""
        state = jax.device_get(state)
        picture = _raster.canvas(0.0, float(side))

        def square(x: float, y: float, margin: float, colour: _raster.Colour) -> None:
            picture.box(x + margin, side - 1 - y + margin, 1 - 2 * margin, 1 - 2 * margin, colour)

        for y in range(layout.height):
            for x in range(layout.width):
                if (x, y) in layout.goals:
                    square(x, y, 0.0, _raster.GREEN)
                if state.shelves[y] >> x & 1:
                    square(x, y, 0.08, _raster.RED if state.requests[y] >> x & 1 else _raster.GREY)
        for i in range(layout.num_agents):
            x, y, d = int(state.x[i]), int(state.y[i]), int(state.direction[i])
            if state.carrying[i]:
                square(x, y, 0.08, _raster.RED if state.wanted[i] else _raster.GREY)
            middle = x + 0.5, side - y - 0.5
            picture.disc(*middle, 0.3, _raster.BLUE)
            nose = 0.3 * ((d == EAST) - (d == WEST)), 0.3 * ((d == UP) - (d == DOWN))
            picture.disc(middle[0] + nose[0], middle[1] + nose[1], 0.14, _raster.BLUE)
        return picture.image

    return render

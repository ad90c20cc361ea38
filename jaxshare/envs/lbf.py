"""Level-based foraging: agents with levels collect food with levels on a grid. Own JAX code after lbforaging 2.0.0.

Sources: lbforaging 2.0.0 (Papoudakis et al. 2021, EPyMARL); Christianos et al. 2020 (SEAC) for the first four tasks and
their limit of 25 steps. A scenario is an id of that package, `Foraging-2s-8x8-2p-2f-coop-v3`, or its middle,
`2s-8x8-2p-2f-coop`: sight 2 (else the whole grid), 8 rows x 8 columns, 2 players, 2 foods, cooperation forced.

Faithful, and equal from the same state in the tests: moves, clashes, loading, rewards, observations, valid actions.
Start states are drawn from the same distribution:

* All agents move at once, each to its target; where two or more have the same target, none of these moves. One may
  enter a cell that another leaves, two may swap, and two end on one cell when one enters and the other's move fails.
* Foods are at least three moves apart, so no agent stands beside two: the order in which the original serves those who
  load comes from the addresses of Python objects, yet never matters.
* A food is drawn like the original's first valid of up to 1000 tries. Where players and foods leave no cell for another
  food there are fewer (one episode in nine of 5x5-..-2f), and their slots are empty.
* Partial sight has the original's slant: within `sight` of the top or left border, agents (not foods) are also seen
  beyond `sight` below or to the right, up to row or column 2 * `sight`. Coordinates count from the corner of the view.
* The remaining foods in scan order fill the first slots, so they shift when one is eaten; empty is (-1, -1, 0).

Departs, on purpose:

* The time limit is `truncated`; the original says done for both. The limit is SEAC's, not the original's 50.
* `reward=sum` pays the sum of the rewards to every agent.
* Rows and columns may differ, and the grid observation is offered; the original has code for both, but its own check of
  the observation space stops it (with gymnasium 1.3).
* All foods share one range of levels, all players another; the original can have a range for each.
* With `mask_actions` the original's private valid actions are shown. An invalid action does nothing, masked or not.

Rules of older versions. `rules=v3` is lbforaging 2.0.0 (ids -v3), `v2` is 1.1.1 (ids -v2), `v1` is 1.0.15 (ids -v1).
SEAC pins 1.0.15; EPyMARL's first version named ids -v1, then -v2, its second -v3. Results under one are not those under
another: food that needs both of two players is 8.3 % of all in v1 and v2, 41.7 % in v3; food that needs all of three
2.5 % and 25.2 %. Differences of v1 (v2 has the first only):

* Without forced cooperation a food's level is drawn from 1 to S - 1, where S is the sum of the three lowest player
  levels; v3 draws from 1 to S. (code: numpy's randint leaves out its upper end; S = 1 gives level 1.)
* No player starts in the last row or in the last column.

Alike in all three, step by step and in the distribution of starts: player levels (1 and 2; the older constructors say
3, an end that is left out), foods off the border and three moves apart, moves and clashes, loading, rewards and how
they are normalised, forced cooperation (level S), sight with its slant, layout of observations, the ids' 50 steps.
Not in the older ones: `max_food_level` (refused here) and `min_player_level`; v1 has neither `penalty` nor
`grid_observation`. These three mean here what they mean in v3.

The state is what an agent with full sight knows, in fixed places: (row, column, level) of every food in scan order,
(-1, -1, 0) once eaten, and of every player.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxshare.envs import _lbf_views as views
from jaxshare.registry import suggest
from jaxshare.settings.fields import flag, free_text, ranges, static, time_limit
from jaxshare.settings.validate import check_record, check_value
from jaxshare.types import Array, Discrete, Env, EnvSpec, RefusedError, TimeStep

ACTIONS = "discrete"
SCENARIOS = (
    "8x8-2p-2f-coop",  # SEAC, as the next three
    "10x10-3p-3f",
    "12x12-2p-1f",
    "15x15-3p-4f",
    "8x8-2p-3f",  # EPyMARL's example
    "2s-8x8-2p-2f-coop",  # EPyMARL's benchmark, as the rest; lbforaging 2.0.0 registers no ids with five foods
    "2s-10x10-3p-3f",
    "15x15-3p-5f",
    "15x15-4p-3f",
    "15x15-4p-5f",
)
PATTERN = re.compile(
    r"(?:foraging-)?(?:(\d+)s-)?(\d+)x(\d+)-(\d+)p-(\d+)f(-coop)?(?:-v3)?", re.IGNORECASE
)
OLDER = re.compile(r"(?:foraging-)?((?:\d+s-)?\d+x\d+-\d+p-\d+f(?:-coop)?)-(v[12])", re.IGNORECASE)
REWARDS = ("individual", "sum")
RULES = ("v1", "v2", "v3")  # of the ids of lbforaging 1.0.15, 1.1.1 and 2.0.0
LEVELS = 2**15  # ours: the highest
FARTHEST = 100  # ours: sight; more than any grid, and few enough for `grid_observation`
SMALLEST, LARGEST = 5, 30  # the original's ids have sides of 5 to 19
NONE, NORTH, SOUTH, WEST, EAST, LOAD = range(6)
NUM_ACTIONS = 6
APART = 2  # two foods are more moves apart than this
COLUMN_BITS, CELL_BITS = 5, 10  # a cell as one number: row * 32 + column


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


class Task(NamedTuple):
    """What an id says, with the settings that may add to it."""

    name: str
    rows: int
    cols: int
    players: int
    foods: int
    coop: bool
    sight: int


@struct.dataclass
class State:
    """One game. A food of level 0 is eaten, or was never there."""

    row: Array  # [N] i32
    col: Array  # [N] i32
    level: Array  # [N] i32
    food_row: Array  # [F] i32, foods in scan order
    food_col: Array  # [F] i32
    food_level: Array  # [F] i32
    num_spawned: Array  # [] i32
    spawned_level: Array  # [] i32: sum of the levels of all foods at the start
    step: Array  # [] i32


def scenarios() -> tuple[str, ...]:
    """The usual tasks; every other id of the pattern works too."""
    return SCENARIOS


def make(config: Config) -> Env:
    """Level-based foraging. Raises RefusedError for an id that is none and for impossible settings."""
    task = parse(config.scenario, config.sight)
    _check(config, task)
    n, f = task.players, task.foods
    spec = EnvSpec(
        name=f"lbf/{task.name}{'' if config.rules == RULES[-1] else f'-{config.rules}'}",
        num_agents=n,
        obs_dim=3 * (2 * task.sight + 1) ** 2 if config.grid_observation else 3 * (f + n),
        state_dim=3 * (f + n),
        action=Discrete(NUM_ACTIONS),
        episode_limit=config.max_steps,
        groups=(0,) * n,
        group_names=("agent",),
        common_reward=config.reward == "sum",
    )
    show = _show(config, task)
    return Env(
        spec=spec,
        reset=_reset(config, task, show),
        step=_step(config, task, show),
        render=views.render(task.rows, task.cols),
    )


def parse(scenario: str, sight: int | None = None) -> Task:
    """An id in its parts. Raises RefusedError if it is not one, or contradicts `sight`."""
    match = PATTERN.fullmatch(scenario)
    if match is None:
        older = OLDER.fullmatch(scenario)
        if older is not None:
            raise RefusedError(
                f"env.scenario={scenario} is an id of an older lbforaging: take env.scenario={older[1]} "
                f"env.rules={older[2].lower()}."
            )
        raise RefusedError(
            f"env.scenario={scenario} is not known.{suggest(scenario, SCENARIOS)} Expected sight (optional), size, "
            f"players, foods and cooperation (optional) as in 2s-8x8-2p-2f-coop. Usual: {', '.join(SCENARIOS)}."
        )
    seen, *numbers, coop = match.groups()
    rows, cols, players, foods = (int(number) for number in numbers)
    if seen is not None and sight is not None and int(seen) != sight:
        raise RefusedError(
            f"env.sight={sight} contradicts env.scenario={scenario}: leave out one of them."
        )
    if seen is not None:
        sight = int(seen)
    name = f"{'' if sight is None else f'{sight}s-'}{rows}x{cols}-{players}p-{foods}f{'-coop' if coop else ''}"
    return Task(
        name,
        rows,
        cols,
        players,
        foods,
        coop is not None,
        max(rows, cols) if sight is None else sight,
    )


def _check(config: Config, task: Task) -> None:
    scenario = f"env.scenario={config.scenario}"
    if not all(SMALLEST <= side <= LARGEST for side in (task.rows, task.cols)):
        raise RefusedError(
            f"{scenario}: both sides of the grid must lie between {SMALLEST} and {LARGEST}."
        )
    if task.players < 1 or task.foods < 1:
        raise RefusedError(f"{scenario}: needs at least one player and one food.")
    if task.foods > room(task):
        raise RefusedError(
            f"{scenario}: foods lie three moves apart and off the border, so this grid has room for {room(task)}. "
            "Take a larger grid or fewer foods."
        )
    if task.players > (task.rows * task.cols) // 2:
        raise RefusedError(
            f"{scenario}: players may fill at most half of the cells ({task.rows * task.cols})."
        )
    check_value("env.sight", task.sight, ranges(Config)["sight"])  # which may be the scenario's
    check_record(config, "env.")
    if config.rules != RULES[-1] and config.max_food_level is not None:
        raise RefusedError(
            f"env.max_food_level={config.max_food_level} is not in env.rules={config.rules}, whose food levels follow "
            f"those of the players: leave it out, or take env.rules={RULES[-1]}."
        )
    if config.max_player_level < config.min_player_level:
        raise RefusedError(
            f"env.max_player_level={config.max_player_level} is below env.min_player_level={config.min_player_level}."
        )


def room(task: Task) -> int:
    """How many foods a regular pattern of cells three moves apart fits into the grid without its border."""
    row, col = np.mgrid[: task.rows - 2, : task.cols - 2]
    return int(np.bincount(((row + 2 * col) % 5).ravel()).max())


def _placing(config: Config, task: Task) -> Callable[[Array], tuple[Array, Array]]:
    """See `place` in it."""
    row, col = _cells(task)
    cell = row << COLUMN_BITS | col
    entry = np.ones(cell.size, bool)  # cells where players start
    if config.rules == "v1":  # code: numpy's randint, whose upper end is not drawn
        entry = (row < task.rows - 1) & (col < task.cols - 1)
    inner = (row > 0) & (row < task.rows - 1) & (col > 0) & (col < task.cols - 1)

    def place(bits: Array) -> tuple[Array, Array]:
        """Cells of the players [N] and of the foods [F] in scan order, -1 for those without room.

        Random tries until one is valid visit the cells in a random order. All share one order here,
        as none that was passed over becomes valid later.
        """
        # the cell also breaks ties
        order = ((bits >> (CELL_BITS + 1)) << CELL_BITS).astype(jnp.int32) | cell

        # players: the first cells of the order, no inner one is lost
        players = []
        order = jnp.where(entry, order, -1)
        for _ in range(task.players):
            best = jnp.max(order)
            order = jnp.where(order == best, -1, order)
            players.append(best & (2**CELL_BITS - 1))

        # foods: the first inner cells that are not too near to another
        foods = []
        order = jnp.where(inner, order, -1)
        for _ in range(task.foods):
            best = jnp.max(order)
            taken = best & (2**CELL_BITS - 1)
            rows_away = jnp.abs(row - (taken >> COLUMN_BITS))
            cols_away = jnp.abs(col - (taken & (2**COLUMN_BITS - 1)))
            order = jnp.where(rows_away + cols_away > APART, order, -1)
            foods.append(jnp.where(best >= 0, taken, 2**CELL_BITS))
        ordered = jnp.stack(_ascending(foods))
        return jnp.stack(players), jnp.where(ordered < 2**CELL_BITS, ordered, -1)

    return place


def _cells(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of every cell of the grid, in scan order."""
    row, col = np.mgrid[: task.rows, : task.cols]
    return row.ravel().astype(np.int32), col.ravel().astype(np.int32)


def _reset(
    config: Config, task: Task, show: Callable[..., TimeStep]
) -> Callable[[Array], tuple[State, TimeStep]]:
    n, f = task.players, task.foods
    num_cells = task.rows * task.cols
    place = _placing(config, task)

    def reset(key: Array) -> tuple[State, TimeStep]:
        bits = jax.random.bits(key, (num_cells + n + f,))
        drawn = (bits[num_cells:] >> 1).astype(jnp.int32)
        player, food = place(bits[:num_cells])
        level = config.min_player_level + drawn[:n] % (
            config.max_player_level - config.min_player_level + 1
        )
        lowest = sum(_ascending(list(level))[:3], start=jnp.zeros((), jnp.int32))
        most = lowest if config.max_food_level is None else jnp.int32(config.max_food_level)
        choices = most if config.rules == "v3" else jnp.maximum(most - 1, 1)
        food_level = jnp.broadcast_to(most, (f,)) if task.coop else 1 + drawn[n:] % choices
        present = food >= 0
        food_level = jnp.where(present, food_level, 0)
        state = State(
            row=player >> COLUMN_BITS,
            col=player & (2**COLUMN_BITS - 1),
            level=level,
            food_row=jnp.where(present, food >> COLUMN_BITS, -1),
            food_col=jnp.where(present, food & (2**COLUMN_BITS - 1), -1),
            food_level=food_level,
            num_spawned=jnp.sum(present, dtype=jnp.int32),
            spawned_level=jnp.sum(food_level),
            step=jnp.zeros((), jnp.int32),
        )
        return state, show(state, jnp.zeros(n, jnp.float32), jnp.zeros((), jnp.float32))

    return reset


def _ascending(numbers: list[Array]) -> list[Array]:
    """Sorted by exchanges of neighbours: on so few XLA's own sort is slower, and slow to compile."""
    for k in range(len(numbers)):
        for i in range(k % 2, len(numbers) - 1, 2):
            low, high = (
                jnp.minimum(numbers[i], numbers[i + 1]),
                jnp.maximum(numbers[i], numbers[i + 1]),
            )
            numbers[i : i + 2] = [low, high]
    return numbers


def _step(
    config: Config, task: Task, show: Callable[..., TimeStep]
) -> Callable[[State, Array, Array], tuple[State, TimeStep]]:
    other = ~np.eye(task.players, dtype=bool)

    def step(state: State, action: Array, key: Array) -> tuple[State, TimeStep]:
        food_level = state.food_level
        row = state.row + (action == SOUTH) - (action == NORTH)
        col = state.col + (action == EAST) - (action == WEST)
        inside = (row >= 0) & (row < task.rows) & (col >= 0) & (col < task.cols)
        away = _moves(row, col, state)
        legal = inside & jnp.all((away > 0) | (food_level == 0)[None], axis=1)
        row, col = jnp.where(legal, row, state.row), jnp.where(legal, col, state.col)
        clash = jnp.any((row[:, None] == row[None]) & (col[:, None] == col[None]) & other, axis=1)
        row, col = jnp.where(clash, state.row, row), jnp.where(clash, state.col, col)
        # those who load stay, so `away` is measured from where they stand
        loading = (action == LOAD)[:, None] & (away == 1) & (food_level > 0)[None]  # [N, F]
        strength = jnp.sum(jnp.where(loading, state.level[:, None], 0), axis=0)
        eaten = (strength >= food_level) & (strength > 0)
        worth = jnp.where(eaten, food_level, 0).astype(jnp.float32)
        if config.normalize_reward:
            worth = worth / jnp.maximum(strength * state.spawned_level, 1).astype(jnp.float32)
        gain = worth[None] * state.level.astype(jnp.float32)[:, None]
        if config.penalty:
            gain = jnp.where(eaten[None], gain, -config.penalty)
        reward = jnp.sum(jnp.where(loading, gain, 0.0), axis=1)
        state = state.replace(  # type: ignore[attr-defined]
            row=row, col=col, food_level=jnp.where(eaten, 0, food_level), step=state.step + 1
        )
        eaten_share = jnp.sum(eaten) / jnp.maximum(state.num_spawned, 1).astype(jnp.float32)
        return state, show(state, reward, eaten_share)

    return step


def _moves(row: Array, col: Array, state: State) -> Array:
    """How many moves each of the cells [N] is away from each food's [F]."""
    return jnp.abs(row[:, None] - state.food_row[None]) + jnp.abs(
        col[:, None] - state.food_col[None]
    )


def _show(config: Config, task: Task) -> Callable[[State, Array, Array], TimeStep]:
    n = task.players
    if config.grid_observation:
        observe = views.observe_grid(task.rows, task.cols, task.sight)
    elif task.sight >= max(task.rows, task.cols) - 1:
        observe = views.observe_all
    else:
        observe = views.observe_near(task.sight)

    def show(state: State, reward: Array, eaten_share: Array) -> TimeStep:
        players, foods = _tables(state)
        if config.reward == "sum":
            reward = jnp.broadcast_to(jnp.sum(reward), (n,))
        terminated = jnp.all(state.food_level == 0) & (state.step > 0)
        return TimeStep(
            obs=observe(players, foods, state.food_level > 0),
            state=jnp.concatenate([foods, players]).reshape(-1).astype(jnp.float32),
            avail=_valid(task, state) if config.mask_actions else jnp.ones((n, NUM_ACTIONS), bool),
            alive=jnp.ones(n, bool),
            reward=reward,
            terminated=terminated,
            truncated=(state.step >= config.max_steps) & ~terminated,
            info={"food_eaten": eaten_share},
        )

    return show


def _tables(state: State) -> tuple[Array, Array]:
    """(row, column, level) of the players [N, 3] and of the foods [F, 3], (-1, -1, 0) for those that are not there."""
    present = state.food_level > 0
    players = jnp.stack([state.row, state.col, state.level], axis=1)
    row, col = (jnp.where(present, x, -1) for x in (state.food_row, state.food_col))
    return players, jnp.stack([row, col, state.food_level], axis=1)


def _valid(task: Task, state: State) -> Array:
    """The original's valid actions [N, 6]: moves to a cell of the grid without food, loading beside a food."""
    column = []
    for down, right in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)):
        row, col = state.row + down, state.col + right
        clear = jnp.all((_moves(row, col, state) > 0) | (state.food_level == 0)[None], axis=1)
        column.append(views.within(row, task.rows) & views.within(col, task.cols) & clear)
    beside = (_moves(state.row, state.col, state) == 1) & (state.food_level > 0)[None]
    return jnp.stack([*column, jnp.any(beside, axis=1)], axis=1)

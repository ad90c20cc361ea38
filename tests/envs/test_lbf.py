"""Level-based foraging: its rules by hand, its ends, options and refusals. test_lbf_parity.py has the original."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxshare.envs import _raster
from jaxshare.envs.lbf import environment as lbf
from jaxshare.envs.lbf.state import State
from jaxshare.envs.lbf.task import parse
from jaxshare.types import RefusedError

NONE, NORTH, SOUTH, WEST, EAST, LOAD = range(6)
SIZES = {  # agents, obs, state
    "8x8-2p-2f-coop": (2, 12, 12),
    "10x10-3p-3f": (3, 18, 18),
    "12x12-2p-1f": (2, 9, 9),
    "15x15-3p-4f": (3, 21, 21),
    "8x8-2p-3f": (2, 15, 15),
    "2s-8x8-2p-2f-coop": (2, 12, 12),
    "2s-10x10-3p-3f": (3, 18, 18),
    "15x15-3p-5f": (3, 24, 24),
    "15x15-4p-3f": (4, 21, 21),
    "15x15-4p-5f": (4, 27, 27),
}


@cache
def jitted(**settings):
    env = lbf.make(lbf.Config(**settings))
    return env, jax.jit(env.step)


def game(players, foods, step=0):
    """A state: players and foods are (row, column, level), foods in scan order."""
    row, col, level = jnp.array(players, jnp.int32).T
    food_row, food_col, food_level = jnp.array(foods, jnp.int32).T
    return State(
        row, col, level, food_row, food_col, food_level, jnp.int32(len(foods)), food_level.sum(), jnp.int32(step)
    )


def play(state, *actions, scenario="8x8-3p-2f", **settings):
    """The state and TimeStep after these joint actions."""
    step = jitted(scenario=scenario, **settings)[1]
    for action in actions:
        state, shown = step(state, jnp.array(action, jnp.int32), jax.random.key(0))
    return state, shown


def cells(state):
    return list(zip(state.row.tolist(), state.col.tolist(), strict=True))


FOODS = [(2, 2, 3), (5, 5, 1)]


@pytest.mark.parametrize(("scenario", "sizes"), SIZES.items())
def test_sizes(scenario, sizes):
    spec = lbf.make(lbf.Config(scenario=scenario)).spec
    assert (spec.num_agents, spec.obs_dim, spec.state_dim) == sizes
    assert (spec.action.num_actions, spec.episode_limit, spec.common_reward) == (6, 25, False)
    assert spec.name == f"lbf/{scenario}"
    assert spec.groups == (0,) * spec.num_agents
    assert set(SIZES) == set(lbf.scenarios())


@pytest.mark.parametrize(
    ("written", "name", "sight"),
    [
        ("Foraging-2s-8x8-2p-2f-coop-v3", "2s-8x8-2p-2f-coop", 2),
        ("foraging-9x6-4p-2f", "9x6-4p-2f", 9),
        ("FORAGING-15x15-3p-5f-V3", "15x15-3p-5f", 15),
        ("3s-12x12-2p-1f-v3", "3s-12x12-2p-1f", 3),
    ],
)
def test_ids(written, name, sight):
    task = parse(written)
    assert (task.name, task.sight) == (name, sight)
    assert lbf.make(lbf.Config(scenario=written)).spec.name == f"lbf/{name}"


def test_sight_as_a_setting():
    assert parse("8x8-2p-2f", sight=2) == parse("2s-8x8-2p-2f", sight=2) == parse("2s-8x8-2p-2f")


@pytest.mark.parametrize(
    ("players", "action", "expected"),
    [
        ([(0, 0), (0, 1), (7, 7)], (EAST, WEST, SOUTH), [(0, 1), (0, 0), (7, 7)]),  # two swap; a wall
        ([(0, 0), (0, 1), (0, 2)], (EAST, EAST, EAST), [(0, 1), (0, 2), (0, 3)]),  # each enters what another leaves
        ([(0, 0), (0, 2), (7, 0)], (EAST, WEST, NORTH), [(0, 0), (0, 2), (6, 0)]),  # two to one cell: both stay
        ([(0, 0), (0, 1), (6, 6)], (EAST, NONE, NONE), [(0, 0), (0, 1), (6, 6)]),  # one stays there
        ([(0, 0), (0, 1), (0, 3)], (EAST, EAST, WEST), [(0, 1), (0, 1), (0, 3)]),  # enters, and the other's move fails
        ([(0, 1), (0, 1), (6, 6)], (NONE, NONE, NONE), [(0, 1), (0, 1), (6, 6)]),  # two on one cell
        ([(0, 1), (0, 1), (6, 6)], (EAST, EAST, NONE), [(0, 1), (0, 1), (6, 6)]),
        ([(0, 1), (0, 1), (6, 6)], (EAST, NONE, NONE), [(0, 2), (0, 1), (6, 6)]),
        ([(2, 1), (1, 1), (5, 4)], (EAST, SOUTH, EAST), [(2, 1), (1, 1), (5, 4)]),  # a food is no target: it stays
        ([(2, 1), (2, 0), (6, 6)], (LOAD, EAST, NONE), [(2, 1), (2, 0), (6, 6)]),  # who loads holds the cell
    ],
)
def test_moves(players, action, expected):
    state, _ = play(game([(*cell, 1) for cell in players], FOODS), action)
    assert cells(state) == expected


@pytest.mark.parametrize(
    ("levels", "action", "reward", "levels_left"),
    [
        ((1, 2, 2), (LOAD, LOAD, NONE), (1 * 3 / (3 * 4), 2 * 3 / (3 * 4), 0), [0, 1]),  # shared by level
        ((1, 2, 2), (LOAD, NONE, NONE), (0, 0, 0), [3, 1]),  # too weak alone
        ((1, 1, 2), (LOAD, LOAD, LOAD), (0, 0, 2 * 1 / (2 * 4)), [3, 0]),  # two groups, one of them strong enough
        ((3, 2, 2), (LOAD, LOAD, LOAD), (3 * 3 / (5 * 4), 2 * 3 / (5 * 4), 1 / 4), [0, 0]),  # stronger than needed
    ],
)
def test_loading(levels, action, reward, levels_left):
    players = [(2, 1, levels[0]), (1, 2, levels[1]), (5, 4, levels[2])]
    state, shown = play(game(players, FOODS), action)
    np.testing.assert_allclose(shown.reward, reward, rtol=1e-6)
    assert state.food_level.tolist() == levels_left
    assert float(shown.info["food_eaten"]) == levels_left.count(0) / 2
    assert bool(shown.terminated) == (levels_left == [0, 0])
    assert shown.alive.tolist() == [True] * 3


def test_rewards_unnormalised_with_penalty_and_summed():
    state = game([(2, 1, 1), (1, 2, 1), (5, 4, 2)], FOODS)
    options = {"normalize_reward": False, "penalty": 0.25}
    _, shown = play(state, (LOAD, LOAD, LOAD), **options)
    assert shown.reward.tolist() == [-0.25, -0.25, 2.0]
    _, shown = play(state, (LOAD, LOAD, LOAD), reward="sum", **options)
    assert shown.reward.tolist() == [1.5] * 3
    _, shown = play(state, (LOAD, NORTH, NORTH), **options)
    assert shown.reward.tolist() == [-0.25, 0, 0]
    far = game([(0, 0, 1), (0, 1, 1), (0, 2, 2)], FOODS)
    assert play(far, (LOAD, LOAD, LOAD), **options)[1].reward.tolist() == [0, 0, 0], "nothing to load costs nothing"
    assert lbf.make(lbf.Config(reward="sum")).spec.common_reward


def test_observation_lists_itself_first_and_closes_gaps():
    state, shown = play(game([(2, 1, 3), (1, 2, 2), (5, 4, 1)], FOODS), (NONE, NONE, NONE))
    a, b, c = [2, 1, 3], [1, 2, 2], [5, 4, 1]
    foods = [2, 2, 3, 5, 5, 1]
    assert shown.obs.tolist() == [[*foods, *a, *b, *c], [*foods, *b, *a, *c], [*foods, *c, *a, *b]]
    assert shown.state.tolist() == [*foods, *a, *b, *c]
    _, shown = play(state, (LOAD, NONE, NONE))
    assert shown.obs[2].tolist() == [5, 5, 1, -1, -1, 0, *c, *a, *b], "the second food moved up"
    assert shown.state.tolist() == [-1, -1, 0, 5, 5, 1, *a, *b, *c], "places in the state are fixed"


def test_partial_sight_and_its_slant():
    """Agent 0 at (1, 1) sees foods up to (3, 3), but agents up to (4, 4); agent 2 at (5, 5) as far as it should."""
    state = game([(1, 1, 1), (4, 4, 2), (5, 5, 3)], [(3, 3, 1), (6, 2, 2)])
    _, shown = play(state, (NONE, NONE, NONE), scenario="2s-8x8-3p-2f")
    none = [-1, -1, 0]
    assert shown.obs[0].tolist() == [3, 3, 1, *none, 1, 1, 1, 4, 4, 2, *none]
    assert shown.obs[1].tolist() == [1, 1, 1, 4, 0, 2, 2, 2, 2, 3, 3, 3, *none]
    assert shown.obs[2].tolist() == [0, 0, 1, *none, 2, 2, 3, 1, 1, 2, *none]


def test_grid_observation():
    state = game([(0, 1, 1), (1, 1, 2), (5, 5, 2)], [(1, 2, 3), (5, 2, 1)])
    settings = {"scenario": "8x8-3p-2f", "sight": 1, "grid_observation": True}
    _, shown = play(state, (NONE, NONE, NONE), **settings)
    assert jitted(**settings)[0].spec.obs_dim == 27
    agents, foods, free = shown.obs[0].reshape(3, 3, 3).tolist()
    assert agents == [[0, 0, 0], [0, 1, 0], [0, 2, 0]]
    assert foods == [[0, 0, 0], [0, 0, 0], [0, 0, 3]]
    assert free == [[0, 0, 0], [1, 0, 1], [1, 0, 0]]


def test_mask_shows_valid_actions_and_an_invalid_one_does_nothing():
    state = game([(2, 1, 1), (0, 0, 1), (7, 7, 1)], FOODS)
    before, shown = play(state, (NONE, NONE, NONE))
    assert shown.avail.all()
    _, masked = play(state, (NONE, NONE, NONE), mask_actions=True)
    assert masked.avail.astype(int).tolist() == [[1, 1, 1, 1, 0, 1], [1, 0, 1, 0, 1, 0], [1, 1, 0, 1, 0, 0]]
    for settings in ({}, {"mask_actions": True}):
        after, _ = play(before, (EAST, WEST, LOAD), **settings)
        assert cells(after) == cells(before)


@cache
def episodes():
    """512 episodes of 25 steps, agents that load whenever they can: starts, and TimeSteps [T+1, B, ...]."""
    env = lbf.make(lbf.Config(scenario="6x6-3p-2f", mask_actions=True))

    def step(carry, key):
        state, shown = carry
        keys = jax.random.split(key, 2)
        anything = jax.random.categorical(keys[0], jnp.where(shown.avail, 0.0, -jnp.inf))
        action = jnp.where(shown.avail[..., LOAD], LOAD, anything).astype(jnp.int32)
        carry = jax.vmap(env.step)(state, action, jax.random.split(keys[1], 512))
        return carry, carry[1]

    def run(key):
        start, first = jax.vmap(env.reset)(jax.random.split(key, 512))
        _, later = jax.lax.scan(step, (start, first), jax.random.split(key, 25))
        return start, jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, later)

    return jax.device_get(jax.jit(run)(jax.random.key(0)))


def test_episodes_end_by_eating_all_or_at_the_limit():
    start, shown = episodes()
    present = shown.state.reshape(26, 512, 5, 3)[:, :, :2, 2] > 0
    np.testing.assert_array_equal(shown.terminated, ~present.any(-1))
    np.testing.assert_array_equal(shown.truncated[:25], False)
    np.testing.assert_array_equal(shown.truncated[25], ~shown.terminated[25])
    finished = shown.terminated[25]
    assert 50 < finished.sum() < 500
    np.testing.assert_allclose(shown.reward.sum((0, 2))[finished], 1.0, rtol=1e-5)
    assert np.all(shown.reward.sum((0, 2))[~finished] < 0.99)
    eaten = 1 - present[25].sum(1) / start.num_spawned
    np.testing.assert_allclose(shown.info["food_eaten"].sum(0), eaten, rtol=1e-6)


@pytest.mark.parametrize(("before", "last", "ends"), [(24, True, "terminated"), (24, False, "truncated"), (23, 0, "")])
def test_eating_the_last_food_at_the_limit_is_termination(before, last, ends):
    state = game([(2, 1, 1), (2, 3, 2), (5, 4, 1)], FOODS, step=before)
    _, shown = play(state, (LOAD, LOAD, LOAD if last else NONE))
    assert (bool(shown.terminated), bool(shown.truncated)) == (ends == "terminated", ends == "truncated")


def test_starts_keep_the_rules():
    start, shown = episodes()
    row, col, level = start.food_row, start.food_col, start.food_level
    both = start.num_spawned == 2
    assert both.mean() > 0.9
    present = level > 0
    for x in (row, col):
        assert np.all((x[present] >= 1) & (x[present] <= 4))
        assert np.all(x[~present] == -1)
    apart = np.abs(row[:, 0] - row[:, 1]) + np.abs(col[:, 0] - col[:, 1])
    assert apart[both].min() == 3
    assert np.all((row * 6 + col)[both, 0] < (row * 6 + col)[both, 1]), "in scan order"
    taken = np.concatenate([start.row * 6 + start.col, np.where(present, row * 6 + col, [-1, -2])], axis=1)
    assert np.all(np.diff(np.sort(taken, axis=1), axis=1) > 0), "no two things on one cell"
    assert set(start.level.ravel()) == {1, 2}
    assert np.all(level <= start.level.sum(1, keepdims=True))
    np.testing.assert_array_equal(start.spawned_level, level.sum(1))
    np.testing.assert_array_equal(shown.obs[0, :, 0, 6:9], np.stack([start.row, start.col, start.level], -1)[:, 0])


def test_levels_of_food():
    def levels(count=256, **settings):
        env = lbf.make(lbf.Config(**settings))
        start = jax.jit(jax.vmap(lambda key: env.reset(key)[0]))(jax.random.split(jax.random.key(0), count))
        return np.asarray(start.food_level), np.sort(start.level)[:, :3].sum(1, keepdims=True)

    food, most = levels(scenario="9x9-5p-2f-coop", max_player_level=4)
    np.testing.assert_array_equal(food, np.broadcast_to(most, food.shape))
    assert set(levels(scenario="9x9-2p-2f", max_food_level=5, max_player_level=1)[0].ravel()) == {1, 2, 3, 4, 5}
    assert set(levels(scenario="9x9-2p-2f-coop", max_food_level=5)[0].ravel()) == {5}


def test_same_key_same_game_and_alone_as_inside_a_batch():
    start, shown = episodes()
    env = lbf.make(lbf.Config(scenario="6x6-3p-2f", mask_actions=True))
    keys = jax.random.split(jax.random.key(0), 512)
    alone = jax.jit(env.reset)(keys[7])
    jax.tree.map(np.testing.assert_array_equal, alone, jax.tree.map(lambda x: x[7], (start, first(shown))))
    assert len(np.unique(first(shown).state, axis=0)) > 500


def first(shown):
    return jax.tree.map(lambda x: x[0], shown)


def test_picture_shows_levels_and_no_eaten_food():
    env = lbf.make(lbf.Config(scenario="9x6-2p-2f"))
    state = game([(0, 0, 1), (8, 5, 2)], FOODS)
    picture = env.render(state)
    assert (picture.shape, picture.dtype) == ((300, 300, 3), np.uint8)
    green, blue = (np.all(picture == colour, axis=-1) for colour in (_raster.GREEN, _raster.BLUE))
    cell = 300 / 9
    for row, col, mask in ((2, 2, green), (5, 5, green), (0, 0, blue), (8, 5, blue)):
        assert mask[int((row + 0.25) * cell), int((col + 0.3) * cell)]
    assert not np.array_equal(picture, env.render(state.replace(level=jnp.array([3, 2]))))
    left = np.all(env.render(state.replace(food_level=jnp.array([0, 1]))) == _raster.GREEN, axis=-1)
    assert 0 < left.sum() < 0.6 * green.sum()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scenario": "8x8-2p-2f-cop"}, "Did you mean 8x8-2p-2f-coop"),
        ({"scenario": "Foraging-8x8-2p-2f-v2"}, "env.scenario"),
        ({"scenario": "4x8-2p-1f"}, "between 5 and 30"),
        ({"scenario": "8x31-2p-1f"}, "between 5 and 30"),
        ({"scenario": "5x5-2p-3f"}, "room for 2"),
        ({"scenario": "8x8-2p-9f"}, "room for 8"),
        ({"scenario": "5x5-13p-1f"}, "half of the cells"),
        ({"scenario": "8x8-0p-1f"}, "at least one player"),
        ({"scenario": "8x8-2p-0f"}, "at least one player and one food"),
        ({"scenario": "2s-8x8-2p-2f", "sight": 3}, "contradicts"),
        ({"sight": 0}, "env.sight=0"),
        ({"scenario": "0s-8x8-2p-2f"}, "env.sight=0"),
        ({"reward": "team"}, "individual, sum"),
        ({"max_steps": 0}, "max_steps"),
        ({"min_player_level": 0}, "min_player_level"),
        ({"min_player_level": 3}, "max_player_level=2"),
        ({"max_food_level": 0}, "max_food_level"),
        ({"penalty": -0.1}, "penalty"),
        ({"penalty": float("nan")}, "penalty"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(RefusedError, match=message):
        lbf.make(lbf.Config(**settings))

"""The warehouse: names, sizes, endings, rewards, start states, and single situations with a known outcome."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxshare.envs.rware import environment as rware
from jaxshare.envs.rware import shelves as rules
from jaxshare.envs.rware.shelves import delivering
from jaxshare.envs.rware.state import DOWN, EAST, FORWARD, LEFT, NOOP, RIGHT, TOGGLE, UP, WEST, State
from jaxshare.envs.rware.task import SIZES, read_layout
from jaxshare.types import RefusedError


@cache
def compiled(**settings):
    env = rware.make(rware.Config(**settings))
    return env, jax.jit(env.reset), jax.jit(env.step)


@pytest.mark.parametrize(
    ("scenario", "agents", "obs", "cells", "requests"),
    [
        ("tiny-2ag", 2, 71, (11, 10), 2),
        ("rware-tiny-2ag-hard-v2", 2, 71, (11, 10), 1),
        ("small-4ag-easy", 4, 71, (20, 10), 8),
        ("medium-5ag-hard", 5, 71, (20, 16), 2),
        ("large-8ag", 8, 71, (29, 16), 8),
        ("rware-3s-tiny-4h-2ag-v2", 2, 351, (7, 10), 2),
        ("2x5-3h-6ag-9req-twostage", 6, 71, (10, 16), 9),
    ],
)
def test_names_and_sizes(scenario, agents, obs, cells, requests):
    config = rware.Config(scenario=scenario)
    layout, spec = read_layout(config), rware.make(config).spec
    assert (spec.num_agents, spec.obs_dim, spec.state_dim) == (agents, obs, agents * obs)
    assert (layout.height, layout.width) == cells
    assert layout.num_requests == requests
    assert (spec.action.num_actions, spec.episode_limit) == (5, 500)
    assert layout.reward_type == ("two-stage" if "twostage" in scenario else "individual")


def test_every_registered_task_has_the_original_numbers():
    gymnasium = pytest.importorskip("gymnasium")
    pytest.importorskip("rware")
    names = [name for name in gymnasium.registry if name.startswith("rware-") and "img" not in name]
    assert len(names) == 228
    refused = []
    for name in names:
        theirs = gymnasium.spec(name).kwargs
        try:
            layout = read_layout(rware.Config(scenario=name))
        except RefusedError:
            refused.append(name)
            continue
        ours = (layout.shelf_rows, layout.shelf_columns, layout.column_height, layout.num_agents)
        assert ours == tuple(theirs[key] for key in ("shelf_rows", "shelf_columns", "column_height", "n_agents")), name
        assert (layout.num_requests, layout.sensor_range) == (theirs["request_queue_size"], theirs["sensor_range"]), (
            name
        )
    nothing_asked = [f"rware-{size}-1ag-hard-v2" for size in SIZES]
    too_much_asked = [f"rware-tiny-{n}ag-easy-v2" for n in range(16, 20)]  # 32 shelves
    assert sorted(refused) == sorted(nothing_asked + too_much_asked)


@pytest.mark.parametrize("scenario", ["tiny-1ag", "small-1ag", "medium-1ag", "large-1ag", "1x7-2h-1ag", "4x9-3h-1ag"])
def test_map_is_the_originals(scenario):
    original = pytest.importorskip("rware.warehouse")
    layout = read_layout(rware.Config(scenario=scenario))
    size = layout.shelf_columns, layout.column_height, layout.shelf_rows
    game = original.Warehouse(*size, 1, 0, 1, 1, None, None, original.RewardType.INDIVIDUAL)
    assert game.grid_size == (layout.height, layout.width)
    assert np.array_equal(layout.shelf_cells(), game.highways == 0)
    assert tuple(game.goals) == layout.goals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scenario": "tinny-2ag"}, "Did you mean tiny-2ag"),
        ({"scenario": "rware-img-tiny-2ag-v2"}, "not known"),
        ({"scenario": "tiny-2ag-hard-3req"}, "given twice"),
        ({"scenario": "tiny-1ag-hard"}, "0 requests"),
        ({"scenario": "tiny-16ag-easy"}, "32 requests for 32 shelves"),
        ({"scenario": "tiny-0ag"}, "1 or more"),
        ({"scenario": "tiny-111ag-4req"}, "do not fit in 110 cells"),
        ({"scenario": "1x4-2h-2ag"}, "odd"),
        ({"scenario": "1x11-2h-2ag"}, "at most 9"),
        ({"scenario": "1x1-2h-2ag"}, "2 requests for 0 shelves"),
        ({"reward": "team"}, "env.reward=team"),
        ({"reward_type": "globl"}, "Did you mean global"),
        ({"reward_type": "global", "reward": "sum"}, "use reward=individual"),
        ({"reward_type": "global", "scenario": "tiny-2ag-indiv"}, "says individual"),
        ({"sensor_range": 2, "scenario": "3s-tiny-2ag"}, "says 3"),
        ({"sensor_range": 0}, "env.sensor_range=0"),
        ({"max_steps": 0}, "env.max_steps=0"),
        ({"max_inactivity_steps": 0}, "env.max_inactivity_steps=0"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(RefusedError, match=message):
        rware.make(rware.Config(**settings))


@pytest.mark.parametrize(
    ("settings", "common"),
    [
        ({}, False),
        ({"reward": "sum"}, True),
        ({"reward_type": "global"}, True),
        ({"reward_type": "two-stage"}, False),
        ({"scenario": "tiny-1ag"}, True),
    ],
)
def test_common_reward_only_where_it_is(settings, common):
    assert rware.make(rware.Config(**settings)).spec.common_reward is common


def test_limit_is_a_truncation_and_inactivity_an_end():
    _, reset, step = compiled(max_steps=5, max_inactivity_steps=4)
    state, _ = reset(jax.random.key(0))
    for t in range(1, 6):
        state, shown = step(state, jnp.zeros(2, jnp.int32), jax.random.key(t))
        assert bool(shown.terminated) == (t >= 4)
        assert not shown.truncated  # exclusive
    _, reset, step = compiled(max_steps=5)
    state, _ = reset(jax.random.key(0))
    for t in range(1, 6):
        state, shown = step(state, jnp.zeros(2, jnp.int32), jax.random.key(t))
        assert not shown.terminated
        assert bool(shown.truncated) == (t == 5)


def start(agents, shelves=(), requests=(), carrying=(), wanted=(), rows=11):
    """A state from robots (x, y, direction) and cells (x, y)."""
    n = len(agents)

    def words(cells):
        found = np.zeros(rows, np.uint32)
        for x, y in cells:
            found[y] |= 1 << x
        return jnp.array(found)

    x, y, direction = (jnp.array(column, jnp.int32) for column in zip(*agents, strict=True))
    return State(
        x=x,
        y=y,
        direction=direction,
        carrying=jnp.array([i in carrying for i in range(n)]),
        wanted=jnp.array([i in wanted for i in range(n)]),
        delivered=jnp.zeros(n, bool),
        shelves=words((*shelves, *requests)),
        requests=words(requests),
        steps=jnp.int32(0),
        inactive=jnp.int32(0),
    )


def act(state, action, **settings):
    _, _, step = compiled(**settings)
    return step(state, jnp.array(action, jnp.int32), jax.random.key(0))


def cells(state):
    return list(zip(state.x.tolist(), state.y.tolist(), strict=True))


def test_turning():
    state = start([(0, 0, UP), (3, 3, UP)])
    faced = []
    for _ in range(4):
        state, _ = act(state, [LEFT, RIGHT])
        faced.append(tuple(state.direction.tolist()))
    assert faced == [(WEST, EAST), (DOWN, DOWN), (EAST, WEST), (UP, UP)]


@pytest.mark.parametrize(
    ("agents", "moved"),
    [
        ([(0, 0, UP), (0, 5, WEST)], [False, False]),  # walls
        ([(0, 0, EAST), (1, 0, EAST)], [True, True]),  # a convoy
        ([(0, 0, EAST), (1, 0, WEST)], [False, False]),  # a swap
        ([(0, 0, EAST), (2, 0, WEST)], [True, False]),  # rivals: the first robot
    ],
)
def test_two_robots_drive(agents, moved):
    state, _ = act(start(agents), [FORWARD, FORWARD])
    assert [a[:2] != b for a, b in zip(agents, cells(state), strict=True)] == moved


def test_circle_moves_and_nobody_joins_it():
    agents = [(3, 3, EAST), (4, 3, DOWN), (4, 4, WEST), (3, 4, UP), (5, 3, WEST)]
    state, _ = act(start(agents, requests=[(1, 1), (2, 1)]), [FORWARD] * 5, scenario="tiny-5ag")
    assert cells(state) == [(4, 3), (4, 4), (3, 4), (3, 3), (5, 3)]


def test_longer_queue_wins():
    agents = [(0, 1, DOWN), (1, 2, WEST), (2, 2, WEST)]
    state, _ = act(start(agents), [FORWARD] * 3, scenario="tiny-3ag")
    assert cells(state) == [(0, 1), (0, 2), (1, 2)]


def test_loading_driving_and_unloading():
    state = start([(1, 1, EAST), (2, 5, UP)], shelves=[(2, 1)], requests=[(1, 1)])
    state, _ = act(state, [TOGGLE, TOGGLE])
    assert state.carrying.tolist() == state.wanted.tolist() == [True, False]
    assert not state.requests.any()
    state, _ = act(state, [FORWARD, NOOP])
    assert cells(state)[0] == (1, 1)  # a shelf stands there
    state, _ = act(state.replace(direction=jnp.array([WEST, UP])), [FORWARD, NOOP])
    assert cells(state)[0] == (0, 1)
    state, _ = act(state, [TOGGLE, NOOP])
    assert state.carrying[0]  # not on a highway
    for action in ([LEFT, NOOP], [LEFT, NOOP], [FORWARD, NOOP], [TOGGLE, NOOP]):
        state, _ = act(state, action)
    assert cells(state)[0] == (1, 1)
    assert not state.carrying[0]
    assert int(state.requests[1]) == 1 << 1  # still wanted
    assert int(state.shelves[1]) == 0b110


@pytest.mark.parametrize(
    ("settings", "reward"),
    [
        ({}, [1, 0]),
        ({"reward": "sum"}, [1, 1]),
        ({"reward_type": "global"}, [1, 1]),
        ({"reward_type": "two-stage"}, [0.5, 0]),
    ],
)
def test_delivery(settings, reward):
    free = [(1, y) for y in range(1, 9)]
    state = start([(4, 9, DOWN), (0, 0, UP)], shelves=free, requests=[(8, 8)], carrying=[0], wanted=[0])
    state, shown = act(state, [FORWARD, NOOP], **settings)
    assert shown.reward.tolist() == reward
    assert float(shown.info["deliveries"]) == 1
    assert not state.wanted[0]
    assert state.delivered[0]
    state, shown = act(state, [NOOP, NOOP], **settings)
    assert not shown.reward.any()


def test_second_stage_is_paid_once():
    state = start([(1, 1, DOWN), (0, 0, UP)], requests=[(8, 8), (7, 8)], carrying=[0])
    state = state.replace(delivered=jnp.array([True, False]))
    rewards = []
    for _ in range(4):
        state, shown = act(state, [TOGGLE, NOOP], reward_type="two-stage")
        rewards.append(shown.reward.tolist())
    assert rewards == [[0.5, 0], [0, 0], [0, 0], [0, 0]]


def test_a_new_request_may_be_delivered_at_once():
    """The original serves one goal after the other: what the first makes requested, the second can pay."""
    layout = read_layout(rware.Config())
    state = start([(4, 10, DOWN), (5, 10, DOWN)], requests=[(8, 8)], carrying=[0, 1], wanted=[0])
    state, paid = jax.jit(delivering(layout))(state, jnp.array([0, 0]))
    assert paid.tolist() == [True, True]
    assert state.wanted.tolist() == [True, False]  # the first one's shelf was free again for the second draw


def test_requests_are_drawn_evenly_from_the_others():
    layout = read_layout(rware.Config())
    shelves = [(1, 1), (2, 1), (1, 2), (1, 3)]
    state = start([(4, 10, DOWN), (0, 0, UP)], shelves=shelves, requests=[(8, 8)], carrying=[0, 1], wanted=[0])
    deliver = delivering(layout)
    states, _ = jax.jit(jax.vmap(lambda place: deliver(state, jnp.stack([place, place]))))(jnp.arange(5))
    lit = [[(x, y) for y in range(11) for x in range(10) if int(states.requests[i][y]) >> x & 1] for i in range(5)]
    assert lit == [[(1, 1), (8, 8)], [(2, 1), (8, 8)], [(1, 2), (8, 8)], [(1, 3), (8, 8)], [(8, 8)]]
    assert states.wanted[:, 1].tolist() == [False] * 4 + [True]
    draws = jax.jit(jax.vmap(lambda key: rules.draws(layout, key)))
    places = draws(jax.random.split(jax.random.key(0), 3000))
    counts = np.stack([np.bincount(places[:, i], minlength=30) for i in range(2)])
    assert counts.shape == (2, 30)  # 32 shelves, 2 of them requested
    assert np.all(np.abs(counts - 100) < 5 * np.sqrt(100))
    assert abs(np.corrcoef(places.T)[0, 1]) < 0.1


def test_start_states_are_even():
    env, _, _ = compiled()
    number = 4096
    states, _ = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), number))
    cell = np.asarray(states.y * 10 + states.x)
    assert np.all(cell[:, 0] != cell[:, 1])
    for counts in (np.bincount(cell[:, 0], minlength=110), np.bincount(cell[:, 1], minlength=110)):
        mean = number / 110
        assert np.sum((counts - mean) ** 2 / mean) < 109 + 5 * np.sqrt(2 * 109)  # chi-square
    turns = np.bincount(np.asarray(states.direction).reshape(-1), minlength=4)
    assert np.all(np.abs(turns - number / 2) < 5 * np.sqrt(number * 2 * 3 / 16))
    home = read_layout(rware.Config()).shelf_cells()
    asked = np.asarray(states.requests)[:, :, None] >> np.arange(10) & 1
    assert np.all(asked.sum((1, 2)) == 2)
    assert not np.any(asked[:, ~home])
    mean = number * 2 / 32
    assert np.all(np.abs(asked.sum(0)[home] - mean) < 5 * np.sqrt(mean))
    assert len(np.unique(states.shelves, axis=0)) == 1
    assert not states.carrying.any()


def test_shelves_and_requests_are_never_lost():
    env, _, _ = compiled(scenario="1x3-1h-4ag-2req-indiv")

    def episode(key):
        def body(state, key):
            action = jax.random.choice(key, 5, (4,), p=jnp.array([0.05, 0.55, 0.1, 0.1, 0.2])).astype(jnp.int32)
            state, shown = env.step(state, action, key)
            standing = jnp.sum(jax.lax.population_count(state.shelves)).astype(jnp.int32)
            asked = jnp.sum(jax.lax.population_count(state.requests)).astype(jnp.int32)
            stray = jnp.any(state.requests & ~state.shelves) | jnp.any(state.wanted & ~state.carrying)
            totals = jnp.stack([standing + state.carrying.sum(), asked + state.wanted.sum(), stray])
            return state, (totals, shown.info["deliveries"], state.y * 10 + state.x)

        return jax.lax.scan(body, env.reset(key)[0], jax.random.split(key, 500))[1]

    totals, deliveries, cell = jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), 16))
    assert np.all(np.asarray(totals) == [4, 2, 0])
    assert deliveries.sum() > 10
    assert np.all(np.diff(np.sort(cell, axis=2), axis=2) > 0)  # never two in a cell


def test_same_key_same_episode_and_vmap():
    env, reset, step = compiled(scenario="tiny-4ag")
    keys = jax.random.split(jax.random.key(5), 3)
    action = jnp.array([[FORWARD, LEFT, FORWARD, TOGGLE]] * 3, jnp.int32)
    states, _ = jax.jit(jax.vmap(env.reset))(keys)
    states, shown = jax.jit(jax.vmap(env.step))(states, action, keys)
    for i, key in enumerate(keys):
        state, one = step(reset(key)[0], action[i], key)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_array_equal(a, b[i]), (state, one), (states, shown))
    assert not np.array_equal(shown.obs[0], shown.obs[1])


def test_normalised_coordinates():
    _, reset, _ = compiled(normalised_coordinates=True)
    _, plain, _ = compiled()
    state, shown = reset(jax.random.key(1))
    raw = plain(jax.random.key(1))[1].obs
    np.testing.assert_allclose(shown.obs[:, 0], state.x / 9)
    np.testing.assert_allclose(shown.obs[:, 1], state.y / 10)
    assert raw[:, :2].tolist() == jnp.stack([state.x, state.y], axis=1).tolist()
    np.testing.assert_array_equal(shown.obs[:, 2:], raw[:, 2:])


def test_picture():
    state = start([(3, 3, UP), (0, 0, EAST)], shelves=[(1, 1)], requests=[(2, 1)], carrying=[0], wanted=[0])
    picture = compiled()[0].render(state)
    assert (picture.shape, picture.dtype) == ((300, 300, 3), np.uint8)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 5  # floor, goals, shelves, requested shelves, robots
    turned = compiled()[0].render(state.replace(direction=jnp.array([DOWN, EAST])))
    assert not np.array_equal(picture, turned)

"""Level-based foraging against lbforaging 2.0.0: the same starts and actions, and the same distribution of starts."""

from collections import Counter
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2_contingency, chisquare

from jaxshare.envs import lbf

foraging = pytest.importorskip("lbforaging.foraging")
gymnasium = pytest.importorskip("gymnasium")

EPISODES, STEPS = 8, 30
CASES = [
    ("8x8-2p-2f-coop", {}),
    ("2s-7x7-4p-3f", {"penalty": 0.1}),
    ("5x5-8p-2f", {"normalize_reward": False, "max_player_level": 3}),
    ("2s-6x9-5p-2f", {"grid_observation": True, "max_food_level": 3}),
]
MORE = [
    ("10x10-3p-3f", {}),
    ("12x12-2p-1f", {}),
    ("15x15-3p-4f", {}),
    ("15x15-4p-5f", {"max_steps": 29}),
    ("8x8-2p-3f", {"penalty": 0.5}),
    ("2s-8x8-2p-2f-coop", {}),
    ("2s-10x10-3p-3f", {}),
    ("1s-8x8-3p-2f", {}),
    ("3s-8x8-4p-3f", {"max_player_level": 4}),
    ("4s-11x11-6p-4f", {"max_player_level": 5, "normalize_reward": False}),
    ("7s-8x8-3p-2f", {}),
    ("20s-8x8-3p-2f", {}),
    ("5x5-2p-2f-coop", {}),
    ("5x5-9p-1f-coop", {"penalty": 0.1}),
    ("5x5-12p-2f", {"min_player_level": 2, "max_player_level": 2, "max_food_level": 2}),
    ("6x6-6p-2f", {"max_food_level": 1}),
    ("2s-5x5-9p-2f", {}),
    ("5x9-3p-2f", {}),
    ("2s-9x5-4p-2f-coop", {"max_food_level": 6, "max_player_level": 3}),
    ("7x7-3p-2f", {"grid_observation": True}),
    ("3s-9x6-4p-2f", {"grid_observation": True, "penalty": 0.3}),
    ("1s-5x5-9p-2f", {"grid_observation": True}),
    ("8x8-1p-2f", {}),
    ("19x19-9p-4f", {"max_steps": 20}),
]


class Foraging(foraging.ForagingEnv):
    """The original, without its own check of observations: it wrongly fails for oblong grids and for layers."""

    def _get_observation_space(self):
        return Unchecked((3 * (self.max_num_food + len(self.players)),), np.float32)


class Unchecked(gymnasium.spaces.Space):
    def contains(self, x):
        return True


def original(config):
    task = lbf.parse(config.scenario, config.sight)
    return Foraging(
        players=task.players,
        min_player_level=config.min_player_level,
        max_player_level=config.max_player_level,
        min_food_level=1,
        max_food_level=config.max_food_level,
        field_size=(task.rows, task.cols),
        max_num_food=task.foods,
        sight=task.sight,
        max_episode_steps=config.max_steps,
        force_coop=task.coop,
        normalize_reward=config.normalize_reward,
        grid_observation=config.grid_observation,
        penalty=config.penalty,
    )


def fresh(game):
    """A start that does not depend on the last episode: the original's reset avoids the players' old cells."""
    for player in game.players:
        player.position = None
    game.reset()
    return game


def state_of(game):
    """What lbf keeps of the original's present state, as a start."""
    row, col = np.nonzero(game.field)
    absent = game.max_num_food - len(row)
    i32 = np.int32
    return lbf.State(
        row=np.array([p.position[0] for p in game.players], i32),
        col=np.array([p.position[1] for p in game.players], i32),
        level=np.array([p.level for p in game.players], i32),
        food_row=np.append(row, [-1] * absent).astype(i32),
        food_col=np.append(col, [-1] * absent).astype(i32),
        food_level=np.append(game.field[row, col], [0] * absent).astype(i32),
        num_spawned=i32(len(row)),
        spawned_level=i32(game.field.sum()),
        step=i32(0),
    )


def greedy(game, rng):
    """Load beside food; else one step towards the nearest food along rows or columns; sometimes anything."""
    actions = []
    for player in game.players:
        (row, col), food = player.position, np.argwhere(game.field)
        if rng.random() < 0.2 or not len(food):
            actions.append(rng.integers(6))
            continue
        down, right = min((food - (row, col)).tolist(), key=lambda d: abs(d[0]) + abs(d[1]))
        vertical = abs(down) > abs(right) if rng.random() < 0.8 else down != 0
        move = (lbf.SOUTH if down > 0 else lbf.NORTH) if vertical else (lbf.EAST if right > 0 else lbf.WEST)
        actions.append(lbf.LOAD if abs(down) + abs(right) == 1 else move)
    return np.array(actions, np.int32)


def play(game, rng, steps, seen):
    """One episode of the original, beginning with nobody moving: start, actions [T, N], and what it shows [T, ...]."""
    start, actions, shown = state_of(fresh(game)), [], []
    careful = rng.random() < 0.6
    for t in range(steps):
        action = greedy(game, rng) if careful else rng.integers(0, 6, len(game.players)).astype(np.int32)
        action = action if t else np.zeros_like(action)
        before, food = [p.position for p in game.players], np.count_nonzero(game.field)
        obs, reward, done, _, _ = game.step(action)
        after = [p.position for p in game.players]
        count_events(seen, before, after, reward, food - np.count_nonzero(game.field))
        valid = [np.isin(range(6), [a.value for a in game._valid_actions[p]]) for p in game.players]
        actions.append(action)
        shown.append((np.stack(obs).reshape(len(obs), -1), reward, done, game.field.sum() == 0, valid, after))
    return start, np.stack(actions), [np.stack(x) for x in zip(*shown, strict=True)]


def count_events(seen, before, after, reward, eaten):
    pairs = list(combinations(range(len(before)), 2))
    seen.update(
        moved=sum(a != b for a, b in zip(before, after, strict=True)),
        entered=sum(a != b and a in before for b, a in zip(before, after, strict=True)),
        swapped=sum(after[i] == before[j] != before[i] == after[j] for i, j in pairs),
        met=sum(after[i] == after[j] for i, j in pairs) > sum(before[i] == before[j] for i, j in pairs),
        eaten=int(eaten),
        eaten_together=int(sum(r > 0 for r in reward) > eaten > 0),
        fined=sum(r < 0 for r in reward),
    )


def compare(scenario, settings, seed):
    """Plays EPISODES x STEPS in both, and demands that all they show is equal. Returns what happened, counted."""
    config = lbf.Config(scenario=scenario, mask_actions=True, **settings)
    game, rng, seen = original(config), np.random.default_rng(seed), Counter()
    game.reset(seed=seed)
    starts, actions, shown = zip(*(play(game, rng, STEPS, seen) for _ in range(EPISODES)), strict=True)
    env = lbf.make(config)

    def step(state, action):
        state, shown = jax.vmap(lambda s, a: env.step(s, a, jax.random.key(0)))(state, action)
        return state, (shown, state)

    start = jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *starts)
    _, (ours, state) = jax.jit(lambda s, a: jax.lax.scan(step, s, a))(start, np.stack(actions, axis=1))
    obs, reward, done, empty, valid, position = (np.stack(x, axis=1) for x in zip(*shown, strict=True))
    np.testing.assert_array_equal(np.stack([state.row, state.col], axis=-1), position)
    np.testing.assert_array_equal(ours.obs, obs)
    np.testing.assert_allclose(ours.reward, reward, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(ours.terminated, empty)
    np.testing.assert_array_equal(ours.terminated | ours.truncated, done)
    np.testing.assert_array_equal(ours.avail, valid)
    assert not np.any(ours.terminated & ours.truncated)
    return seen


def test_equal_to_the_original_step_by_step():
    seen = sum((compare(*case, seed=seed) for seed, case in enumerate(CASES)), Counter())
    for event in ("entered", "swapped", "met", "eaten", "eaten_together", "fined"):
        assert seen[event] > 3, f"{event} never put to the test: {seen}"


@pytest.mark.slow
@pytest.mark.parametrize(("scenario", "settings"), MORE)
def test_equal_to_the_original_in_more_tasks(scenario, settings):
    assert compare(scenario, settings, seed=len(CASES) + MORE.index((scenario, settings)))["moved"] > 10


@pytest.mark.parametrize("scenario", ["8x8-2p-2f-coop", "15x15-3p-4f", "2s-10x10-3p-3f"])
def test_defaults_are_those_of_the_original_ids(scenario):
    sight = "-2s" if scenario.startswith("2s-") else ""
    theirs = dict(gymnasium.spec(f"Foraging{sight}-{scenario.removeprefix('2s-')}-v3").kwargs)
    assert theirs.pop("max_episode_steps") == 50
    config, task = lbf.Config(scenario=scenario), lbf.parse(scenario)
    assert theirs == {
        "players": task.players,
        "field_size": (task.rows, task.cols),
        "max_num_food": task.foods,
        "sight": task.sight,
        "force_coop": task.coop,
        "min_food_level": 1,
        **{key: getattr(config, key) for key in ("min_player_level", "max_player_level", "max_food_level")},
        **{key: getattr(config, key) for key in ("penalty", "grid_observation")},
    }


def drawn(env, count, seed):
    """`count` of our starts."""
    return jax.device_get(jax.jit(jax.vmap(lambda k: env.reset(k)[0]))(jax.random.split(jax.random.key(seed), count)))


def features(s):
    """What is compared of starts [B, ...]: {name: [B] i64}."""

    def code(*columns):
        return sum((np.asarray(x, np.int64) + 2) * 40**k for k, x in enumerate(columns))

    foods = list(zip(s.food_row.T, s.food_col.T, strict=True))
    players = list(zip(s.row.T, s.col.T, strict=True))
    found = {
        "player levels": code(*s.level.T[:4]),
        "food levels": code(*s.food_level.T[:3], np.sort(s.level)[:, :3].sum(1)),
        "food count": s.num_spawned,
        "first player": code(*players[0]),
        "last player": code(*players[-1]),
        "first food": code(*foods[0]),
        "last food": code(*foods[-1]),
        "player to food": code(np.abs(players[0][0] - foods[0][0]), np.abs(players[0][1] - foods[0][1])),
        "player to player": code(np.abs(players[0][0] - players[-1][0]), np.abs(players[0][1] - players[-1][1])),
    }
    if len(foods) > 1:
        found["food to food"] = code(foods[1][0] - foods[0][0], np.abs(foods[1][1] - foods[0][1]))
    return found


def p_value(a, b):
    """Of one distribution behind both samples; rare values count as one."""
    values, where = np.unique(np.concatenate([a, b]), return_inverse=True)
    table = np.stack([np.bincount(w, minlength=len(values)) for w in np.split(where, [len(a)])])
    rare = table.sum(0) * len(a) < 8 * table.sum()
    table = np.concatenate([table[:, ~rare], table[:, rare].sum(1, keepdims=True)], axis=1)
    table = table[:, table.sum(0) > 0]
    return chi2_contingency(table).pvalue if table.shape[1] > 1 else 1.0


@pytest.mark.parametrize(
    ("scenario", "settings"),
    [
        ("8x8-2p-2f-coop", {}),
        ("10x10-4p-3f", {}),
        ("5x5-8p-2f", {"max_player_level": 3}),  # crowded: often one food only
        ("6x9-3p-3f", {"max_food_level": 3, "min_player_level": 2, "max_player_level": 4}),
    ],
)
def test_starts_have_the_distribution_of_the_original(scenario, settings):
    config = lbf.Config(scenario=scenario, **settings)
    game = original(config)
    game._make_gym_obs = lambda: ()
    game.reset(seed=1)
    theirs = jax.tree.map(lambda *x: np.stack(x), *[state_of(fresh(game)) for _ in range(3000)])
    theirs, ours = features(theirs), features(drawn(lbf.make(config), 20_000, seed=1))
    p = {name: p_value(theirs[name], ours[name]) for name in theirs}
    assert min(p.values()) > 1e-3, p


def test_starts_of_two_foods_beside_one_player_have_their_exact_probabilities():
    """5x5-1p-2f: 9 inner cells for foods, less the player's if it stands there; every case is counted."""
    inner = [(r, c) for r in (1, 2, 3) for c in (1, 2, 3)]
    exact = Counter()
    for player in np.ndindex(5, 5):
        first = [cell for cell in inner if cell != player]
        for a in first:
            second = [b for b in first if abs(a[0] - b[0]) + abs(a[1] - b[1]) > 2] or [(-1, -1)]
            for b in second:
                order = sorted((a, b)) if b != (-1, -1) else [a, b]
                exact[tuple(map(tuple, (*order, player)))] += 1 / 25 / len(first) / len(second)
    s = drawn(lbf.make(lbf.Config(scenario="5x5-1p-2f")), 100_000, seed=2)
    cells = np.concatenate([np.stack([s.food_row, s.food_col], -1), np.stack([s.row, s.col], -1)], axis=1)
    counts = Counter(tuple(map(tuple, x)) for x in cells.tolist())
    assert set(counts) == set(exact)
    assert chisquare([counts[k] for k in exact], [100_000 * exact[k] for k in exact]).pvalue > 1e-3

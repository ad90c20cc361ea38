"""Level-based foraging against lbforaging 2.0.0: the same starts and actions, and the same distribution of starts."""

from collections import Counter

import foraging_golden as golden
import foraging_plays as plays
import numpy as np
import pytest
from scipy.stats import chisquare

from jaxshare.envs.lbf import environment as lbf
from jaxshare.envs.lbf.task import parse

foraging = pytest.importorskip("lbforaging.foraging")
gymnasium = pytest.importorskip("gymnasium")

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


def compare(scenario, settings, seed):
    """Plays some episodes in both, and demands that all they show is equal. Returns what happened, counted."""
    config = lbf.Config(scenario=scenario, mask_actions=True, **settings)
    game = plays.newest(foraging, config)
    game.reset(seed=seed)
    theirs, events = plays.play(game, seed)
    golden.assert_equal(config, theirs)
    return events


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
    config, task = lbf.Config(scenario=scenario), parse(scenario)
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


@pytest.mark.parametrize(
    ("scenario", "settings"),
    [
        ("8x8-2p-2f-coop", {}),
        ("10x10-4p-3f", {}),
        # crowded: often one food only
        pytest.param("5x5-8p-2f", {"max_player_level": 3}, marks=pytest.mark.slow),
        ("6x9-3p-3f", {"max_food_level": 3, "min_player_level": 2, "max_player_level": 4}),
    ],
)
def test_starts_have_the_distribution_of_the_original(scenario, settings):
    config = lbf.Config(scenario=scenario, **settings)
    game = plays.newest(foraging, config)
    game.reset(seed=1)
    p = golden.p_values(config, plays.starts(game, 3000))
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
    s = golden.drawn(lbf.make(lbf.Config(scenario="5x5-1p-2f")), 100_000, seed=2)
    cells = np.concatenate([np.stack([s.food_row, s.food_col], -1), np.stack([s.row, s.col], -1)], axis=1)
    counts = Counter(tuple(map(tuple, x)) for x in cells.tolist())
    assert set(counts) == set(exact)
    assert chisquare([counts[k] for k in exact], [100_000 * exact[k] for k in exact]).pvalue > 1e-3

"""env.rules=v1 and v2 against lbforaging 1.0.15 and 1.1.1: recorded plays and starts, and the packages where they are.

The packages need the old gym and are in no environment of ours: JAXSHARE_LBFORAGING=/tmp/lbf1015:/tmp/lbf111, folders
of `pip install --target /tmp/lbf1015 --no-deps lbforaging==1.0.15`, plays anew against each.
"""

import os
from itertools import product

import foraging_golden as golden
import foraging_plays as plays
import numpy as np
import pytest

from jaxshare.envs.lbf import environment as lbf
from jaxshare.envs.lbf.task import parse
from jaxshare.types import RefusedError

VERSIONS = ("1.0.15", "1.1.1")
FOLDERS = [folder for folder in os.environ.get("JAXSHARE_LBFORAGING", "").split(os.pathsep) if folder]


def config_of(version, scenario, settings):
    return lbf.Config(
        scenario=scenario, mask_actions=True, rules=plays.RULES[version], **plays.without(settings, version)
    )


@pytest.fixture(scope="module", params=VERSIONS)
def kept(request):
    """The golden file of a version, as {name: array}, with the version."""
    with np.load(golden.GOLDEN / f"lbforaging-{request.param}.npz") as arrays:
        found = dict(arrays)
    assert found["version"] == request.param
    return request.param, found


@pytest.mark.parametrize("case", [0, 2, 4])
def test_equal_to_the_recorded_plays_step_by_step(kept, case):
    version, arrays = kept
    golden.assert_equal(config_of(version, *golden.PLAYS[case]), golden.stored_play(arrays, f"play{case}"))


@pytest.mark.slow
@pytest.mark.parametrize("case", [1, 3])
def test_equal_to_more_recorded_plays(kept, case):
    version, arrays = kept
    golden.assert_equal(config_of(version, *golden.PLAYS[case]), golden.stored_play(arrays, f"play{case}"))


def test_the_recorded_plays_have_something_to_show(kept):
    _, arrays = kept
    reward = np.concatenate([arrays[f"play{case}/reward"].ravel() for case in range(len(golden.PLAYS))])
    assert np.sum(reward > 0) > 50
    together = [np.sum(arrays[f"play{case}/reward"] > 0, axis=-1) > 1 for case in range(len(golden.PLAYS))]
    assert sum(int(x.sum()) for x in together) > 10
    assert np.any(arrays["play2/reward"] < 0) == (kept[0] == "1.1.1")


@pytest.mark.parametrize("case", range(len(golden.SAMPLES)))
def test_starts_have_the_distribution_of_the_recorded_ones(kept, case):
    version, arrays = kept
    p = golden.p_values(config_of(version, *golden.SAMPLES[case]), golden.stored_state(arrays, f"start{case}"))
    assert min(p.values()) > 1e-3, p


def test_starts_of_other_rules_are_told_apart(kept):
    """The comparison above sees each of the differences."""
    version, arrays = kept
    theirs = golden.stored_state(arrays, "start1")
    p = golden.p_values(lbf.Config(scenario="10x10-3p-3f", rules="v3"), theirs)
    assert p["food levels"] < 1e-6
    other = {"v1": "v2", "v2": "v1"}[plays.RULES[version]]
    p = golden.p_values(lbf.Config(scenario="10x10-3p-3f", rules=other), theirs)
    assert p["first player"] < 1e-6 < p["food levels"]


@pytest.mark.skipif(not FOLDERS, reason="JAXSHARE_LBFORAGING names no folder with lbforaging 1.x")
@pytest.mark.parametrize("folder", FOLDERS)
def test_equal_to_the_package_itself(folder):
    foraging, version = plays.load_older(folder), plays.version_in(folder)
    for seed, (scenario, settings) in enumerate(golden.PLAYS, start=100):
        config = config_of(version, scenario, settings)
        game = plays.older(foraging, config, plays.LACKS[version])
        game.seed(seed)
        golden.assert_equal(config, plays.play(game, seed)[0])
        p = golden.p_values(config, plays.starts(game, 1000))
        assert min(p.values()) > 1e-4, (scenario, p)


def share_for_all(rules, players):
    """The exact probability that food needs every player; levels 1 and 2, no forced cooperation."""
    total = 0.0
    for levels in product((1, 2), repeat=players):
        highest = sum(levels) if rules == "v3" else max(sum(levels) - 1, 1)
        without_one = sum(levels) - min(levels)
        total += sum(food > without_one for food in range(1, highest + 1)) / highest
    return total / 2**players


@pytest.mark.parametrize(
    ("rules", "scenario", "percent"),
    [
        ("v1", "8x8-2p-3f", 8.3),
        ("v2", "8x8-2p-3f", 8.3),
        ("v3", "8x8-2p-3f", 41.7),
        ("v1", "10x10-3p-3f", 2.5),
        ("v2", "10x10-3p-3f", 2.5),
        ("v3", "10x10-3p-3f", 25.2),
    ],
)
def test_how_often_food_needs_all_players(rules, scenario, percent):
    exact = share_for_all(rules, parse(scenario).players)
    assert 100 * exact == pytest.approx(percent, abs=0.05)
    start = golden.drawn(lbf.make(lbf.Config(scenario=scenario, rules=rules)), 50_000, seed=3)
    without_one = start.level.sum(1) - start.level.min(1)
    assert np.mean(start.food_level > without_one[:, None]) == pytest.approx(exact, abs=5e-3)


def test_a_recorded_start_needs_all_players_as_often():
    for version, (case, players) in product(VERSIONS, {1: 3, 2: 2}.items()):
        with np.load(golden.GOLDEN / f"lbforaging-{version}.npz") as arrays:
            start = golden.stored_state(dict(arrays), f"start{case}")
        needs_all = start.food_level > (start.level.sum(1) - start.level.min(1))[:, None]
        assert np.mean(needs_all) == pytest.approx(share_for_all("v1", players), abs=0.015)


def test_rules_are_part_of_the_name_and_v3_is_the_default():
    assert lbf.Config().rules == "v3"
    assert lbf.make(lbf.Config(rules="v1")).spec.name == "lbf/8x8-2p-2f-coop-v1"
    assert lbf.make(lbf.Config()).spec.name == "lbf/8x8-2p-2f-coop"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rules": "v4"}, "env.rules=v4 is not one of v1, v2, v3"),
        ({"rules": "v1", "max_food_level": 2}, "env.max_food_level=2 is not in env.rules=v1.*env.rules=v3"),
        ({"scenario": "Foraging-2s-8x8-2p-2f-coop-v1"}, "take env.scenario=2s-8x8-2p-2f-coop env.rules=v1"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(RefusedError, match=message):
        lbf.make(lbf.Config(**settings))


def test_the_remedy_for_an_older_id_works():
    config = lbf.Config(scenario="2s-8x8-2p-2f-coop", rules="v1")
    assert lbf.make(config).spec.name == "lbf/2s-8x8-2p-2f-coop-v1"

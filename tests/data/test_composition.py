"""Pools, composition strings and the paper's tables."""

from fractions import Fraction

import numpy as np
import pytest

from jaxshare.data import composition as composing
from jaxshare.data import paper_sets
from jaxshare.data import pools as pooling
from jaxshare.types import RefusedError

R, M, E = range(3)


# ---------------------------------------------------------------------------------------------------------------- pools


@pytest.mark.parametrize(("environment", "scenario"), paper_sets.PAPER_POOLS)
def test_the_rules_give_the_printed_cuts(environment, scenario):
    printed = paper_sets.PAPER_POOLS[environment, scenario]
    pools = pooling.thresholds(printed.low, printed.high, pooling.rule_of(environment))
    np.testing.assert_allclose(pools.cuts, printed.cuts, atol=0.02)
    other = pooling.thresholds(
        printed.low, printed.high, "thirds" if pooling.rule_of(environment) != "thirds" else "30/40/30"
    )
    assert np.abs(np.array(other.cuts) - printed.cuts).min() > 0.5  # the other rule does not


def test_levels_of_returns():
    pools = pooling.thresholds(0.0, 20.0)
    assert pools.cuts == (6.0, 14.0)
    assert pools.level([-3, 0, 5.9, 6, 13.9, 14, 25]).tolist() == [R, R, R, M, M, E, E]
    assert pools.level(np.array([[1.0], [20.0]])).tolist() == [[R], [E]]
    assert pools.level(7.0) == M
    thirds = pooling.thresholds(0.0, 30.0, "thirds")
    assert thirds.level([9, 11, 19, 21]).tolist() == [R, M, M, E]


def test_normalised_quality():
    assert [pooling.quality(x, -100.0, -50.0) for x in (-100, -75, -50, 0)] == [0, 0.5, 1, 2]
    assert pooling.thresholds(0.0, 20.0).quality(5.0) == 0.25
    assert pooling.within("low", 0.04)
    assert pooling.within("low", 0.28)
    assert not pooling.within("low", 0.29)
    assert not pooling.within("medium", 0.34)
    assert pooling.within("medium", 0.5)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0)])
def test_a_best_policy_that_is_no_better_is_refused(low, high):
    for call in (pooling.thresholds, lambda a, b: pooling.quality(1.0, a, b)):
        with pytest.raises(RefusedError, match="is not above that of a random policy"):
            call(low, high)


def test_unknown_rules_and_windows_are_refused():
    with pytest.raises(RefusedError, match=r"rule=third is not known\. Did you mean thirds"):
        pooling.thresholds(0.0, 1.0, "third")
    with pytest.raises(RefusedError, match="quality=high is not known"):
        pooling.within("high", 0.5)


# --------------------------------------------------------------------------------------------------------- compositions


@pytest.mark.parametrize(
    ("text", "shares", "levels", "written"),
    [
        ("rrr + rrm", (0.5, 0.5), ((R, R, R), (R, R, M)), "rrr + rrm"),
        ("reree", (1,), ((R, E, R, E, E),), "reree"),
        ("99.5% rrrrr + 0.5% mmmmm", (0.995, 0.005), ((R,) * 5, (M,) * 5), "99.5% rrrrr + 0.5% mmmmm"),
        ("r*10 + m*10", (0.5, 0.5), ((R,) * 10, (M,) * 10), "rrrrrrrrrr + mmmmmmmmmm"),
        ("e rre rrrre", (1,), ((E, R, R, E, R, R, R, R, E),), "errerrrre"),
        ("r e*3 m", (1,), ((R, E, E, E, M),), "reeem"),
        ("  r+m +e ", (1 / 3,) * 3, ((R,), (M,), (E,)), "r + m + e"),
        ("100% rm", (1,), ((R, M),), "rm"),
        ("25 % r + 75.0%m", (0.25, 0.75), ((R,), (M,)), "25% r + 75% m"),
        ("r * 2 m", (1,), ((R, R, M),), "rrm"),
        (".5% r + 99.5% m", (0.005, 0.995), ((R,), (M,)), "0.5% r + 99.5% m"),
    ],
)
def test_strings_that_mean_something(text, shares, levels, written):
    parsed = composing.parse(text, len(levels[0]))
    assert [float(x.share) for x in parsed.components] == pytest.approx(list(shares))
    assert tuple(x.levels for x in parsed.components) == levels
    assert sum(x.share for x in parsed.components) == 1
    assert parsed.num_agents == len(levels[0])
    assert str(parsed) == written
    assert composing.parse(written) == parsed


@pytest.mark.parametrize(
    ("text", "character", "message"),
    [
        ("rrx + rrm", 3, "'x' .* is neither a level"),
        ("rrr | rrm", 5, r"'\|' .* is neither a level"),
        ("rrr + rrm +", 12, "the end .* where a level was expected"),
        ("", 1, "the end .* where a level was expected"),
        ("rrr ++ rrm", 6, r"'\+' .* where a level was expected"),
        ("rrr + rm", 7, "begins 2 levels, but the first component has 3"),
        ("rrr + rrm + rmmm", 13, "begins 4 levels, but the first component has 3"),
        ("50 rrr + 50% rrm", 4, "'r' .* where the % of a share was expected"),
        ("50% rrr + rrm", 11, "a share beside one without"),
        ("rrr + 50% rrm", 7, "a share beside one without"),
        ("5.0.1% rr", 1, "begins 5.0.1, which is no number"),
        ("0% rr + 100% rm", 1, "begins 0%, which is not above 0%"),
        ("101% rr", 1, "not above 0% and at most 100%"),
        ("r*", 3, "the end .* where a whole number was expected"),
        ("r*x", 3, "'x' .* where a whole number was expected"),
        ("r*0", 3, "begins 0, which is not from 1 to 1000"),
        ("r*99999999999", 3, "which is not from 1 to 1000"),
        ("*3", 1, r"'\*' .* where a level was expected"),
        ("R", 1, "'R' .* where a level was expected"),
        ("r3", 2, "'3' .* is neither a level"),
    ],
)
def test_strings_that_mean_nothing_are_pointed_at(text, character, message):
    with pytest.raises(RefusedError, match=message) as caught:
        composing.parse(text)
    lines = str(caught.value).splitlines()
    assert f"composition={text}: " in lines[0]
    assert f"(character {character})" in lines[0]
    assert lines[1] == f"  {text}"
    assert lines[2] == " " * (2 + character - 1) + "^"
    assert "as in rrr + rrm" in lines[3]


def test_shares_add_up():
    for text, total in (("50% r + 49% m", "99"), ("60% r + 60% m", "120"), ("99.5% r + 0.4% m", "99.9")):
        with pytest.raises(RefusedError, match=f"the shares add up to {total}%, not 100%"):
            composing.parse(text)
    assert composing.parse("33.3% r + 33.3% m + 33.4% e").components[2].share == Fraction(334, 1000)


def test_the_number_of_agents_is_the_environments():
    with pytest.raises(RefusedError, match="composition=rrr is for 3 agents, the environment has 5"):
        composing.parse("rrr", 5)


@pytest.mark.parametrize(
    ("text", "episodes", "counts"),
    [
        ("99.5% r + 0.5% m", 10000, (9950, 50)), ("r + m", 10000, (5000, 5000)), ("r + m", 7, (4, 3)),
        ("r + m + e", 10, (4, 3, 3)), ("99.5% r + 0.5% m", 100, (100, 0)), ("70% r + 20% m + 10% e", 9, (6, 2, 1)),
        ("r", 0, (0,)), ("25% r + 75% m", 2, (1, 1)),
    ],
)  # fmt: skip
def test_counts_add_up(text, episodes, counts):
    assert composing.parse(text).counts(episodes) == counts


def test_counts_are_nearest():
    composition = composing.parse("12.5% r + 37.5% m + 50% e")
    for episodes in range(40):
        counts = composition.counts(episodes)
        assert sum(counts) == episodes
        assert all(abs(n - x.share * episodes) < 1 for n, x in zip(counts, composition.components, strict=True))


def test_a_composition_in_words():
    assert (
        composing.describe(composing.parse("99.5% rrrrr + 0.5% mrmmm")) == "99.5%: 5 random; 0.5%: 1 random, 4 medium"
    )


# ------------------------------------------------------------------------------------------------------- those of SIT

ROWS = [(*task, name) for task, sets in paper_sets.PRESETS.items() for name in sets]
AGENTS = {
    "2s_vs_1sc": 2, "3s_vs_5z": 3, "2s3z": 5, "8m": 8, "1c3s5z": 9, "10m_vs_11m": 10, "CN_3ls3l": 3, "CN_4ls4l": 4,
    "PP_3p1p": 3, "HalfCheetah_2l": 2, "Walker_2l": 2,
}  # fmt: skip


@pytest.mark.parametrize(("environment", "scenario", "name"), ROWS)
def test_every_preset_can_be_read(environment, scenario, name):
    preset = paper_sets.preset(environment, scenario, name)
    parsed = composing.parse(preset.composition, AGENTS[scenario])
    assert preset.confidence in ("high", "inferred", "low", "wrong")
    assert preset.note or preset.confidence == "high"
    assert all(share.share in (1, Fraction(1, 2)) for share in parsed.components) or name == "extreme"


def test_every_task_has_its_pools_and_both_data_sets():
    assert paper_sets.PRESETS.keys() == paper_sets.PAPER_POOLS.keys()
    assert {scenario for _, scenario in paper_sets.PRESETS} == AGENTS.keys()
    assert all({"low", "medium"} <= sets.keys() for sets in paper_sets.PRESETS.values())


@pytest.mark.parametrize(("kind", "mean"), [("low", 0.169), ("medium", 0.484)])
def test_the_papers_qualities(kind, mean):
    """Spec C.8: means over the 11 tasks; every single one lies in its window."""
    scores = [paper_sets.PAPER_POOLS[task].quality(sets[kind].average) for task, sets in paper_sets.PRESETS.items()]
    assert len(scores) == 11
    assert np.mean(scores) == pytest.approx(mean, abs=2e-3)
    assert all(pooling.within(kind, score) for score in scores)
    low, high = pooling.WINDOWS[kind]
    assert min(scores) - low < 0.01
    assert high - max(scores) < 0.01


def test_single_presets():
    assert paper_sets.preset("smax", "2s3z", "low").composition == "rrrrr + rmrmm"
    assert paper_sets.preset("smax", "2s3z", "low").confidence == "inferred"
    assert paper_sets.preset("smax", "10m_vs_11m", "medium").confidence == "wrong"
    assert paper_sets.preset("smax", "2s3z", "extreme").average is None
    assert composing.parse(paper_sets.preset("smax", "1c3s5z", "medium").composition).components[0].levels == (
        E,
        R,
        R,
        E,
        R,
        R,
        R,
        R,
        E,
    )


def test_presets_that_there_are_not_are_refused():
    with pytest.raises(RefusedError, match="env=lbf: the paper has no data set for it, only for mamujoco, mpe, smax"):
        paper_sets.preset("lbf", "x", "low")
    with pytest.raises(RefusedError, match=r"env\.scenario=2s4z is not known\. Did you mean 2s3z"):
        paper_sets.preset("smax", "2s4z", "low")
    with pytest.raises(RefusedError, match="composition=expert is not known"):
        paper_sets.preset("smax", "8m", "expert")


def test_the_scenarios_exist_here():
    from jaxshare.envs.mamujoco import environment as mamujoco
    from jaxshare.envs.mpe import environment as mpe
    from jaxshare.envs.smax import environment as smax

    known = {"smax": smax.scenarios(), "mpe": mpe.scenarios(), "mamujoco": mamujoco.scenarios()}
    assert all(scenario in known[environment] for environment, scenario in paper_sets.PRESETS)


@pytest.mark.slow  # makes ten environments
def test_agents_stand_in_the_order_of_the_compositions():
    from jaxshare.envs.mpe import environment as mpe
    from jaxshare.envs.smax import environment as smax

    makers = {"smax": smax, "mpe": mpe}
    specs = {
        scenario: makers[environment].make(makers[environment].Config(scenario=scenario)).spec
        for environment, scenario in paper_sets.PRESETS if environment in makers
    }  # fmt: skip
    assert {scenario: spec.num_agents for scenario, spec in specs.items()} == {name: AGENTS[name] for name in specs}
    types = {name: [spec.group_names[group] for group in spec.groups] for name, spec in specs.items()}
    assert types["1c3s5z"] == ["colossus"] + ["stalker"] * 3 + ["zealot"] * 5
    assert types["2s3z"] == ["stalker"] * 2 + ["zealot"] * 3

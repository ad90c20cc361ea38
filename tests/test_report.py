"""`python -m jaxshare.report`: statistics against hand and brute force, groups, refusals, files of made-up runs."""

import base64
import csv
import itertools
import json
import re
import sys

import numpy as np
import pytest
from made_runs import QMIX, SMAX, make, plain, played
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from jaxshare.commands import report
from jaxshare.data import own, records
from jaxshare.results import figures as drawing
from jaxshare.results import numbers as numbering
from jaxshare.results import pictures, sentences, statistics
from jaxshare.results import plain as plain_values
from jaxshare.results import report as reporting
from jaxshare.results import study as studies
from jaxshare.results.arguments import labelled
from jaxshare.results.curves import POINTS
from jaxshare.results.ranges import Range
from jaxshare.types import Episode, RefusedError

FEW = 300  # bootstraps

# ----------------------------------------------------------------------------------------------------------- statistics


def test_aggregates_by_hand():
    eight = [np.array([700.0, 0, 60, 1, 5, 2, 4, 3])]
    assert statistics.iqm(eight) == 3.5  # of 2, 3, 4, 5
    five = [np.array([100.0, 1, 0, 3, 2])]
    assert statistics.iqm(five) == 2.0  # floor(5 / 4) = 1 is left out at each end
    two = [np.array([0.0, 1.0]), np.array([0.2, 0.4, 3.0])]
    assert statistics.iqm(two) == pytest.approx((0.2 + 0.4 + 1.0) / 3)
    assert statistics.mean(two) == pytest.approx((0.5 + 1.2) / 2)
    assert statistics.median(two) == pytest.approx((0.5 + 1.2) / 2)
    assert statistics.median([*two, np.array([9.0])]) == pytest.approx(1.2)  # of 0.5, 1.2, 9
    assert statistics.median(five) == 2.0  # of the runs, where there is one task
    assert statistics.optimality_gap(two) == pytest.approx(1 - (0.5 + 1.6 / 3) / 2)
    assert statistics.optimality_gap(two, gamma=0.3) == pytest.approx(0.3 - (0.15 + 0.8 / 3) / 2)


def test_improvement_counts_ties_as_half_and_its_two_sides_are_one():
    x, y = [np.array([1.0, 2.0]), np.array([5.0])], [np.array([2.0, 0.0, 2.0]), np.array([5.0])]
    assert statistics.improvement(x, y) == pytest.approx((2.0 + 2 * 0.5) / 6 / 2 + 0.5 / 2)  # 1>0, 2>0; 2=2 twice
    assert statistics.improvement(x, y) + statistics.improvement(y, x) == pytest.approx(1.0)


def test_a_profile_weighs_tasks_equally():
    scores, taus = [np.array([0.0, 1.0]), np.array([0.5, 0.6, 0.7, 0.8])], np.array([-1.0, 0.5, 0.65, 1.0])
    found = statistics.profile(scores, taus, FEW, 0.95, np.random.default_rng(0))
    np.testing.assert_allclose(found.value, [1.0, (0.5 + 0.75) / 2, 0.5, 0.0])
    assert (found.low <= found.value).all()
    assert (found.high >= found.value).all()


SCORES = (np.array([0.11, 0.57, 0.93]), np.array([0.2, 1.4]))
OTHERS = (np.array([0.3, 0.51]), np.array([0.9, 1.1, 1.6]))


def redrawn(scores):
    """All bootstraps of tasks, each as likely as the others."""
    return list(itertools.product(*[[np.array(x) for x in itertools.product(s, repeat=len(s))] for s in scores]))


def assert_percentiles(found, exact, confidence, slack=0.01):
    """The bounds are quantiles of the exact distribution, but for the chance of drawing."""
    exact, tail = np.array(exact), (1 - confidence) / 2
    for bound, level in ((found.low, tail), (found.high, 1 - tail)):
        assert (exact < bound - 1e-9).mean() <= level + slack
        assert (exact <= bound + 1e-9).mean() >= level - slack


@pytest.mark.parametrize("memory", [statistics.MEMORY, 500])  # the second: a hundred bootstraps at a time
@pytest.mark.parametrize("name", statistics.AGGREGATES)
def test_intervals_against_all_bootstraps_there_are(monkeypatch, name, memory):
    monkeypatch.setattr(statistics, "MEMORY", memory)
    statistic = statistics.AGGREGATES[name]
    exact = [statistic(scores) for scores in redrawn(SCORES)]
    assert len(exact) == 3**3 * 2**2
    found = statistics.interval(statistic, SCORES, 20_000, 0.8, np.random.default_rng(0))
    assert found.value == statistic(SCORES)
    assert_percentiles(found, exact, 0.8)


def test_the_interval_of_improvement_against_all_bootstraps_there_are():
    exact = [statistics.improvement(x, y) for x in redrawn(SCORES) for y in redrawn(OTHERS)]
    found = statistics.improvement_interval(SCORES, OTHERS, 20_000, 0.8, np.random.default_rng(0))
    assert found.value == statistics.improvement(SCORES, OTHERS)
    assert_percentiles(found, exact, 0.8)


def test_runs_are_drawn_within_their_task_only():
    apart = [np.zeros(3), np.ones(4)]
    found = statistics.interval(statistics.mean, apart, FEW, 0.95, np.random.default_rng(0))
    assert (found.low, found.value, found.high) == (0.5, 0.5, 0.5)


def test_all_points_of_a_curve_have_the_same_runs_drawn():
    values = np.array([[0.1, 0.5, 0.9], [1.1, 1.5, 1.9]])  # [P, N]: the second point is the first and one
    found = statistics.interval(statistics.iqm, [values], FEW, 0.95, np.random.default_rng(0))
    np.testing.assert_allclose([found.low[1], found.high[1]], [found.low[0] + 1, found.high[0] + 1])
    assert found.low[0] < found.value[0] < found.high[0]


def test_one_run_has_no_interval():
    alone = [np.array([0.3]), np.array([0.2, 0.8])]
    found = statistics.interval(statistics.mean, alone, FEW, 0.95, np.random.default_rng(0))
    other = statistics.improvement_interval(alone, [np.zeros(2)] * 2, FEW, 0.95, np.random.default_rng(0))
    assert found.value == pytest.approx(0.4)
    assert np.isnan([found.low, found.high, other.low, other.high]).all()


# --------------------------------------------------------------------------------------------------------- made-up runs


def study(*runs, **settings):
    config = report.Config(runs=[str(run) for run in runs], **settings)
    reporting.check(config)
    return studies.read(config)


def scores(found):
    return {key: cell.scores.round(6).tolist() for key, cell in found.cells.items()}


@pytest.fixture
def runs(tmp_path):
    """Where runs are made."""
    return tmp_path / "runs"


# --------------------------------------------------------------------------------------------------------------- groups


def test_seeds_of_several_directories_are_one_group_whatever_changes_no_result(runs):
    make(runs / "a", [0.4, 0.8])
    changed = {
        "run.progress": False, "run.logger": ["wandb"], "run.checkpoint.best": True, "run.parallel.strategy": "map",
        "run.resume": "auto", "run.eval.num_envs": 4,
    }  # fmt: skip
    make(runs / "b", [0.6], seed=2, changed=changed)
    found = study(f"{runs}/*")
    assert scores(found) == {("vdn", "smax/2s3z"): [0.4, 0.8, 0.6]}
    assert [run.seed for run in found.cells["vdn", "smax/2s3z"].runs] == [0, 1, 2]
    assert found.counted("vdn") == "3 seeds"


def test_groups_are_named_by_what_tells_them_apart(runs):
    make(runs / "a", [0.1])
    make(runs / "b", [0.2], changed={"algo.hparams.lr": 0.25, "run.batch_size": 8})
    make(runs / "c", [0.3], (*SMAX, "modifiers=[differ]"))
    make(runs / "d", [0.4], (*SMAX, "modifiers=[differ]"), changed={"modifiers.differ.alpha": 0.5})
    alpha = plain(*SMAX, "modifiers=[differ]")["modifiers"]["differ"]["alpha"]
    assert {group: score for (group, _), (score,) in scores(study(f"{runs}/*")).items()} == {
        "vdn batch_size=32 lr=0.0005": 0.1,
        "vdn batch_size=8 lr=0.25": 0.2,
        f"vdn+differ alpha={alpha}": 0.3,
        "vdn+differ alpha=0.5": 0.4,
    }


def test_a_point_of_a_sweep_is_the_run_with_that_setting(runs):
    make(runs / "swept", [0.5, 0.7], changed={"sweep": {"lr": [0.25, 0.0005]}})
    make(runs / "other", [0.9], seed=2, changed={"algo.hparams.lr": 0.25})
    found = study(f"{runs}/*")
    assert scores(found) == {
        ("vdn lr=0.25", "smax/2s3z"): [0.5, 0.7, 0.9],
        ("vdn lr=0.0005", "smax/2s3z"): [0.5, 0.7],
    }


def test_tasks_are_told_apart_by_scenario_settings_and_data_set(runs):
    make(runs / "a", [0.1])
    make(runs / "b", [0.2], changed={"env.scenario": "3m"})
    make(runs / "c", [0.3], changed={"env.reward": "sparse"})
    make(runs / "d", [0.4], changed={"run.data": "sets/low.jds", "run.total_updates": 1000})
    found = study(f"{runs}/*")
    tasks = ["smax/2s3z from low", "smax/2s3z reward=dense", "smax/2s3z reward=sparse", "smax/3m"]
    assert list(found.tasks) == tasks
    assert found.groups == ["vdn"]
    assert [found.tasks[task].unit for task in tasks] == ["updates", *["environment steps"] * 3]
    assert [found.cells["vdn", task].scores.tolist() for task in tasks] == [[0.4], [0.1], [0.3], [0.2]]


def test_how_an_environment_on_the_host_is_run_is_no_task(runs):
    arguments = ("algo=vdn", "env=lbforaging", "total_env_steps=1000")
    make(runs / "a", [0.1], arguments)
    make(runs / "b", [0.2], arguments, seed=1, changed={"env.workers": 3, "env.timeout": 9.0, "env.python": "py"})
    assert list(study(f"{runs}/*").cells) == [("vdn", "lbforaging/8x8-2p-2f-coop")]


def test_labels_of_the_user(runs):
    make(runs / "a", [0.1])
    make(runs / "b", [0.2], QMIX)
    make(runs / "c", [0.3], QMIX, seed=1)
    found = study(f"Our VDN={runs / 'a'}", f"QMIX={runs}/[bc]")
    assert scores(found) == {("Our VDN", "smax/2s3z"): [0.1], ("QMIX", "smax/2s3z"): [0.2, 0.3]}
    assert found.settings.keys() == {f"algo.{key}" for key in ("embed_dim", "hypernet_dim", "hypernet_layers")}
    assert found.settings["algo.embed_dim"] == {"Our VDN": "–", "QMIX": "32"}
    assert labelled("runs/algo=qmix,lr=1") == ("", "runs/algo=qmix,lr=1")  # a path


def test_what_differs_within_a_label_is_refused_and_named(runs):
    make(runs / "a", [0.1])
    make(runs / "b", [0.2], seed=1, changed={"algo.hparams.lr": 0.25})
    make(runs / "c", [0.2], QMIX, seed=1)
    make(runs / "d", [0.2], seed=1, changed={"run.total_env_steps": 2000})
    with pytest.raises(RefusedError, match=r"lr=0\.0005 and 0\.25.*ignore=\[algo\.hparams\.lr\]") as refusal:
        study(f"X={runs}/[ab]")
    assert str(runs / "a") in str(refusal.value)
    with pytest.raises(RefusedError, match="algorithm=vdn and qmix") as refusal:
        study(f"X={runs}/[ac]")
    assert "ignore" not in str(refusal.value)
    with pytest.raises(RefusedError, match=r"total_env_steps=1000 and 2000.*ignore=\[total_env_steps\]"):
        study(f"{runs}/[ad]")
    assert scores(study(f"X={runs}/[ab]", ignore=["lr"])) == {("X", "smax/2s3z"): [0.1, 0.2]}
    assert scores(study(f"{runs}/[ad]", ignore=["total_env_steps"])) == {("vdn", "smax/2s3z"): [0.1, 0.2]}


def test_a_group_may_have_settings_of_its_own_for_each_task_if_one_says_so(runs):
    make(runs / "a", [0.1, 0.2])
    changed = {"env.scenario": "3m", "algo.hidden_dim": 8, "run.total_env_steps": 2000, "run.eval.every": 5}
    make(runs / "b", [0.3, 0.4], changed=changed)
    found = study(f"{runs}/*")
    assert found.groups == ["vdn hidden_dim=64", "vdn hidden_dim=8"]
    assert any("per_task=[algo.hidden_dim]" in note for note in found.notes)
    with pytest.raises(RefusedError, match=r"X: .*hidden_dim=64 and 8.*per_task=\[algo\.hidden_dim\]"):
        study(f"X={runs}/*")
    for runs_named in (f"X={runs}/*", f"{runs}/*"):
        (group,) = study(runs_named, per_task=["hidden_dim"]).groups
        assert group in ("X", "vdn")


def test_the_same_seed_twice_is_refused(runs):
    make(runs / "a", [0.1, 0.2])
    make(runs / "b", [0.3], seed=1)
    with pytest.raises(RefusedError, match="seed 1 is there twice"):
        study(f"{runs}/*")
    assert study(f"{runs}/a", f"{runs}/*a").counted("vdn") == "2 seeds"  # one directory named twice is there once
    with pytest.raises(RefusedError, match="named twice"):
        study(f"A={runs}/a", f"B={runs}/a")


def test_evaluations_that_differ_are_not_compared(runs):
    make(runs / "a", [0.1])
    make(runs / "b", [0.2], QMIX, changed={"run.eval.episodes": 7})
    make(runs / "c", [0.3], QMIX, changed={"run.eval.policy": "stochastic"})
    make(runs / "d", [0.4], seed=1, changed={"run.eval.policy": "both"})
    with pytest.raises(RefusedError, match=r"eval\.episodes=32 and 7.*ignore=\[eval\.episodes\]"):
        study(f"{runs}/[ab]")
    with pytest.raises(RefusedError, match=r"eval\.policy=greedy and stochastic"):
        study(f"{runs}/[ac]")
    assert len(study(f"{runs}/[ab]", ignore=["eval.episodes"]).cells) == 2
    assert scores(study(f"{runs}/[ad]")) == {("vdn", "smax/2s3z"): [0.1, 0.4]}  # both were greedy in `return`


def test_settings_and_versions_of_other_days_are_noted(runs):
    make(runs / "a", [0.1], changed={"algo.tau_of_old": 3})
    make(runs / "b", [0.2], QMIX, changed={"algo.hparams.tau": None})
    make(runs / "c", [0.3], QMIX, seed=1, versions={"jaxshare": "0.1.0", "jax": "0.11.0"})
    notes = study(f"{runs}/*").notes
    assert any(note.startswith(f"{runs / 'a'}: made by another version") for note in notes)
    assert any(note.startswith(f"{runs / 'b'}: ") and "defaults: algo.hparams.tau" in note for note in notes)
    assert any("different versions of jax 0.10.2 and 0.11.0" in note for note in notes)
    assert {group for group, _ in study(f"{runs}/*").cells} == {"vdn", "qmix"}


# --------------------------------------------------------------------------------------------------------------- scores


def test_runs_of_different_length_are_compared_where_the_shortest_ends(runs):
    make(runs / "a", [0.4, 0.8])
    make(runs / "b", [0.5], QMIX, steps=(0, 100, 200, 490, 620))  # unfinished; unequal evaluations
    found = study(f"{runs}/*", metric="return")
    assert scores(found) == {("vdn", "smax/2s3z"): [4.0, 8.0], ("qmix", "smax/2s3z"): [6.2]}  # of vdn that at 500
    notes = " ".join(found.notes)
    assert f"unfinished: {runs / 'b'}, seed 0, is at 620 of 1,000." in notes
    assert "taken at 620 environment steps" in notes
    assert scores(study(f"{runs}/*", metric="return", at="end"))["vdn", "smax/2s3z"] == [8.0, 16.0]
    assert scores(study(f"{runs}/*", metric="return", last=2))["qmix", "smax/2s3z"] == [pytest.approx((6.2 + 4.9) / 2)]
    assert list(study(f"{runs}/*", unfinished="drop").cells) == [("vdn", "smax/2s3z")]
    with pytest.raises(RefusedError, match=r"unfinished=refuse.*620 of 1,000.*resume=auto"):
        study(f"{runs}/*", unfinished="refuse")
    with pytest.raises(RefusedError, match=r"last=3.*2 evaluations.*last=2"):
        study(f"{runs}/*", last=3)


def test_a_score_is_of_the_nearest_evaluation_even_if_it_is_a_little_later(runs):
    make(runs / "a", [0.4, 0.8])
    make(runs / "b", [0.5], QMIX, steps=(0, 500, 980))
    found = study(f"{runs}/*")
    assert scores(found) == {("vdn", "smax/2s3z"): [0.4, 0.8], ("qmix", "smax/2s3z"): [0.49]}  # at 1000, not at 500


def test_a_run_that_has_not_begun_to_learn_is_refused(runs):
    make(runs / "a", [0.4, 0.8])
    make(runs / "b", [0.5], QMIX, steps=(0,))
    with pytest.raises(RefusedError, match=r"before training only.*unfinished=drop"):
        study(f"{runs}/*")
    with pytest.raises(RefusedError, match="leaves no run"):
        study(f"{runs}/b", unfinished="drop")


def test_a_seed_without_evaluation_is_noted(runs):
    make(runs / "a", [0.4, 0.8], changed={"run.seeds": 3})
    assert f"{runs / 'a'}: 1 of 3 runs have no evaluation yet and are left out." in study(f"{runs}/*").notes


def test_scores_of_evaluate(runs):
    final = {"final": {"checkpoint": 9, "runs": [{"seed": i, "env_steps": 1000, "return": 1.0 + i} for i in range(2)]}}
    played(make(runs / "a", [0.4, 0.8]), [3.0, 5.0], checkpoint="best", eval_seed=10_001, **final)
    played(make(runs / "b", [0.4], QMIX), [2.0])
    assert scores(study(f"{runs}/a", score="best")) == {("vdn", "smax/2s3z"): [3.0, 5.0]}
    assert scores(study(f"{runs}/a", score="final")) == {("vdn", "smax/2s3z"): [1.0, 2.0]}
    assert study(f"{runs}/a", score="best").metric == "return"  # evaluation.json has no win_rate here
    with pytest.raises(RefusedError, match=r"score=best.*evaluate run_dir=\S+b checkpoint=best"):
        study(f"{runs}/*", score="best")
    with pytest.raises(RefusedError, match=r"eval\.seed=10001 and 10000.*ignore=\[eval\.seed\]"):
        study(f"{runs}/*", score="final")
    assert len(study(f"{runs}/*", score="final", ignore=["eval.seed"]).cells) == 2
    assert scores(study(f"{runs}/a")) == {("vdn", "smax/2s3z"): [0.4, 0.8]}  # a best checkpoint has no other effect


def test_ranges(runs):
    for name, finals in {"a": [0.5, 1.0], "b": [0.2]}.items():
        make(runs / name, finals, QMIX if name == "b" else SMAX)
    found = study(f"{runs}/*", metric="win_rate").tasks["smax/2s3z"].range
    assert (found.low, found.high, found.source) == (0.0, 1.0, "a win rate")
    found = study(f"{runs}/*", metric="return").tasks["smax/2s3z"].range
    assert (found.low, found.high) == (0.0, 20.0)
    assert found.source == "lowest and highest evaluation of the runs in this report"
    for name in ("2s3z", "smax/2s3z"):
        given = study(f"{runs}/*", metric="return", ranges={name: [10, 20]})
        assert given.tasks["smax/2s3z"].range == Range(10.0, 20.0, "given")
        assert given.normalised("vdn")[0].tolist() == [0.0, 1.0]
    with pytest.raises(RefusedError, match="all evaluations are 9, which gives no range"):
        study(f"{runs}/*", metric="length")
    with pytest.raises(RefusedError, match="3m, which is no task here"):
        study(f"{runs}/*", ranges={"3m": [0, 1]})
    for wrong in ([1, 1], [1], "x"):
        with pytest.raises(RefusedError, match="a lower and an upper score"):
            study(f"{runs}/*", ranges={"2s3z": wrong})


def test_a_data_set_gives_the_range(runs):
    size, empty = (1, 2, 2), np.zeros((1, 1), bool)
    episodes = Episode(
        obs=np.zeros((*size, 1)), state=np.zeros((1, 2, 1)), avail=np.ones((*size, 2), bool),
        alive=np.ones(size, bool), action=np.zeros((1, 1, 2), np.int32), reward=np.zeros((1, 1, 2)),
        terminated=empty, truncated=~empty, mask=~empty,
    )  # fmt: skip
    card = {"pools": {"low": -4.0, "high": 36.0}, "common_reward": True}
    data = own.save(records.make(episodes, card=card), runs.parent / "low.jds")
    make(runs / "a", [0.5, 1.0], changed={"run.data": str(data), "run.total_updates": 1000})
    found = study(f"{runs}/*", metric="return")
    (task,) = found.tasks.values()
    of = task.range
    assert (of.low, of.high, of.source) == (-4.0, 36.0, "random play and best policy of the data set's pool")
    assert found.normalised("vdn")[0].tolist() == [0.35, 0.6]  # of returns 10 and 20


# ------------------------------------------------------------------------------------------------------------- refusals


def test_refused_directories(runs):
    make(runs / "a", [0.4])
    make(runs / "none", [])
    make(
        runs / "odd", [0.4], more=[{"seed": 0, "env_steps": 1, "updates": 1, "wall_s": 1, "eval/return": float("nan")}]
    )
    (runs / "file.png").touch()
    with pytest.raises(RefusedError, match=r"runs is not a run directory: it has no config\.yaml\. It holds 3 of them"):
        study(runs)
    with pytest.raises(RefusedError, match=r"file\.png is not a run directory.*skip=true"):
        study(f"{runs}/*")
    with pytest.raises(RefusedError, match="has no evaluation yet"):
        study(runs / "none")
    with pytest.raises(RefusedError, match="nowhere does not exist"):
        study(runs / "nowhere")
    with pytest.raises(
        RefusedError, match=r"metric=score: .*a, seed 0 has no such score\. It has: length, return, win_ra"
    ):
        study(runs / "a", metric="score")
    with pytest.raises(RefusedError, match="return of nan"):
        study(runs / "odd", metric="return", last=3)
    with pytest.raises(RefusedError, match="no run to report"):
        study(runs / "none", skip=True)
    (runs / "a" / "metrics.jsonl").write_text("{]\n")
    with pytest.raises(RefusedError, match=r"metrics\.jsonl cannot be read"):
        study(runs / "a")


def test_skip_leaves_out_and_says_so(runs):
    make(runs / "a", [0.4])
    make(runs / "none", [])
    (runs / "file.png").touch()
    found = study(f"{runs}/*", skip=True)
    assert list(found.cells) == [("vdn", "smax/2s3z")]
    assert [note for note in found.notes if "left out:" in note] == [
        f"left out: {runs / 'file.png'} is not a run directory: it has no config.yaml.",
        f"left out: {runs / 'none'} has no evaluation yet.",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["no run is named", "runs/*"]),
        (["--out", "x"], ["--out", "out=report"]),
        (["otu=x"], ["otu", "Did you mean out"]),
        (["x", "score=max"], ["score=max", "curve, final, best"]),
        (["x", "at=begin"], ["at=begin", "common, end"]),
        (["x", "unfinished=keep"], ["unfinished=keep", "cut, drop, refuse"]),
        (["x", "last=0"], ["last=0", "at least 1"]),
        (["x", "resamples=0"], ["resamples=0", "at least 1"]),
        (["x", "confidence=95"], ["confidence=95", "between 0 and 1"]),
        (["x", "seed=-1"], ["seed=-1", "at least 0"]),
        (["x", "last=2", "score=best"], ["last=2", "score=best", "no effect"]),
        (["x", "last=many"], ["last", "many"]),
    ],
)
def test_refused_settings(arguments, words):
    with pytest.raises(RefusedError) as refusal:
        report.report(report.configured(arguments))
    assert [word for word in words if word not in str(refusal.value)] == []


def test_refused_names_of_settings(runs):
    make(runs / "a", [0.4])
    with pytest.raises(RefusedError, match=r"ignore=\[hiden_dim\].*Did you mean algo\.hidden_dim"):
        study(runs / "a", ignore=["hiden_dim"])


def test_arguments(runs, monkeypatch):
    make(runs / "a", [0.4])
    monkeypatch.chdir(runs)
    found = report.configured(
        ["a", "out=o", "ignore=lr", "A=a", "per_task=[x,y]", "ranges={2s3z:[0,20]}", "metric=return"]
    )
    assert found == report.Config(
        runs=["a", "A=a"], out="o", ignore=["lr"], per_task=["x", "y"], ranges={"2s3z": [0, 20]}, metric="return"
    )
    again = sentences.command(found).split()
    assert again[:3] == ["python", "-m", "jaxshare.report"]
    assert report.configured([word.strip("'") for word in again[3:]]) == found


def test_help_shows_every_setting_with_a_word(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["report", "--help"])
    report.main()
    shown = capsys.readouterr().out
    assert '"ranges={2s3z:[0,20]}"' in shown
    for name in report.Config.__dataclass_fields__:
        assert re.search(rf"^  {name}=\S* +\S.{{10,}}$", shown, re.MULTILINE), name


# ----------------------------------------------------------------------------------------------------------- the report

FINALS = {"vdn": {"2s3z": [0.4, 0.8, 0.6], "3m": [0.9, 1.0]}, "qmix": {"2s3z": [0.5, 0.7], "3m": [0.6, 0.7]}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report of two groups on two tasks, with what it printed, and a third group with one seed on one of them."""
    folder = tmp_path_factory.mktemp("report")
    for group, tasks in FINALS.items():
        for task, finals in tasks.items():
            arguments = QMIX if group == "qmix" else SMAX
            make(folder / f"{group}_{task}", finals, arguments, changed={"env.scenario": task})
    config = report.Config(runs=[f"{folder}/*_*"], out=str(folder / "out"), resamples=FEW)
    return folder / "out", report.report(config)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_numbers_are_the_same_everywhere(made):
    out, found = made
    assert json.loads((out / "report.json").read_text()) == found
    assert found["metric"] == "win_rate"
    assert found["common_tasks"] == ["smax/2s3z", "smax/3m"]
    assert found["aggregates"]["vdn"]["seeds"] == "2 to 3"
    assert found["aggregates"]["qmix"]["seeds"] == "2"
    vdn, qmix = found["aggregates"]["vdn"], found["aggregates"]["qmix"]
    assert vdn["mean"]["value"] == pytest.approx((0.6 + 0.95) / 2)
    assert vdn["iqm"]["value"] == pytest.approx((0.6 + 0.8 + 0.9) / 3)  # of five runs without the ends
    assert qmix["optimality_gap"]["value"] == pytest.approx(1 - 2.5 / 4)
    (pair,) = found["improvement"]
    assert pair["value"] == pytest.approx((3 / 6 + 1.0) / 2 if pair["x"] == "vdn" else 1 - (3 / 6 + 1.0) / 2)
    for row in rows(out / "aggregates.csv"):
        for name in ("iqm", "mean", "median", "optimality_gap"):
            for bound in ("value", "low", "high"):
                assert float(row[f"{name} {bound}"]) == found["aggregates"][row["group"]][name][bound]
    for row in rows(out / "tasks.csv"):
        group = found["tasks"][row["task"]]["groups"][row["group"]]
        assert int(row["seeds"]) == len(group["seeds"]) == len(FINALS[row["group"]][row["task"].removeprefix("smax/")])
        assert float(row["iqm low"]) == group["iqm"]["low"]
        assert row["range from"] == "a win rate"
    assert {(r["run_dir"], r["seed"], float(r["win_rate"])) for r in rows(out / "scores.csv")} == {
        (str(out.parent / f"{group}_{task}"), str(i), x)
        for group, tasks in FINALS.items() for task, xs in tasks.items() for i, x in enumerate(xs)
    }  # fmt: skip


def test_curves_and_profiles(made):
    out, _ = made
    curves = rows(out / "curves.csv")
    own = [r for r in curves if (r["group"], r["task"], r["against"]) == ("vdn", "smax/2s3z", "environment steps")]
    assert (float(own[0]["x"]), float(own[-1]["x"]), len(own)) == (0.0, 1000.0, POINTS)
    for row in own:  # of three runs none is left out: the IQM is their mean, which goes on a line
        assert float(row["value"]) == pytest.approx(0.6 * float(row["x"]) / 1000)
        assert float(row["low"]) <= float(row["value"]) <= float(row["high"])
    wall = [r for r in curves if (r["group"], r["task"], r["against"]) == ("vdn", "smax/2s3z", "seconds")]
    assert (float(wall[0]["x"]), float(wall[-1]["x"])) == (5.0, 105.0)
    overall = [r for r in curves if r["task"] == "all, normalised" and r["group"] == "qmix"]
    assert (float(overall[-1]["x"]), float(overall[-1]["value"])) == (1.0, pytest.approx((0.6 + 0.7) / 2))
    for row in rows(out / "profiles.csv"):
        tau = float(row["tau"])
        above = [np.mean([x > tau for x in xs]) for xs in FINALS[row["group"]].values()]
        assert float(row["value"]) == pytest.approx(np.mean(above), abs=1e-9)
        assert row["seeds"] == {"vdn": "2 to 3", "qmix": "2"}[row["group"]]


def test_the_page_holds_everything_by_itself(made):
    out, found = made
    page = (out / "report.html").read_text()
    inlined = [base64.b64decode(data) for data in re.findall(r"src='data:image/png;base64,([^']+)'", page)]
    assert len(inlined) == len(re.findall("src=", page)) == 5
    assert sorted(inlined) == sorted(path.read_bytes() for path in out.glob("*.png"))
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    for sentence in (*found["how"], *found["notes"]):
        assert sentence.replace("'", "&#x27;").replace(">", "&gt;") in page
    assert "0.775 [" in page  # the mean of vdn
    assert page.count("<table>") == page.count("</table>") == 5


def test_markup_in_a_label_stays_text(runs, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(pictures, "draw", lambda *_: {})
    make(runs / "a", [0.4, 0.5])
    report.report(report.Config(runs=[f"<b>50%_[red]x&y={runs / 'a'}"], resamples=9, out=str(runs / "out")))
    assert "<td>&lt;b&gt;50%_[red]x&amp;y</td>" in (runs / "out" / "report.html").read_text()
    assert r"<b>50\%\_[red]x\&y & $" in (runs / "out" / "tables.tex").read_text()
    assert capsys.readouterr().out.count(" <b>50%_[red]x&y  ") == 2
    assert drawing.broken("$a$ b") == r"\$a\$ b"


def test_latex(made):
    out, found = made
    text = (out / "tables.tex").read_text()
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2
    iqm = found["tasks"]["smax/3m"]["groups"]["qmix"]["iqm"]
    assert f"${iqm['value']:.3f}$ {{\\scriptsize $[{iqm['low']:.3f}, {iqm['high']:.3f}]$}} (2)" in text
    widths = [line.count("&") for line in text.splitlines() if line.endswith(r"\\")]
    assert widths == [2, 2, 2, 5, 5, 5]
    assert "vdn & 2 to 3 & " in text


def test_marl_eval(made):
    """The structure that marl-eval's README asks for: lists of numbers, step_count, absolute_metrics last."""
    out, _ = made
    found = json.loads((out / "marl_eval.json").read_text())
    assert {task: set(groups) for task, groups in found["smax"].items()} == {t: set(FINALS) for t in ("2s3z", "3m")}
    for task, groups in found["smax"].items():
        for group, seeds in groups.items():
            assert list(seeds) == [f"seed_{i}" for i in range(len(FINALS[group][task]))]
            for final, steps in zip(FINALS[group][task], seeds.values(), strict=True):
                assert list(steps) == ["step_1", "step_2", "step_3", "absolute_metrics"]
                assert [steps[f"step_{i}"]["step_count"] for i in (1, 2, 3)] == [0, 500, 1000]
                assert steps["step_2"]["win_rate"] == [pytest.approx(final / 2)]
                expected = {"length": [9.0], "return": [20 * final], "win_rate": [final]}
                assert steps["absolute_metrics"] == {key: [pytest.approx(x[0])] for key, x in expected.items()}


def test_the_console_states_groups_seeds_and_notes(runs, capsys):
    make(runs / "a", [0.4])
    make(runs / "b", [0.6, 0.8], QMIX, changed={"env.scenario": "3m"})
    (runs.parent / "o").mkdir()
    (runs.parent / "o" / "improvement.png").touch()  # of an earlier report
    report.report(report.Config(runs=[f"{runs}/*"], out=str(runs.parent / "o"), resamples=FEW))
    shown = capsys.readouterr().out
    first, second = shown.split("win rate on smax/")[1:3]
    assert re.search(r"vdn +1 +0\.400 +0\.400", first)
    assert not re.search(r"^ +qmix", first, re.MULTILINE)
    assert re.search(r"qmix +2 +0\.700", second)
    assert not re.search(r"^ +vdn", second, re.MULTILINE)
    assert "note: one seed says nothing of the spread, so there is no interval: vdn on smax/2s3z." in shown
    assert "note: with fewer than 5 seeds bootstrap intervals are too narrow: qmix on smax/3m." in shown
    assert "Aggregates are over: none, so there are no aggregates." in shown
    assert {path.name for path in (runs.parent / "o").glob("*.png")} == {"curves.png", "wall_time.png"}


def test_the_same_seed_gives_the_same_report(made, runs):
    out, found = made
    again = report.Config(runs=[f"{out.parent}/*_*"], out=str(out), resamples=FEW)
    config = report.replace(again, out=str(runs))
    assert plain_values.plain(computed(again), [])["aggregates"] == found["aggregates"]
    other = report.replace(config, seed=1)
    assert plain_values.plain(computed(other), [])["aggregates"] != found["aggregates"]


def computed(config):
    found = studies.read(config)
    return numbering.Report(found, numbering.make(found, config), config)


# ------------------------------------------------------------------------------------------------------------- pictures


OF_AGENTS = {"eval/return/best_agent": 1.0, "eval/return/worst_agent": 0.25, "ratio/from_0_percent": 0.125}
OF_AGENTS |= {"ratio/from_50_percent": 0.625, "ratio/from_200_percent": 0.25}


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """(study, {name: figure}) of eight groups with long names on four tasks; one has a run more, which is shorter."""
    folder, draw = tmp_path_factory.mktemp("figures"), np.random.default_rng(0)
    sweep = {"lr": [0.25, 0.125], "gamma": [0.9, 0.95], "tau": [0.01, 0.02]}
    for task in ("2s3z", "3m", "3s5z_vs_3s6z", "MMM2"):
        changed = {"env.scenario": task, "sweep": sweep}
        make(folder / task, draw.uniform(0.2, 1, 3), steps=(0, 1000), changed=changed, logged=OF_AGENTS)
        changed["sweep"] = {name: values[:1] for name, values in sweep.items()}
        make(folder / f"{task} more", [0.5], steps=(0, 400, 600), seed=3, changed=changed, logged=OF_AGENTS)
    shown = computed(report.Config(runs=[f"{folder}/*"], resamples=30))
    assert len(shown.study.groups) == 8
    return shown.study, {name: make(shown) for name, make in pictures.PICTURES.items()}


def texts(figure):
    return [text for text in figure.findobj(match=lambda x: hasattr(x, "get_text")) if text.get_text().strip()]


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_pictures_of_many_groups_state_the_seeds_and_cut_nothing_off(figures, name):
    found, drawn = figures
    figure = drawn[name]
    FigureCanvasAgg(figure).draw()
    shown = [text for text in texts(figure) if not re.fullmatch(r"[−\d.]+[kM]?", text.get_text())]  # ticks are clipped
    words = " ".join(text.get_text() for text in shown).replace("\n", " ").replace("\u00a0", " ")
    for group in found.groups:
        assert f"{group} ({found.counted(group)})" in words
    width, height = figure.canvas.get_width_height()
    for text in shown:
        box = text.get_window_extent()
        assert box.x0 > -2, text
        assert box.y0 > -2, text
        assert box.x1 < width + 2, text
        assert box.y1 < height + 2, text


def test_panels(figures):
    found, drawn = figures
    titles = [axis.get_title() for axis in drawn["curves"].axes if axis.axison]
    assert titles == [*(f"{task}\n3 to 4 seeds a group" for task in found.tasks), "4 tasks together"]
    dotted = [
        line for axis in drawn["curves"].axes for line in axis.lines if line.get_label() == "where scores are taken"
    ]
    assert [set(line.get_xdata()) for line in dotted] == [{600.0}] * 4
    assert len(set(drawing.looks([str(i) for i in range(40)]).values())) == 40
    assert len(drawn["improvement"].axes[0].texts) == 8 * 7


def test_best_and_worst_agents_and_ratios_are_as_they_were_logged(figures):
    _, drawn = figures
    (best, worst), *_ = zip(*[iter(drawn["agents"].axes[0].lines)] * 2, strict=True)
    assert (set(best.get_ydata()), set(worst.get_ydata())) == ({1.0}, {0.25})
    assert (best.get_color(), best.get_linestyle(), worst.get_linestyle()) == (worst.get_color(), "-", "--")
    shares = drawn["ratios"].axes[0].lines[0]
    np.testing.assert_array_equal(shares.get_xdata(), [0.0, 0.5, 2.0, 2.5])
    np.testing.assert_array_equal(shares.get_ydata(), [0.125, 0.625, 0.25, 0.25])
    assert shares.get_drawstyle() == "steps-post"


def test_files_are_pictures(made):
    out, _ = made
    assert {path.name for path in out.glob("*.png")} == {
        "aggregates.png", "profiles.png", "improvement.png", "curves.png", "wall_time.png"
    }  # fmt: skip
    for path in out.glob("*.png"):
        pixels = np.asarray(Image.open(path).convert("L"))
        assert pixels.shape[1] > 600
        assert pixels.std() > 10  # not blank


def test_a_refusal_is_one_sentence(made, monkeypatch, capsys):
    out, _ = made
    monkeypatch.setattr(sys, "argv", ["report", str(out.parent)])
    with pytest.raises(SystemExit) as end:
        report.main()
    assert end.value.code == 1
    assert re.fullmatch(r"error: \S+ is not a run directory: .*\n", capsys.readouterr().err)

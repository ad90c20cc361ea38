"""What runs say of a study: scores, logged numbers, checks, verdicts; the runs are made up."""

import dataclasses
import json

import numpy as np
import pytest
from tiny_studies import STUDY, book, make_run, tiny_plan

from jaxshare.study import judge as judging
from jaxshare.study import plan as planning
from jaxshare.study.arrivals import first_reached
from jaxshare.study.check import Check, Quantity, Series
from jaxshare.study.job import Job
from jaxshare.study.language import Study
from jaxshare.study.packing import Piece
from jaxshare.study.values import Runs, Scoring, of_types
from jaxshare.types import RefusedError


def judged(tmp_path, of_file, plan, missing=()):
    reasons = dict.fromkeys(missing, "was stopped")
    return judging.judge(of_file.studies["lecture_tiny"], plan, "small", tmp_path, reasons)


def test_a_claim_is_judged_from_its_runs(tmp_path):
    of_file, plan, jobs = tiny_plan(tmp_path)
    for arm, level in (("A", 9.0), ("B", 2.0)):
        make_run(tmp_path, jobs[arm], {s: [(0, 0.0), (32, 1.0), (66, level + s)] for s in (0, 1)})
    found = judged(tmp_path, of_file, plan)
    (check,) = found["checks"]
    assert found["verdict"] == check["verdict"] == "confirmed"
    # A in {9, 9.5, 10}, B in {2, 2.5, 3}: from 6 to 8, before it is stretched as n = 2 asks
    assert (check["value"], check["low"], check["high"]) == pytest.approx(
        (7.0, 7 - 3.10459, 7 + 3.10459),
        rel=1e-4,
    )
    cell = found["cells"]["game"]["A"]
    assert (cell["scores"], cell["iqm"], cell["paper"]) == ([9.0, 10.0], 9.5, [5, 1])
    assert cell["curve"]["x"][0] == 0
    assert cell["curve"]["y"][-1] == 9.5
    assert found["versions"] == {"jax": "1.2.3"}
    assert len(found["commands"]) == 2
    missing = judged(tmp_path, of_file, plan, [jobs["B"].name])
    assert missing["verdict"] == "not run"
    assert "was stopped" in missing["checks"][0]["reason"]
    assert list(missing["cells"]["game"]) == ["A"]


def test_a_check_is_refuted_by_one_of_its_tasks(tmp_path, monkeypatch):
    found = {("one",): "confirmed", ("two",): "not confirmed", ("one", "two"): "confirmed"}
    monkeypatch.setattr(
        judging._Judging,
        "value",
        lambda self, check, tasks: {"verdict": found[tuple(tasks)]},
    )
    cells = {(task, arm): (Piece("job"),) for task in ("one", "two") for arm in "AB"}
    jobs = {"job": Job("job", "train", (), "job")}
    plan = planning.Plan(Study("s", False, "t"), "small", "runs", 2, cells, jobs=jobs)
    check = Check("A - B", "greater", ["A", "B"])
    of_plan = judging._Judging(plan, tmp_path, {})
    assert of_plan.check(check)["verdict"] == "not confirmed"
    assert of_plan.check(dataclasses.replace(check, tasks=["one"]))["verdict"] == "confirmed"


def test_equal_arms_that_learned_nothing_show_nothing(tmp_path):
    changes = ("compare: greater", "compare: equal, margin: 0.5")
    of_file, plan, jobs = tiny_plan(tmp_path, changes)
    for arm in jobs:
        make_run(tmp_path, jobs[arm], {s: [(0, 1.0), (66, 1.1)] for s in (0, 1)})
    found = judged(tmp_path, of_file, plan)
    assert found["verdict"] == "undecided"
    assert "neither learned" in found["checks"][0]["note"]
    for arm in jobs:
        make_run(tmp_path, jobs[arm], {s: [(0, 1.0), (66, 4.1)] for s in (0, 1)})
    assert judged(tmp_path, of_file, plan)["verdict"] == "confirmed"


def test_scores_of_the_end_and_of_the_whole_curve(tmp_path):
    _, plan, jobs = tiny_plan(tmp_path)
    make_run(
        tmp_path,
        jobs["A"],
        {0: [(0, 9.0), (20, 1.0), (40, 2.0), (66, 6.0)], 1: [(0, 9.0), (66, 4.0)]},
    )
    runs = Runs(plan, tmp_path)
    usual = Scoring("return", "final", 2)
    np.testing.assert_allclose(runs.scores("game", "A", usual), [4.0, 4.0])
    np.testing.assert_allclose(
        runs.scores("game", "A", dataclasses.replace(usual, score="curve")),
        [3.0, 4.0],
    )
    np.testing.assert_allclose(runs.reached("game", "A", 6.0), [1.0, 0.0])
    with pytest.raises(RefusedError, match="no win_rate"):
        runs.scores("game", "A", dataclasses.replace(usual, metric="win_rate"))


def test_logged_numbers_of_the_later_part(tmp_path):
    _, plan, jobs = tiny_plan(tmp_path)
    values = {0: 1.0, 20: 8.0, 40: 2.0, 60: 4.0}

    def extra(seed, at):
        return {"x": values[at] + seed, "y": 1.0}

    make_run(tmp_path, jobs["A"], {s: [(at, 0.0) for at in values] for s in (0, 1)}, extra)
    runs = Runs(plan, tmp_path)

    def late(**how):
        return runs.series("game", "A", Series("x", **how))

    np.testing.assert_allclose(late(), [3.0, 4.0])
    np.testing.assert_allclose(late(against="begin"), [3.0, 2.0])
    np.testing.assert_allclose(late(against="peak"), [3 / 8, 4 / 9])
    np.testing.assert_allclose(late(against="y", by="difference"), [2.0, 3.0])
    np.testing.assert_allclose(late(since=1.0), [4.0, 5.0])


def test_logged_numbers_are_added(tmp_path):
    _, plan, jobs = tiny_plan(tmp_path)

    def extra(seed, at):
        return {"x": 1.0 + seed, "y": at / 10, "z": 0.5} if at else {"x": 50.0}  # not all of them: left out

    make_run(tmp_path, jobs["A"], {s: [(at, 0.0) for at in (0, 20, 40)] for s in (0, 1)}, extra)
    series = Series("x", since=0.0, plus=["y", "z"])
    np.testing.assert_allclose(Runs(plan, tmp_path).series("game", "A", series), [4.5, 5.5])


@pytest.mark.parametrize(
    ("points", "level", "expected"),
    [
        ([(0, 0.0), (20, 1.0), (40, 3.0)], 2.0, 30.0),  # half way between two
        ([(0, 0.0), (20, 1.0), (40, 3.0)], 1.0, 20.0),
        ([(0, 2.5), (20, 1.0)], 2.0, 0.0),  # from the first on
        ([(0, 0.0), (10, 4.0), (20, 0.0), (30, 4.0)], 4.0, 10.0),  # the first time counts
        ([(0, -4.0), (20, -2.0)], -3.0, 10.0),
        ([(0, 0.0), (20, 1.0)], 1.5, None),
    ],
)
def test_when_a_curve_is_at_a_level(points, level, expected):
    assert first_reached(np.array(points, float), level) == expected


def arrivals(tmp_path, slow, fast, check):
    """The check of two arms whose seeds go on lines through these points."""
    tmp_path.mkdir(exist_ok=True)
    of_file, plan, jobs = tiny_plan(tmp_path, ("compare: greater, arms: [A, B]", check))
    for arm, curves in (("A", slow), ("B", fast)):
        make_run(tmp_path, jobs[arm], dict(enumerate(curves)))
    (found,) = judged(tmp_path, of_file, plan)["checks"]
    return found


LINE = [(0, 0.0), (64, 4.0)]  # at 2 after 32 steps
SLOW = [(0, 0.0), (64, 2.0)]  # at 2 after 64
NEVER = [(0, 0.0), (64, 1.0)]
TO_TWO = "compare: greater, margin: {margin}, arms: [A, B], quantity: {{steps_to: {{level: 2, as_power: {power}}}}}"


def test_fewer_steps_to_the_same_return(tmp_path):
    found = arrivals(tmp_path, [SLOW] * 3, [LINE] * 3, TO_TWO.format(margin=0, power="false"))
    assert (found["value"], found["verdict"]) == (32.0, "confirmed")


@pytest.mark.parametrize(("margin", "verdict"), [(0.9, "confirmed"), (1.1, "not confirmed")])
def test_a_ratio_of_steps_is_a_difference_of_powers(tmp_path, margin, verdict):
    found = arrivals(tmp_path, [SLOW] * 3, [LINE] * 3, TO_TWO.format(margin=margin, power="true"))
    assert (found["value"], found["verdict"]) == (1.0, verdict)


def test_a_seed_that_never_gets_there_can_only_confirm_that_it_is_slower(tmp_path):
    slower = arrivals(tmp_path / "a", [NEVER] * 3, [LINE] * 3, TO_TWO.format(margin=0, power="false"))
    assert (slower["value"], slower["verdict"]) == (32.0, "confirmed")  # it counts with its 64 steps
    more = arrivals(tmp_path / "b", [NEVER] * 3, [LINE] * 3, TO_TWO.format(margin=40, power="false"))
    assert (more["verdict"], more["note"]) == ("undecided", "3 of 3 seeds of A never get there")
    other = arrivals(tmp_path / "c", [LINE] * 3, [LINE, LINE, NEVER], TO_TWO.format(margin=-99, power="false"))
    assert (other["verdict"], other["note"]) == ("undecided", "1 of 3 seeds of B never get there")


def test_numbers_of_a_script_have_no_interval(tmp_path):
    quantity = "quantity: {json: j, path: [a, b]}"
    change = ("compare: greater, arms: [A, B]", f"compare: at_most, threshold: 1, {quantity}")
    job = ("    last: 1\n", "    last: 1\n    jobs: {j: {run: [x.py, '{out}']}}\n")
    of_file, plan, _ = tiny_plan(tmp_path, change, job)
    check = of_file.studies["lecture_tiny"].checks[0]
    out = tmp_path / plan.jobs[plan.scripts["j"]].out
    out.write_text(json.dumps({"a": {"b": [0.5, 0.9]}}))
    result = judging._Judging(plan, tmp_path, {}).check(check)
    assert (result["value"], result["low"], result["high"]) == (0.9, 0.9, 0.9)
    assert result["verdict"] == "confirmed"
    out.write_text(json.dumps({"a": {"b": [0.5, 1.1]}}))
    assert judging._Judging(plan, tmp_path, {}).check(check)["verdict"] == "not confirmed"
    distances = Quantity(json="j", path=["a", "b"], near=[1.0, 1.0])
    np.testing.assert_allclose(Runs(plan, tmp_path).json(distances), [0.5])


def test_numbers_of_a_decomposition_are_means_over_types():
    types = {
        "stalker": {
            "auroc_reward": {"pairs": 0.6},
            "better": {"probability": 0.5, "trajectories": 0.2},
        },
        "zealot": {"auroc_reward": {"pairs": 0.8}, "better": None},
        "marine": {
            "auroc_reward": {"pairs": None},
            "better": {"probability": 0.4, "trajectories": 0.3},
        },
    }
    assert of_types(types, "auroc_reward.pairs") == pytest.approx(0.7)
    assert of_types(types, "better.minus_uniform") == pytest.approx(0.2)
    with pytest.raises(RefusedError, match="nothing"):
        of_types(types, "nothing")


def test_a_study_without_checks_is_measured(tmp_path):
    of_file = book(tmp_path, text=STUDY)
    study = of_file.studies["climb"]
    plan = planning.make(of_file, "climb", "small")
    first, second = plan.jobs.values()
    missing = dict.fromkeys(plan.jobs, "it has not been run yet")
    assert judging.judge(study, plan, "small", tmp_path, missing)["verdict"] == "not run"
    make_run(tmp_path, first, {s: [(0, 0.0), (66, 3.0 + s)] for s in (0, 1)})
    result = judging.judge(study, plan, "small", tmp_path, {second.name: "it has not been run yet"})
    assert result["verdict"] == "unfinished"
    make_run(tmp_path, second, {s: [(0, 0.0), (66, 5.0 + s)] for s in (0, 1)})
    result = judging.judge(study, plan, "small", tmp_path, {})
    assert result["verdict"] == "measured"
    assert result["cells"]["game"]["A"]["iqm"] == 3.5
    assert result["cells"]["game"]["B"]["scores"] == [5.0, 6.0]


def test_one_seed_has_no_interval(tmp_path):
    of_file, plan, jobs = tiny_plan(tmp_path, ("small: {seeds: 2", "small: {seeds: 1"))
    for arm, level in (("A", 9.0), ("B", 2.0)):
        make_run(tmp_path, jobs[arm], {0: [(0, 0.0), (66, level)]})
    result = judged(tmp_path, of_file, plan)
    assert result["verdict"] == "undecided"
    assert (result["checks"][0]["value"], result["checks"][0]["note"]) == (7.0, "one seed")
    assert result["cells"]["game"]["A"]["low"] is None

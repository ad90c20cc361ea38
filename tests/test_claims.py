"""benchmarks/claims.py: the claims are well-formed, verdicts by hand, what is done is not done again, and the page."""

import dataclasses
import json
import re
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import yaml

sys.path.insert(0, str(tiny.REPOSITORY / "benchmarks"))

import _claims_cost as cost
import _claims_judge as judging
import _claims_page as page
import _claims_plan as planning
import _claims_run as running
import _claims_steps as steps
import claims

from jaxshare import cli, registry
from jaxshare.ops import schedules
from jaxshare.results import statistics
from jaxshare.settings import hydra
from jaxshare.types import RefusedError

BOOK = planning.read()
PLANS = {(name, budget): planning.plan(BOOK, name, budget) for name in BOOK.claims for budget in planning.BUDGETS}
GROUPS = ("preset", "algo", "env", "modifiers")

# ------------------------------------------------------------------------------------------------------------ the book


def settings_of(job):
    return planning.merged([a.replace("{root}", "runs") for a in job.arguments])


def trainings(budget=None):
    found = {}
    for (_, own), plan in PLANS.items():
        if plan and budget in (None, own):
            found |= {job.name: job for job in plan.jobs.values() if job.kind == "train"}
    return found


def test_the_claims_of_all_papers_are_there():
    assert {name.partition("_")[0] for name in BOOK.claims} == set(page.PAPERS)
    for name in ("divide", "hetero", "homo", "qplex", "maser", "coma", "warm_up", "spread", "shares"):
        assert f"differ_{name}" in BOOK.claims
    assert {claim["title"][:2] for name, claim in BOOK.claims.items() if name.startswith("sit_")} >= {
        f"K{i}" for i in range(1, 8)
    }


@pytest.mark.parametrize("name", BOOK.claims)
def test_a_claim_can_be_decided_or_says_why_not(name):
    claim = BOOK.claims[name]
    if "not_run" in claim:
        assert PLANS[name, "small"] is None
        assert len(claim["not_run"]) > 20
        return
    assert not isinstance(claim["full"], str)
    for budget in planning.BUDGETS:
        plan = PLANS[name, budget]
        if isinstance(claim[budget], str):
            assert plan is None
            assert len(claim[budget]) > 20
            continue
        deciding = [check for check in claim["checks"] if check.get("decides", True)]
        assert deciding
        for check in deciding:  # what it needs is among the jobs
            if "json" in check.get("quantity", {}):
                assert plan.scripts[check["quantity"]["json"]] in plan.jobs
                continue
            tasks = [t for t in check.get("tasks", plan.tasks) if all((t, a) in plan.cells for a in check["arms"])]
            assert tasks
            if "decomposition" in check.get("quantity", {}):
                assert all((task, arm) in plan.decompositions for task in tasks for arm in check["arms"])
        for job in plan.jobs.values():
            assert all(need in plan.jobs for need in job.needs)
        used = {arm for check in claim["checks"] for arm in check.get("arms", [])}
        assert {arm for _, arm in plan.cells} <= used | {"PP-PPS"}  # shown beside the others only


def test_what_the_papers_say_is_of_arms_and_tasks_that_exist():
    for name, claim in BOOK.claims.items():
        for task, arms in claim.get("values", {}).items():
            assert task in claim["tasks"], name
            for numbers in arms.values():
                assert len(numbers) in (1, 2), name


def test_runs_are_shared_and_named_apart():
    first, second = PLANS["differ_hetero", "small"], PLANS["differ_shares", "small"]
    assert first.cells["MMM2", "DIFFER"] == second.cells["MMM2", "DIFFER"]
    assert first.cells["MMM2", "DIFFER"] != first.cells["MMM2", "QMIX"]
    assert len({job.out for job in trainings("small").values()}) == len(trainings("small"))
    assert not set(trainings("small")) & set(trainings("full"))


def small_jobs():
    jobs = {}
    for (_, budget), plan in PLANS.items():
        jobs |= plan.jobs if plan and budget == "small" else {}
    return jobs


def test_measured_costs_are_of_jobs_that_exist_and_all_fit_into_three_hours():
    table, jobs = planning.costs(), small_jobs()
    assert len(table) >= 10
    assert set(table) <= {job.speed for job in jobs.values()}
    for found in table.values():
        assert all(value >= 0 for value in found.values())
        assert found["start_s"] > 0
        assert found.get("rate", 1.0) > 0
    each = [planning.seconds(job, table) for job in jobs.values()]
    assert sum(cost for cost in each if cost is not None) / 2 < 3 * 3600  # two cores


def test_every_job_of_the_small_budget_has_a_measured_cost():
    assert {job.speed for job in small_jobs().values()} - set(planning.costs()) == set()


def composed(jobs):
    for job in jobs:
        settings = settings_of(job)
        found = cli.settings([f"{k}={v}" for k, v in settings.items()])
        assert found.run.seeds == job.seeds
        assert (found.run.total_updates if job.offline else found.run.total_env_steps) == job.total
        assert bool(found.run.data) == job.offline


def kinds(jobs):
    """One of the jobs that name the same algorithm, environment and modifiers."""
    found = {}
    for job in jobs:
        own = settings_of(job)
        found.setdefault(tuple(own.get(key) for key in (*GROUPS[1:], "preset")), job)
    return found


def test_the_kinds_of_runs_are_valid_settings():
    """A fifth of them here, other ones by turns of the list; the rest below."""
    jobs = list(kinds(trainings("small").values()).values())
    assert len(jobs) > 20
    composed(jobs[::5])


@pytest.mark.slow
@pytest.mark.parametrize("budget", planning.BUDGETS)
def test_every_run_is_valid_settings(budget):
    composed(trainings(budget).values())


def test_presets_that_claims_name_exist():
    for job in trainings().values():
        assert settings_of(job).get("preset") in (None, *hydra.presets())


# -------------------------------------------------------------------------------------------------------- exploration

EXPLORED = 2 / 3  # of every run: by then exploration is at its end, so that its last third is of the trained policy


def exploration_of(settings):
    """Swept scalars of a run's algorithm, from the preset's file and the settings, without composing them."""
    chosen = {}
    if "preset" in settings:
        text = yaml.safe_load((tiny.REPOSITORY / "configs" / "preset" / f"{settings['preset']}.yaml").read_text())
        chosen = {key: value for entry in text["defaults"] for key, value in entry.items()}
    name = settings.get("algo") or chosen.get("override /algo", "qmix")
    hparams = {**vars(registry.get("algo", name).Config().hparams)}
    if "preset" in settings and "algo" not in settings:
        hparams |= text.get("algo", {}).get("hparams", {})
    hparams |= {k.removeprefix("algo.hparams."): v for k, v in settings.items() if k.startswith("algo.hparams.")}
    return {key: float(value) for key, value in hparams.items()}


def epsilon(hparams, steps, total):
    return float(schedules.exploration_rate(hparams, jnp.int32(steps), total))


def test_exploration_does_not_outlive_any_budget():
    """All claims with all budgets: epsilon of runs that collect."""
    kinds = {}
    for job in trainings().values():
        hparams = exploration_of(settings_of(job))
        if not job.offline and "epsilon_anneal_steps" in hparams:
            kinds.setdefault((job.total, *sorted(hparams.items())), (job, hparams))
    assert len(kinds) > 15
    for job, hparams in kinds.values():
        for share in (EXPLORED, 1.0):
            rate = epsilon(hparams, int(share * job.total), job.total)
            assert rate == pytest.approx(hparams["epsilon_end"], abs=1e-6), (job.name, share, rate)


@pytest.mark.parametrize(("total", "rate"), [(24_000, 0.544), (18_000, 0.658), (9_000, 0.829)])
def test_the_same_steps_in_a_smaller_budget_would_outlive_it(total, rate):
    """What the check above must see: 50,000 steps of exploration at the end of a small budget."""
    usual = {**vars(registry.get("algo", "qmix").Config().hparams)}
    assert epsilon(usual, total, total) == pytest.approx(rate, abs=1e-6)
    half = {**usual, "epsilon_anneal_fraction": 0.5}
    assert epsilon(half, total // 4, total) == pytest.approx(0.525, abs=1e-6)
    assert epsilon(half, total // 2, total) == pytest.approx(0.05, abs=1e-6)


# ----------------------------------------------------------------------------------------------------------- refusals

TINY = """
claims:
  lecture_tiny:
    title: t
    statement: s
    source: s
    reference: r
    comparable: "yes"
    because: b
    arms: {A: [algo=vdn], B: [algo=iql]}
    tasks: {game: [env=matrix, env.game=climbing]}
    last: 1
    values: {game: {A: [5, 1]}}
    checks:
      - {says: A − B, compare: greater, arms: [A, B], paper: above}
    small: {seeds: 2, settings: [total_env_steps=64, eval.every=32]}
    full: {seeds: 3, settings: [total_env_steps=128, eval.every=32]}
"""


def book(tmp_path, *changes):
    text = TINY
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "tiny.yaml"
    path.write_text(text)
    return planning.read(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("source: s", "sauce: s", "sauce"),
        ('comparable: "yes"', "comparable: perhaps", "comparable=perhaps is not one of yes, partly, no"),
        ("compare: greater", "compare: larger", "compare=larger"),
        ("arms: [A, B], paper", "arms: [A, C], paper", "arm=C is not one of A, B"),
        ("arms: [A, B], paper", "arms: [A], paper", "two arms"),
        ("compare: greater", "compare: equal", "must have says and margin"),
        ("small: {seeds: 2", "small: {tasks: {chess: []}, seeds: 2", "small.tasks=chess"),
        ("    checks:\n      - {says: A − B, compare: greater, arms: [A, B], paper: above}\n", "", "it has no checks"),
        ("last: 1", "score: luck", "score=luck"),
    ],
)
def test_a_claim_that_makes_no_sense_is_refused(tmp_path, old, new, message):
    with pytest.raises(RefusedError, match=re.escape(message)):
        book(tmp_path, (old, new))


def test_settings_without_a_length_or_with_an_unknown_set_are_refused(tmp_path):
    with pytest.raises(RefusedError, match=r"total_env_steps and eval\.every"):
        planning.plan(book(tmp_path, ("total_env_steps=64, ", "")), "lecture_tiny", "small")
    own = book(tmp_path, ("[algo=vdn]", "[algo=vdn, data=nothing, total_updates=5]"))
    with pytest.raises(RefusedError, match="data=nothing is not one of the data sets"):
        planning.plan(own, "lecture_tiny", "small")


def test_the_command_line_refuses_what_is_no_claim():
    with pytest.raises(RefusedError, match="'differ_magic' is no claim"):
        claims.chosen(["differ_magic"], list(BOOK.claims))
    assert claims.chosen(["seac_l"], list(BOOK.claims)) == ["seac_lbf", "seac_lambda", "seac_lambda_rware"]
    with pytest.raises(RefusedError, match="--jobs 0"):
        claims.parsed(["--jobs", "0"])


# ------------------------------------------------------------------------------------------------------------ verdicts


@pytest.mark.parametrize(
    ("compare", "low", "high", "bound", "expected"),
    [
        ("greater", 0.1, 0.4, 0.0, "confirmed"),
        ("greater", -0.1, 0.4, 0.0, "undecided"),
        ("greater", 0.0, 0.4, 0.0, "undecided"),
        ("greater", 0.1, 0.4, 0.2, "undecided"),
        ("greater", -0.4, -0.1, 0.0, "not confirmed"),
        ("equal", -0.1, 0.2, 0.2, "confirmed"),
        ("equal", -0.3, 0.1, 0.2, "undecided"),
        ("equal", 0.3, 0.4, 0.2, "not confirmed"),
        ("equal", -0.9, -0.3, 0.2, "not confirmed"),
        ("at_least", 0.8, 0.9, 0.8, "confirmed"),
        ("at_least", 0.7, 0.9, 0.8, "undecided"),
        ("at_least", 0.7, 0.79, 0.8, "not confirmed"),
        ("above", 0.5, 0.6, 0.5, "undecided"),
        ("above", 0.51, 0.6, 0.5, "confirmed"),
        ("above", 0.5, 0.5, 0.5, "not confirmed"),
        ("at_most", 0.0, 0.2, 0.2, "confirmed"),
        ("at_most", 0.0, 0.3, 0.2, "undecided"),
        ("at_most", 0.25, 0.3, 0.2, "not confirmed"),
    ],
)
def test_verdicts_by_hand(compare, low, high, bound, expected):
    assert judging.verdict(compare, low, high, bound) == expected


def test_one_check_against_a_claim_is_enough_and_all_are_needed_for_it():
    yes, no, open_, none = judging.CONFIRMED, judging.NOT_CONFIRMED, judging.UNDECIDED, judging.NOT_RUN
    assert judging.together([yes, yes]) == yes
    assert judging.together([yes, open_]) == open_
    assert judging.together([yes, none]) == open_
    assert judging.together([yes, open_, none, no]) == no
    assert judging.together([none, none]) == none


def test_differences_by_hand():
    one, two = [np.array([3.0, 3.0])], [np.array([1.0, 1.0])]
    assert judging.difference(one, two, statistics.mean) == (2.0, 2.0, 2.0)
    value, low, high = judging.difference([np.array([0.0, 4.0])], two, statistics.mean)
    assert value == 1.0
    # both draws of a quarter of all bootstraps are the same run: -1 and 3; n = 2 stretches by sqrt(2) 4.3027 / 1.96
    assert (low, high) == pytest.approx((1 - 2 * 3.10459, 1 + 2 * 3.10459), rel=1e-4)
    # stratified: runs are drawn within a task, so the tasks' difference of 10 is in no interval
    value, low, high = judging.difference(
        [np.array([1.0, 1.0]), np.array([11.0, 11.0])], [np.array([0.0, 0.0]), np.array([10.0, 10.0])], statistics.mean
    )
    assert (value, low, high) == (1.0, 1.0, 1.0)
    assert np.isnan(judging.difference([np.array([1.0])], two, statistics.mean)[1])


def test_tasks_are_not_pooled():
    """The scores of one task are all below the other's: of all six the trimmed mean says the opposite of both tasks."""
    one = [np.array([-3.6, -2.0, -2.0]), np.array([0.5, 0.5, 0.5])]
    two = [np.array([-2.2, -2.2, -2.2]), np.array([0.4, 0.4, 0.9])]
    assert statistics.iqm(one) - statistics.iqm(two) > 0.1
    assert judging.difference(one, two, statistics.iqm)[0] == pytest.approx((-7.6 / 3 + 2.2 + 0.5 - 1.7 / 3) / 2)


@pytest.mark.parametrize("seeds", [3, 5])
def test_equal_arms_are_rarely_called_different(seeds):
    draw, wrong, many = np.random.default_rng(1), 0, 300
    for _ in range(many):
        one, two = ([draw.normal(size=seeds)] for _ in range(2))
        _, low, high = judging.difference(one, two, statistics.iqm)
        wrong += low > 0 or high < 0
    assert wrong <= 0.05 * many + 3 * np.sqrt(0.05 * 0.95 * many)  # three standard deviations of a rate of 5 %


def test_shares_have_wilsons_interval():
    assert judging.share(8, 8) == pytest.approx((1.0, 8 / (8 + 1.959964**2), 1.0), abs=1e-6)
    assert judging.share(0, 8)[2] == pytest.approx(1 - 8 / (8 + 1.959964**2), abs=1e-6)
    # p = 1/2, n = 4: 1/2 +- z sqrt(1/16 + z^2/64) / (1 + z^2/4)
    z = 1.959964
    half = z * np.sqrt(1 / 16 + z * z / 64) / (1 + z * z / 4)
    assert judging.share(2, 4) == pytest.approx((0.5, 0.5 - half, 0.5 + half), abs=1e-6)


# ----------------------------------------------------------------------------------------------------- made-up folders


def make_run(root, job, curves, extra=None, cut=""):
    """A run directory with evaluations {seed: [(progress, return), ...]}."""
    folder = root / job.out
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for seed, points in curves.items():
        for at, value in points:
            record = {"seed": seed, "env_steps": at, "updates": at // 2, "wall_s": 1.0}
            lines.append(record | {"eval/return": value} | (extra(seed, at) if extra else {}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + cut)
    (folder / "versions.json").write_text(json.dumps({"jax": "1.2.3"}))


def tiny_plan(tmp_path, *changes):
    own = book(tmp_path, *changes)
    plan = planning.plan(own, "lecture_tiny", "small")
    return own, plan, {arm: plan.jobs[plan.cells["game", arm]] for arm in ("A", "B")}


def test_a_run_is_done_when_every_seed_was_evaluated_at_its_end(tmp_path):
    _, _, jobs = tiny_plan(tmp_path)
    job, ends = jobs["A"], [(0, 1.0), (32, 2.0), (66, 3.0)]
    assert (job.seeds, job.total, job.offline) == (2, 64, False)
    assert not planning.done(job, tmp_path)
    make_run(tmp_path, job, {0: ends})
    assert not planning.done(job, tmp_path)  # one seed of two
    make_run(tmp_path, job, {0: ends, 1: ends[:2]})
    assert not planning.done(job, tmp_path)
    assert planning.progress(job, tmp_path) == {"seed 0": 66.0, "seed 1": 32.0}
    make_run(tmp_path, job, {0: ends, 1: ends[:2]}, cut=json.dumps({"seed": 1, "env_steps": 66, "eval/return": 1.0}))
    assert not planning.done(job, tmp_path)  # a line that was cut off by a kill
    make_run(tmp_path, job, {0: ends, 1: ends})
    assert planning.done(job, tmp_path)
    assert not planning.done(dataclasses.replace(job, offline=True), tmp_path)  # counts updates: 33 of 64
    make_run(tmp_path, job, {0: ends, 1: ends[:2]}, cut=json.dumps({"seed": 1, "env_steps": 70, "updates": 1}) + "\n")
    assert not planning.done(job, tmp_path)  # at its end, and not yet evaluated there


def test_another_setting_or_preset_is_another_run(tmp_path):
    _, plan, jobs = tiny_plan(tmp_path)
    _, _, same = tiny_plan(tmp_path, ("[algo=vdn]", "[algo=vdn]"))
    _, _, other = tiny_plan(tmp_path, ("[algo=vdn]", "[algo=vdn, algo.hparams.lr=1e-3]"))
    assert jobs["A"].name == same["A"].name != other["A"].name
    assert other["B"].name == jobs["B"].name
    shown = jobs["A"].shown("runs/claims/small")
    assert shown.startswith("python -m jaxshare.train algo=vdn env=matrix env.game=climbing total_env_steps=64")
    assert shown.endswith(f"run_dir=runs/claims/small/{jobs['A'].name}")
    assert plan.tasks == ["game"]
    assert plan.arms == ["A", "B"]


def test_later_settings_win_and_lists_may_be_nested():
    assert planning.merged(["a=1", ["b=2", "a=3"]], ["b=4"]) == {"a": "3", "b": "4"}
    with pytest.raises(RefusedError, match="key=value"):
        planning.merged(["oops"])


def judged(tmp_path, own, plan, missing=()):
    reasons = dict.fromkeys(missing, "was stopped")
    return judging.judge(plan, own.claims["lecture_tiny"], "small", tmp_path, reasons)


def test_a_claim_is_judged_from_its_runs(tmp_path):
    own, plan, jobs = tiny_plan(tmp_path)
    for arm, level in (("A", 9.0), ("B", 2.0)):
        make_run(tmp_path, jobs[arm], {s: [(0, 0.0), (32, 1.0), (66, level + s)] for s in (0, 1)})
    found = judged(tmp_path, own, plan)
    (check,) = found["checks"]
    assert found["verdict"] == check["verdict"] == "confirmed"
    # A in {9, 9.5, 10}, B in {2, 2.5, 3}: from 6 to 8, before it is stretched as n = 2 asks
    assert (check["value"], check["low"], check["high"]) == pytest.approx((7.0, 7 - 3.10459, 7 + 3.10459), rel=1e-4)
    cell = found["cells"]["game"]["A"]
    assert (cell["scores"], cell["iqm"], cell["paper"]) == ([9.0, 10.0], 9.5, [5, 1])
    assert cell["curve"]["x"][0] == 0
    assert cell["curve"]["y"][-1] == 9.5
    assert found["versions"] == {"jax": "1.2.3"}
    assert len(found["commands"]) == 2
    missing = judged(tmp_path, own, plan, [jobs["B"].name])
    assert missing["verdict"] == "not run"
    assert "was stopped" in missing["checks"][0]["reason"]
    assert list(missing["cells"]["game"]) == ["A"]


def test_a_check_is_refuted_by_one_of_its_tasks(tmp_path, monkeypatch):
    found = {("one",): "confirmed", ("two",): "not confirmed", ("one", "two"): "confirmed"}
    monkeypatch.setattr(judging, "_value", lambda check, plan, runs, tasks: {"verdict": found[tuple(tasks)]})
    plan = planning.Plan({}, "small", 2, {(task, arm): "job" for task in ("one", "two") for arm in "AB"}, {}, {})
    check = {"says": "A - B", "compare": "greater", "arms": ["A", "B"]}
    assert judging._check(check, plan, None, {})["verdict"] == "not confirmed"
    assert judging._check({**check, "tasks": ["one"]}, plan, None, {})["verdict"] == "confirmed"


def test_equal_arms_that_learned_nothing_show_nothing(tmp_path):
    changes = ("compare: greater", "compare: equal, margin: 0.5")
    own, plan, jobs = tiny_plan(tmp_path, changes)
    for arm in jobs:
        make_run(tmp_path, jobs[arm], {s: [(0, 1.0), (66, 1.1)] for s in (0, 1)})
    found = judged(tmp_path, own, plan)
    assert found["verdict"] == "undecided"
    assert "neither learned" in found["checks"][0]["note"]
    for arm in jobs:
        make_run(tmp_path, jobs[arm], {s: [(0, 1.0), (66, 4.1)] for s in (0, 1)})
    assert judged(tmp_path, own, plan)["verdict"] == "confirmed"


def test_scores_of_the_end_and_of_the_whole_curve(tmp_path):
    _, plan, jobs = tiny_plan(tmp_path)
    make_run(tmp_path, jobs["A"], {0: [(0, 9.0), (20, 1.0), (40, 2.0), (66, 6.0)], 1: [(0, 9.0), (66, 4.0)]})
    runs = judging.Runs(plan, tmp_path)
    usual = {"metric": "return", "score": "final", "last": 2}
    np.testing.assert_allclose(runs.scores("game", "A", usual), [4.0, 4.0])
    np.testing.assert_allclose(runs.scores("game", "A", {**usual, "score": "curve"}), [3.0, 4.0])
    np.testing.assert_allclose(runs.reached("game", "A", 6.0), [1.0, 0.0])
    with pytest.raises(RefusedError, match="no win_rate"):
        runs.scores("game", "A", {**usual, "metric": "win_rate"})


def test_logged_numbers_of_the_later_part(tmp_path):
    _, plan, jobs = tiny_plan(tmp_path)
    values = {0: 1.0, 20: 8.0, 40: 2.0, 60: 4.0}
    extra = lambda seed, at: {"x": values[at] + seed, "y": 1.0}  # noqa: E731
    make_run(tmp_path, jobs["A"], {s: [(at, 0.0) for at in values] for s in (0, 1)}, extra)
    runs = judging.Runs(plan, tmp_path)
    late = lambda **how: runs.series("game", "A", {"name": "x", **how})  # noqa: E731
    np.testing.assert_allclose(late(), [3.0, 4.0])
    np.testing.assert_allclose(late(against="begin"), [3.0, 2.0])
    np.testing.assert_allclose(late(against="peak"), [3 / 8, 4 / 9])
    np.testing.assert_allclose(late(against="y", by="difference"), [2.0, 3.0])
    np.testing.assert_allclose(late(**{"from": 1.0}), [4.0, 5.0])


def test_numbers_of_a_script_have_no_interval(tmp_path):
    change = ("compare: greater, arms: [A, B]", "compare: at_most, threshold: 1, quantity: {json: j, path: [a, b]}")
    job = ("    last: 1\n", "    last: 1\n    jobs: {j: {run: [x.py, '{out}']}}\n")
    own, plan, _ = tiny_plan(tmp_path, change, job)
    out = tmp_path / plan.jobs[plan.scripts["j"]].out
    out.write_text(json.dumps({"a": {"b": [0.5, 0.9]}}))
    check = judging._check(own.claims["lecture_tiny"]["checks"][0], plan, judging.Runs(plan, tmp_path), {})
    assert (check["value"], check["low"], check["high"], check["verdict"]) == (0.9, 0.9, 0.9, "confirmed")
    out.write_text(json.dumps({"a": {"b": [0.5, 1.1]}}))
    assert (
        judging._check(own.claims["lecture_tiny"]["checks"][0], plan, judging.Runs(plan, tmp_path), {})["verdict"]
        == "not confirmed"
    )
    runs = judging.Runs(plan, tmp_path)
    np.testing.assert_allclose(runs.json({"json": "j", "path": ["a", "b"], "near": [1.0, 1.0]}), [0.5])


def test_numbers_of_a_decomposition_are_means_over_types():
    types = {
        "stalker": {"auroc_reward": {"pairs": 0.6}, "better": {"probability": 0.5, "trajectories": 0.2}},
        "zealot": {"auroc_reward": {"pairs": 0.8}, "better": None},
        "marine": {"auroc_reward": {"pairs": None}, "better": {"probability": 0.4, "trajectories": 0.3}},
    }
    assert judging._of_types(types, "auroc_reward.pairs") == pytest.approx(0.7)
    assert judging._of_types(types, "better.minus_uniform") == pytest.approx(0.2)
    with pytest.raises(RefusedError, match="nothing"):
        judging._of_types(types, "nothing")


# ------------------------------------------------------------------------------------------------------------- running


@dataclasses.dataclass(frozen=True)
class Step(planning.Job):
    """A job that runs a line of Python; {root} is the folder."""

    code: str = ""

    def command(self, root):
        return ["-c", f"import pathlib, sys, time; root = pathlib.Path({root!r}); {self.code}"]


def step(name, code, needs=(), **settings):
    return Step(name, "script", (), f"{name}.txt", tuple(needs), code=code, **settings)


def write(name, text="x"):
    return f"(root / '{name}.txt').open('a').write('{text}')"


def test_what_is_missing_is_run_once_in_order_of_need(tmp_path):
    (tmp_path / "old.txt").write_text("kept")
    jobs = [
        step("last", f"assert (root / 'first.txt').exists(); {write('last')}", ["first", "old"]),
        step("first", write("first")),
        step("old", write("old")),
        step("bad", "print('error: it is broken'); sys.exit(1)"),
        step("empty", "pass"),
        step("after", write("after"), ["bad"]),
    ]
    spent = {}
    kept = lambda one: spent.update({one.job.name: one.spent})  # noqa: E731
    failed = running.run_all({job.name: job for job in jobs}, tmp_path, 2, {}, kept)
    assert failed == {
        "bad": "failed: error: it is broken",
        "empty": "failed: it ended without a result",
        "after": "it needs bad, which failed: error: it is broken",
    }
    assert [(tmp_path / f"{name}.txt").read_text() for name in ("old", "first", "last")] == ["kept", "x", "x"]
    assert set(spent) == {"first", "last"}
    assert all(0 < seconds < 30 for seconds in spent.values())
    again = {job.name: job for job in jobs[:3]}
    assert running.run_all(again, tmp_path, 2, {}) == {}
    assert (tmp_path / "first.txt").read_text() == "x"  # and not xx


def of_job(job, start_s, spent):
    return running.Running(job, None, 0, None, 0.0, start_s=start_s, spent=spent)


def test_what_whole_jobs_took_is_kept_for_estimates(tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "COSTS", tmp_path / "costs.json")
    run = planning.Job("a", "train", ("eval.every=10",), "a", seeds=2, total=100, speed="kind")
    cost.note(of_job(run, 0.0, 70.0))  # its first record was not seen
    assert planning.costs() == {}
    cost.note(of_job(run, 20.0, 70.0))
    cost.note(of_job(run, 1.0, 500.0))  # known by then
    cost.note(of_job(step("b", "", speed="script b"), 0.0, 7.0))
    assert planning.costs()["kind"] == {"rate": 4.0, "eval_s": 0.0, "start_s": 20.0}
    assert planning.seconds(run, planning.costs()) == pytest.approx(70.0)
    assert planning.seconds(step("c", "", speed="script b"), planning.costs()) == pytest.approx(7.0)


def test_a_data_set_of_other_settings_is_refused(tmp_path):
    """It has the same name, and what learned from it counts as done."""
    plain = planning.Job("plain", "collect", ("composition=low", "episodes=10"), "sets/one.jds")
    scaled = planning.Job("scaled", "standardise", ("standardise", "one"), "sets/two.jds", ("plain",))
    jobs = {job.name: job for job in (plain, scaled)}
    (tmp_path / "sets").mkdir()
    for job in jobs.values():
        planning.sign(job, jobs, tmp_path)  # is not there yet
        (tmp_path / job.out).mkdir()
    planning.check_signed(jobs, tmp_path)
    planning.sign(scaled, jobs, tmp_path)
    planning.check_signed(jobs, tmp_path)
    other = {**jobs, "plain": dataclasses.replace(plain, arguments=("composition=low", "episodes=20"))}
    with pytest.raises(RefusedError, match="was made with other settings"):
        planning.check_signed(other, tmp_path)


def test_the_start_of_a_run_ends_with_its_first_record(tmp_path):
    record = json.dumps({"seed": 0, "env_steps": 100, "updates": 1, "eval/return": 1.0})
    burn = "[None for _ in iter(lambda: time.process_time() < {0}, False)]"
    code = (
        f"metrics = root / 'run' / 'metrics.jsonl'; metrics.parent.mkdir(); metrics.touch(); {burn.format(2)}; "
        f"metrics.write_text({record!r} + chr(10)); {burn.format(5)}"
    )
    run = Step("run", "train", (), "run", code=code, total=100)
    found = []
    assert running.run_all({"run": run}, tmp_path, 1, {}, found.append) == {}
    assert [(2 <= one.start_s < 5 <= one.spent) for one in found] == [True]


def test_a_hang_is_a_failure(tmp_path):
    began = time.monotonic()
    jobs = {"slow": step("slow", "time.sleep(60)", minutes=0.02)}
    assert running.run_all(jobs, tmp_path, 1, {}) == {"slow": "was stopped at its limit of 0 minutes"}
    assert time.monotonic() - began < 30


def test_an_interruption_stops_the_jobs(tmp_path, monkeypatch):
    def interrupt(*args):
        if (tmp_path / "begun.txt").exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(running._Bars, "look", interrupt)
    code = "(root / 'begun.txt').write_text('x'); time.sleep(60); " + write("long")
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        running.run_all({"long": step("long", code)}, tmp_path, 1, {})
    assert time.monotonic() - began < 30
    assert not (tmp_path / "long.txt").exists()


def test_limits_follow_estimates():
    job = planning.Job("a", "train", ("eval.every=10", "total_env_steps=100"), "a", seeds=2, total=100, speed="kind")
    table = {"kind": {"rate": 2.0, "eval_s": 1.0, "start_s": 30.0}}
    assert planning.seconds(job, table) == 30 + 2 * (100 / 2 + 11 * 1)
    assert running.limit(job, table) == 60 * running.LEAST_MINUTES
    assert running.limit(dataclasses.replace(job, total=100_000), table) > 6 * 2 * 50_000
    assert running.limit(job, {}) == 60 * running.UNKNOWN_MINUTES
    first = dataclasses.replace(job, arguments=("eval.every=10", "algo.stage1_updates=40"), offline=True)
    assert planning.seconds(first, {"kind": {**table["kind"], "first_rate": 1.0}}) == 30 + 2 * (60 / 2 + 40 + 11)


# ---------------------------------------------------------------------------------------------------------------- page


def command(tmp_path, *arguments):
    options = ["--claims", str(tmp_path / "tiny.yaml"), "--runs", str(tmp_path), "--out", str(tmp_path / "c.json")]
    claims._main(claims.parsed([*options, "--docs", str(tmp_path / "docs"), *arguments]))


def test_the_command_judges_keeps_and_writes_the_page(tmp_path, capsys):
    _, _, jobs = tiny_plan(tmp_path)
    command(tmp_path, "--dry-run")
    assert capsys.readouterr().out.count("python -m jaxshare.train") == 2
    root = tmp_path / "small"
    for arm, level in (("A", 9.0), ("B", 2.0)):
        make_run(root, jobs[arm], {s: [(0, 0.0), (66, level + s)] for s in (0, 1)})
    command(tmp_path, "--list")
    assert "what is to do takes about 0.0 core hours:" in capsys.readouterr().out
    command(tmp_path)  # all is there: nothing is run
    text = (tmp_path / "docs" / "results.md").read_text()
    assert "| [t](#lecture-tiny) | ✔ confirmed | 1 of 1 confirmed | small, 2 | yes |" in text
    assert "| A − B | above | 7 [3.9, 10.1] (n = 2) | difference > 0 | ✔ confirmed |" in text
    assert "| game | A | 5 ± 1 | 9.5 [9, 10] | 9, 10 | 64 environment steps |" in text
    assert "Again: `python benchmarks/claims.py lecture_tiny --budget small`" in text
    assert f"run_dir=runs/claims/small/{jobs['A'].name}" in text
    assert str(tmp_path) not in text
    picture = tmp_path / "docs" / "results" / "lecture_tiny.png"
    assert picture.stat().st_size > 5000
    assert "jax 1.2.3" in text
    before, text_before = picture.read_bytes(), text
    picture.unlink()
    command(tmp_path, "--page")
    assert picture.read_bytes() == before
    assert (tmp_path / "docs" / "results.md").read_text() == text_before
    (root / jobs["B"].out / "metrics.jsonl").unlink()
    capsys.readouterr()
    command(tmp_path, "--judge")
    assert "lecture_tiny: kept as it was: it has not been run yet" in capsys.readouterr().out
    command(tmp_path, "--judge", "--budget", "full")  # of which nothing was run
    assert (tmp_path / "docs" / "results.md").read_text() == text_before
    (tmp_path / "c.json").unlink()
    command(tmp_path, "--judge")
    assert "– not run" in (tmp_path / "docs" / "results.md").read_text()


def test_figures_of_other_settings_are_not_kept(tmp_path, capsys):
    """A claim whose commands are others now was not run, whatever was found before; so its picture goes."""
    _, _, jobs = tiny_plan(tmp_path)
    for arm, level in (("A", 9.0), ("B", 2.0)):
        make_run(tmp_path / "small", jobs[arm], {s: [(0, 0.0), (66, level + s)] for s in (0, 1)})
    command(tmp_path)
    assert (tmp_path / "docs" / "results" / "lecture_tiny.png").is_file()
    before = json.loads((tmp_path / "c.json").read_text())["claims"]["lecture_tiny"]["small"]
    assert before["verdict"] == "confirmed"
    book(tmp_path, ("[algo=vdn]", "[algo=vdn, algo.hparams.lr=1e-3]"))
    capsys.readouterr()
    command(tmp_path, "--judge")
    assert "its settings are others than those of the figures kept" in capsys.readouterr().out
    after = json.loads((tmp_path / "c.json").read_text())["claims"]["lecture_tiny"]["small"]
    assert after["verdict"] == "not run"
    assert after["checks"][0]["reason"] == "its settings have changed since it was run"
    assert after["commands"] != before["commands"]
    assert after["machine"] == before["machine"]  # of B, which is still there
    assert "– not run" in (tmp_path / "docs" / "results.md").read_text()


def test_what_the_new_settings_do_not_touch_stays():
    """Of a claim with runs and a script: the script's command is the same, and so is what it found."""
    script = planning.Job("tables-1", "script", ("tables.py", "{root}/tables-1.json"), "tables-1.json")
    plan = planning.Plan({}, "small", 2, {("game", "A"): "run"}, {}, {"tables": "tables-1"}, {"tables-1": script})
    checks = [{"says": "exact", "quantity": {"json": "tables", "path": []}}, {"says": "A"}]
    old = {
        "checks": [{"says": "exact", "verdict": "confirmed", "value": 0.0}, {"says": "A", "verdict": "confirmed"}],
        "commands": [script.shown("runs/claims/small"), "python of other settings"],
    }
    new = {"checks": [{"says": name, "verdict": "not run"} for name in ("exact", "A")], "verdict": "not run"}
    found = judging.carried(old, new, plan, {"checks": checks})
    assert [check["verdict"] for check in found["checks"]] == ["confirmed", "not run"]
    assert found["checks"][0]["value"] == 0.0
    assert found["verdict"] == "undecided"
    elsewhere = {**old, "commands": ["python tables.py of other settings"]}
    assert judging.carried(elsewhere, new, plan, {"checks": checks})["verdict"] == "not run"


def test_no_figures_rest_on_earlier_settings_of_their_claim():
    """The kept ones are of the commands that the claims name now."""
    kept = claims.kept(claims.RESULTS)["claims"]
    for (name, budget), plan in PLANS.items():
        figures = kept.get(name, {}).get(budget, {})
        if plan is not None and "commands" in figures:
            now = [job.shown(f"runs/claims/{budget}") for job in plan.jobs.values()]
            assert figures["commands"] == now, f"{name}: python benchmarks/claims.py {name} --judge"


def test_a_page_without_figures_is_refused(tmp_path):
    book(tmp_path)
    with pytest.raises(RefusedError, match="holds no figures yet"):
        command(tmp_path, "--page")


@pytest.mark.parametrize(("x", "shown"), [(0.0, "0"), (1e-12, "1.0e-12"), (0.12345, "0.123"), (45123.4, "45,123")])
def test_numbers_are_short(x, shown):
    assert page.number(x) == shown


def test_the_page_shows_a_claim_that_cannot_be_run(tmp_path):
    name = next(name for name, claim in BOOK.claims.items() if "not_run" in claim and claim.get("instead"))
    claim = BOOK.claims[name]
    result = judging.judge(None, claim, "small", tmp_path, {})
    texts = {key: claim[key] for key in page.FIELDS if key in claim}
    path = page.write({"machine": "m", "claims": {name: {"small": {**texts, **result}}}}, tmp_path)
    assert "**Not run.**" in path.read_text()
    assert page.anchor(claim["instead"]) in path.read_text()


@pytest.mark.slow
def test_the_identity_is_exact_and_its_control_sees_a_difference():
    assert steps._difference("3m", "vdn") < 1e-12
    assert steps._difference("3m", "vdn", "differ.alive_mask=true") > 1e-3

"""Jobs of a study: named by their settings, done when every seed was evaluated at its end."""

import dataclasses
import hashlib
import json

import pytest
import tiny
from tiny_studies import book, make_run, tiny_plan

from jaxshare.study import book as books
from jaxshare.study import kinds, names
from jaxshare.study import plan as planning
from jaxshare.study.done import check_signed, is_done, look, sign
from jaxshare.study.job import Job
from jaxshare.study.valid import check_jobs
from jaxshare.types import RefusedError


def test_a_run_is_done_when_every_seed_was_evaluated_at_its_end(tmp_path):
    _, _, jobs = tiny_plan(tmp_path)
    job, ends = jobs["A"], [(0, 1.0), (32, 2.0), (66, 3.0)]
    assert (job.seeds, job.total, job.offline) == (2, 64, False)
    assert not is_done(job, tmp_path)
    make_run(tmp_path, job, {0: ends})
    assert not is_done(job, tmp_path)  # one seed of two
    make_run(tmp_path, job, {0: ends, 1: ends[:2]})
    assert not is_done(job, tmp_path)
    assert look(job, tmp_path).progress() == {"seed 0": 66.0, "seed 1": 32.0}
    make_run(
        tmp_path,
        job,
        {0: ends, 1: ends[:2]},
        cut=json.dumps({"seed": 1, "env_steps": 66, "eval/return": 1.0}),
    )
    assert not is_done(job, tmp_path)  # a line that was cut off by a kill
    make_run(tmp_path, job, {0: ends, 1: ends})
    assert is_done(job, tmp_path)
    assert not is_done(dataclasses.replace(job, offline=True), tmp_path)  # counts updates: 33 of 64
    make_run(
        tmp_path,
        job,
        {0: ends, 1: ends[:2]},
        cut=json.dumps({"seed": 1, "env_steps": 70, "updates": 1}) + "\n",
    )
    assert not is_done(job, tmp_path)  # at its end, and not yet evaluated there


def test_another_setting_or_preset_is_another_run(tmp_path):
    _, plan, jobs = tiny_plan(tmp_path)
    _, _, same = tiny_plan(tmp_path, ("[algo=vdn]", "[algo=vdn]"))
    _, _, other = tiny_plan(tmp_path, ("[algo=vdn]", "[algo=vdn, algo.hparams.lr=1e-3]"))
    assert jobs["A"].name == same["A"].name != other["A"].name
    assert other["B"].name == jobs["B"].name
    line = jobs["A"].command_line("runs/claims/small")
    assert line.startswith(
        "python -m jaxshare.train algo=vdn env=matrix env.game=climbing total_env_steps=64",
    )
    assert line.endswith(f"run_dir=runs/claims/small/{jobs['A'].name}")
    assert plan.tasks == ["game"]
    assert plan.arms == ["A", "B"]


def test_later_settings_win_and_lists_may_be_nested():
    assert kinds.settings(["a=1", ["b=2", "a=3"], "b=4"], "here") == {"a": "3", "b": "4"}
    with pytest.raises(RefusedError, match="key=value"):
        kinds.settings(["oops"], "here")


def test_a_data_set_of_other_settings_is_refused(tmp_path):
    """It has the same name, and what learned from it counts as done."""
    plain = Job("plain", "collect", ("composition=low", "episodes=10"), "sets/one.jds")
    scaled = Job("scaled", "standardise", ("one",), "sets/two.jds", ("plain",))
    jobs = {job.name: job for job in (plain, scaled)}
    (tmp_path / "sets").mkdir()
    for job in jobs.values():
        sign(job, jobs, tmp_path)  # is not there yet
        (tmp_path / job.out).mkdir()
    check_signed(jobs, tmp_path)
    sign(scaled, jobs, tmp_path)
    check_signed(jobs, tmp_path)
    other = {
        **jobs,
        "plain": dataclasses.replace(plain, arguments=("composition=low", "episodes=20")),
    }
    with pytest.raises(RefusedError, match="was made with other settings"):
        check_signed(other, tmp_path)


def test_a_set_may_be_one_with_exchanged_agents(tmp_path):
    path = tmp_path / "mixed.yaml"
    path.write_text("""
pools: {game: {small: [algo=vdn, env=matrix, total_env_steps=64, eval.every=16]}}
sets:
  plain: {pool: game, composition: low, small: 10}
  mixed: {exchanged: plain}
studies:
  cloning:
    title: Cloning of exchanged agents
    arms: {BC: [algo=bc, data=plain], exchanged: [algo=bc, data=mixed]}
    tasks: {game: [env=matrix]}
    small: {settings: [total_updates=4, eval.every=2]}
""")
    plan = planning.make(books.read(path), "cloning", "small")
    job = plan.jobs["set-mixed"]
    assert job.needs == ("set-plain",)
    expected = "python -m jaxshare.convert data=runs/sets/plain.jds out=runs/sets/mixed.jds exchange=true"
    assert job.command_line("runs").startswith(expected)
    (exchanged,) = plan.jobs_of("game", "exchanged")
    assert exchanged.needs == ("set-mixed",)


def test_data_sets_are_signed_as_in_earlier_versions(tmp_path):
    """Those of benchmarks/claims.py: copies were signed with the step before their arguments."""
    job = Job("set-x", "standardise", ("{root}/sets/y.jds",), "sets/x.jds")
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "x.jds").touch()
    sign(job, {job.name: job}, tmp_path)
    text = json.dumps(["standardise", "{root}/sets/y.jds"])
    expected = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert (tmp_path / "sets" / "x.jds.made_with").read_text().strip() == expected


def test_a_script_is_named_by_its_file_and_arguments():
    assert names.script("s", ["../a.py", "--x"]) == names.script("s", ["a.py", "--x"])
    assert names.script("s", ["a.py", "--x"]) != names.script("s", ["a.py", "--y"])


def test_what_is_nearer_to_the_run_wins(tmp_path):
    budget = "small: {seeds: 2, settings: [total_env_steps=64, eval.every=32]"
    more = ", tasks: {game: [gamma=0.5, lr=1]}, arms: {A: {game: [lr=2]}, B: [lr=3]}"
    of_file = book(tmp_path, ("[algo=vdn]", "[algo=vdn, lr=0]"), (budget, budget + more))
    plan = planning.make(of_file, "lecture_tiny", "small")
    settings = {arm: plan.jobs_of("game", arm)[0].settings for arm in "AB"}
    assert [settings[arm]["lr"] for arm in "AB"] == ["2", "3"]
    assert {settings[arm]["gamma"] for arm in "AB"} == {"0.5"}


def test_the_studies_that_are_shipped_have_valid_settings():
    """benchmarks/studies: what is shown of learners and no paper claims."""
    folder = tiny.REPOSITORY / "benchmarks" / "studies"
    of_folder = books.read(folder, base=tiny.REPOSITORY)
    plans = planning.make_all(of_folder, list(of_folder.studies), "small")
    assert all(plans.values())
    assert not any(study.is_claim for study in of_folder.studies.values())
    check_jobs({name: plans[name] for name in ("learners_climbing", "offline_filter")}, folder)

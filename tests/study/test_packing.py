"""Which runs of a study one program trains, and that judging finds each arm's own."""

import json

import pytest
from tiny_studies import book

from jaxshare.study import packing
from jaxshare.study import plan as planning
from jaxshare.study.judge import judge
from jaxshare.study.packing import Pack, pack

GRID = """
studies:
  grid:
    title: Rates
    arms:
      slow: [algo=vdn, algo.hparams.lr=1e-4]
      fast: [algo=vdn, algo.hparams.lr=1e-3]
      other: [algo=iql, algo.hparams.lr=1e-3]
    tasks: {game: [env=matrix, env.game=climbing]}
    last: 1
    checks:
      - {says: fast − slow, compare: greater, arms: [fast, slow]}
    small: {seeds: 3, settings: [total_env_steps=64, eval.every=32]}
"""


def settings(**values):
    return {name.replace("__", "."): value for name, value in values.items()}


def test_arms_that_differ_in_a_swept_number_are_one_job():
    cells = {
        ("t", "a"): settings(algo="vdn", algo__hparams__lr="1e-4", seeds="2"),
        ("t", "b"): settings(algo="vdn", algo__hparams__lr="1e-3", seeds="2"),
        ("t", "c"): settings(algo="iql", algo__hparams__lr="1e-3", seeds="2"),
        ("t", "d"): settings(algo="vdn", algo__hparams__lr="1e-3", algo__hidden_dim="32", seeds="2"),
    }
    first, *others = pack(cells, lambda settings: 8)
    assert first == Pack(
        {"algo": "vdn", "seeds": "2", "sweep.lr": "[1e-4,1e-3]"},
        4,
        {("t", "a"): (("lr", 1e-4),), ("t", "b"): (("lr", 1e-3),)},
    )
    assert others == [Pack(cells[place], 2, {place: ()}) for place in (("t", "c"), ("t", "d"))]


@pytest.mark.parametrize(("most", "expected"), [(1, [1] * 6), (2, [2, 1] * 2), (5, [3, 3]), (6, [6])])
def test_no_job_has_more_runs_than_may_be(most, expected):
    cells = {
        ("t", name): settings(algo="vdn", algo__hparams__lr=value, seeds="3")
        for name, value in (("a", "1e-4"), ("b", "1e-3"))
    }
    packs = pack(cells, lambda settings: most)
    assert [each.runs for each in packs] == expected
    assert sum(each.runs for each in packs) == 6
    if most < 3:  # seeds of their own, none twice
        firsts = [int(each.settings["seed"]) for each in packs if ("t", "a") in each.points]
        assert firsts == list(range(0, 3, most))


def test_a_number_that_shapes_the_program_is_no_sweep():
    chosen = settings(algo="vdn", algo__hidden_dim="32", differ__eta_start="0.5", modifiers="[differ]", seeds="1")
    assert packing.swept_names(chosen) == ["differ.eta_start"]
    assert packing.swept_names(settings(env__reward_scale="20", seed="3")) == []


def records(run_dir, labels):
    """Evaluations at the begin and the end of runs, whose last return is told with the label."""
    run_dir.mkdir(parents=True)
    lines = []
    for label, value in labels:
        for steps, reached in ((0, 0.0), (64, value)):
            counters = {"env_steps": steps, "updates": steps, "wall_s": 1.0}
            lines.append(json.dumps({**label, **counters, "eval/return": reached}))
    (run_dir / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (run_dir / "versions.json").write_text(json.dumps({"jax": "1.2.3"}))


def test_each_arm_is_judged_by_its_own_runs(tmp_path):
    of_file = book(tmp_path, text=GRID)
    plan = planning.make(of_file, "grid", "small", lambda settings: 6)
    assert len(plan.jobs) == 2
    swept = plan.jobs[plan.cells["game", "slow"][0].job]
    assert swept.seeds == 6
    assert swept is plan.jobs[plan.cells["game", "fast"][0].job]
    labels = [({"seed": s, "sweep.lr": lr}, 1000 * lr + s) for lr in (1e-4, 1e-3) for s in range(3)]
    records(tmp_path / swept.out, labels)
    other = plan.jobs_of("game", "other")[0]
    records(tmp_path / other.out, [({"seed": s}, 7.0 + s) for s in range(3)])
    result = judge(of_file.studies["grid"], plan, "small", tmp_path, {})
    cells = result["cells"]["game"]
    assert cells["slow"]["scores"] == [0.1, 1.1, 2.1]
    assert cells["fast"]["scores"] == [1.0, 2.0, 3.0]
    assert cells["other"]["scores"] == [7.0, 8.0, 9.0]
    assert result["checks"][0]["value"] == pytest.approx(0.9)


def test_seeds_of_several_jobs_are_one_arms(tmp_path):
    of_file = book(tmp_path, text=GRID)
    plan = planning.make(of_file, "grid", "small", lambda settings: 2)
    jobs = plan.jobs_of("game", "fast")
    assert [(job.settings.get("seed"), job.seeds) for job in jobs] == [("0", 2), ("2", 1)]
    for job in jobs:
        first = int(job.settings["seed"])
        records(tmp_path / job.out, [({"seed": s}, float(s)) for s in range(first, first + job.seeds)])
    judged = judge(of_file.studies["grid"], plan, "small", tmp_path, missing(plan, "fast"))
    assert judged["cells"]["game"]["fast"]["scores"] == [0.0, 1.0, 2.0]
    assert set(judged["cells"]["game"]) == {"fast"}


def missing(plan, arm):
    """All jobs but those of an arm."""
    there = {piece.job for piece in plan.cells["game", arm]}
    return {name: "not run" for name in plan.jobs if name not in there}


def test_without_packing_runs_are_found_where_they_were(tmp_path):
    of_file = book(tmp_path, text=GRID)
    plain = planning.make(of_file, "grid", "small")
    packed = planning.make(of_file, "grid", "small", lambda settings: 3)
    assert plain.cells["game", "other"] == packed.cells["game", "other"]
    assert [len(cell) for cell in plain.cells.values()] == [1, 1, 1]

"""Thousands of runs: what is done for each of them does not grow with their number."""

import builtins
import json
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import yaml

from jaxshare.results import curve_pictures, numbers, score_pictures, study
from jaxshare.results.numbers import MOST_GROUPS, Report
from jaxshare.results.runs import MOST_LISTED, Run
from jaxshare.results.settings import Config
from jaxshare.run import folder

CONFIG = Config(runs=["runs/*"], resamples=1)


def made(i, group, task, seed, **settings):
    """A run that is there without a directory."""
    return Run(
        path=f"runs/{i}",
        seed=seed,
        name="vdn",
        label="",
        settings={"algo.hparams.lr": group, "algo.hidden_dim": 64, "batch_size": 32, **settings},
        env={"env": "smax", "scenario": str(task)},
        data="",
        total=10,
        at_once=1,
        progress=np.array([0.0, 10.0]),
        wall=np.array([1.0, 2.0]),
        values={"return": np.array([0.0, 1.0 + group + seed]), "length": np.array([1.0, 1.0])},
    )


def runs_of(groups, tasks, seeds):
    names = [(g, t, s) for g in range(groups) for t in range(tasks) for s in range(seeds)]
    return [made(i, *name) for i, name in enumerate(names)]


def calls(work):
    """How many functions, of Python and of C, a piece of work has called."""
    counted = 0

    def count(frame, event, argument):
        nonlocal counted
        counted += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return counted


@pytest.mark.parametrize("which", ["groups", "tasks", "seeds", "unfinished"])
def test_work_grows_with_the_number_of_runs_only(which):
    def work(many):
        sizes = {"groups": 2, "tasks": 2, "seeds": 2}
        if which in sizes:
            sizes[which] = many
        runs = runs_of(**sizes)
        if which == "unfinished":
            runs = [replace(made(i, 0, 0, i), total=100) for i in range(4 * many)]
        return calls(lambda: study.make(runs, CONFIG, []))

    few, many = work(100), work(400)
    assert many < 4.5 * few  # four times, but for what is sorted


def write_runs(base, count):
    for i in range(count):
        run_dir = base / f"r{i:05}"
        run_dir.mkdir(parents=True)
        run = {"seed": i, "total_env_steps": 10, "run_dir": str(run_dir)}
        settings = {"run": run, "algo": {}, "algo_name": "vdn", "env_name": "smax", "env": {}}
        (run_dir / "config.yaml").write_text(yaml.safe_dump(settings))
        rows = []
        for step in (0, 10):
            counters = {"seed": i, "env_steps": step, "updates": step, "wall_s": step}
            rows.append({**counters, "eval/return": step * (1 + i % 7)})
        (run_dir / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_a_thousand_directories_are_read_once_each(tmp_path, monkeypatch):
    count = 1000
    write_runs(tmp_path / "runs", count)
    opened = Counter()
    usual = builtins.open
    filled = []
    read_settings = folder.read_settings

    def counted(file, *arguments, **options):
        opened[str(file)] += str(file).startswith(str(tmp_path))
        return usual(file, *arguments, **options)

    monkeypatch.setattr(builtins, "open", counted)
    monkeypatch.setattr(folder, "read_settings", lambda d: filled.append(d) or read_settings(d))
    found = study.read(Config(runs=[f"{tmp_path}/runs/*"]))
    monkeypatch.undo()

    # every file once, and one settings of theirs twice: all have today's defaults from it
    assert len(filled) == 1
    assert sum(opened.values()) == 2 * count + 1
    (cell,) = found.cells.values()
    assert [run.seed for run in cell.runs] == list(range(count))
    assert cell.scores.tolist() == [10.0 * (1 + i % 7) for i in range(count)]

    # a note names some of them
    (note,) = [note for note in found.notes if "at their defaults" in note]
    assert f"and {count - MOST_LISTED} more" in note
    assert max(map(len, found.notes)) < 200 * MOST_LISTED


def test_pictures_of_many_groups_show_forty():
    config = Config(runs=["runs/*"], resamples=1, at="common")
    compared = study.make(runs_of(groups=300, tasks=1, seeds=1), config, [])
    shown = Report(compared, numbers.make(compared, config), config)
    assert len(shown.numbers.groups) == 300
    assert shown.numbers.pictured == compared.groups[-MOST_GROUPS:]  # the best ones
    assert len(shown.numbers.pairs) == MOST_GROUPS * (MOST_GROUPS - 1) / 2
    figure = curve_pictures.curves(shown)
    assert [len(axis.lines) for axis in figure.axes] == [MOST_GROUPS]
    assert len(figure.legends[0].get_texts()) == MOST_GROUPS
    assert len(score_pictures.aggregates(shown).axes[0].get_yticks()) == MOST_GROUPS


def test_a_picture_of_many_tasks_shows_forty():
    compared = study.make(runs_of(groups=1, tasks=200, seeds=1), CONFIG, [])
    shown = Report(compared, numbers.make(compared, CONFIG), CONFIG)
    figure = curve_pictures.wall_time(shown)
    assert len([axis for axis in figure.axes if axis.axison]) == curve_pictures.MOST_TASKS
    assert "40 of 200 tasks" in figure.get_suptitle()


def test_many_groups_that_meet_on_no_task_are_noted_a_few_times():
    runs = [made(i, i, i % 2, 0) for i in range(400)]
    notes = []
    study.make(runs, CONFIG, notes)
    assert len([note for note in notes if "no task in common" in note]) == 11

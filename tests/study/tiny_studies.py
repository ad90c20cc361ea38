"""A small claim and a small study, and run directories that are made up."""

import json
import sys

import tiny

from jaxshare.study import book as books
from jaxshare.study import plan as planning

sys.path.insert(0, str(tiny.REPOSITORY / "benchmarks"))  # scripts that claims name

CLAIM = """
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
STUDY = """
studies:
  climb:
    title: Who climbs
    arms: {A: [algo=vdn], B: [algo=iql]}
    tasks: {game: [env=matrix, env.game=climbing]}
    last: 1
    small: {seeds: 2, settings: [total_env_steps=64, eval.every=32]}
"""


def book(tmp_path, *changes, text=CLAIM):
    """The book of a text with some changes (old, new), which stands in tiny.yaml."""
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "tiny.yaml"
    path.write_text(text)
    return books.read(path)


def tiny_plan(tmp_path, *changes):
    """The book, the plan of its claim, and the runs of both arms."""
    of_file = book(tmp_path, *changes)
    plan = planning.make(of_file, "lecture_tiny", "small")
    return of_file, plan, {arm: plan.jobs_of("game", arm)[0] for arm in ("A", "B")}


def make_run(root, job, curves, extra=None, cut=""):
    """A run directory with evaluations {seed: [(progress, return), ...]}."""
    folder = root / job.out
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for seed, points in curves.items():
        for at, value in points:
            record = {"seed": seed, "env_steps": at, "updates": at // 2, "wall_s": 1.0}
            record |= {"eval/return": value} | (extra(seed, at) if extra else {})
            lines.append(json.dumps(record) + "\n")
    (folder / "metrics.jsonl").write_text("".join(lines) + cut)
    (folder / "versions.json").write_text(json.dumps({"jax": "1.2.3"}))

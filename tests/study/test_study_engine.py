"""Running jobs: once, in order of need, within limits, stopped in order; what they take is kept."""

import dataclasses
import json
import os
import time

import pytest

from jaxshare.study import cost, engine
from jaxshare.study.bars import Bars
from jaxshare.study.engine import limit, run_all
from jaxshare.study.executors.base import Executor, Resources, State, Task
from jaxshare.study.executors.local import Local
from jaxshare.study.job import Job


def local(at_once, folder):
    return Local(at_once, folder, Resources())


@dataclasses.dataclass(frozen=True)
class Step(Job):
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

    def note(ended):
        spent[ended.job.name] = ended.core_seconds

    failed = run_all({job.name: job for job in jobs}, tmp_path, local(2, tmp_path), {}, note)
    assert failed == {
        "bad": "failed: error: it is broken",
        "empty": "failed: it ended without a result",
        "after": "it needs bad, which failed: error: it is broken",
    }
    assert [(tmp_path / f"{name}.txt").read_text() for name in ("old", "first", "last")] == [
        "kept",
        "x",
        "x",
    ]
    assert set(spent) == {"first", "last"}
    assert all(0 < seconds < 30 for seconds in spent.values())
    again = {job.name: job for job in jobs[:3]}
    assert run_all(again, tmp_path, local(2, tmp_path), {}) == {}
    assert (tmp_path / "first.txt").read_text() == "x"  # and not xx


def of_job(job, start_s, spent):
    return cost.Ended(job, spent, start_s)


def test_what_whole_jobs_took_is_kept_for_estimates(tmp_path):
    table = tmp_path / "costs.json"
    run = Job("a", "train", ("eval.every=10",), "a", seeds=2, total=100, speed="kind")
    cost.note(table, of_job(run, 0.0, 70.0))  # its first record was not seen
    assert cost.read(table) == {}
    cost.note(table, of_job(run, 20.0, 70.0))
    cost.note(table, of_job(run, 1.0, 500.0))  # known by then
    cost.note(table, of_job(step("b", "", speed="script b"), 0.0, 7.0))
    assert cost.read(table)["kind"] == {"rate": 4.0, "eval_s": 0.0, "start_s": 20.0}
    assert cost.seconds(run, cost.read(table)) == pytest.approx(70.0)
    assert cost.seconds(step("c", "", speed="script b"), cost.read(table)) == pytest.approx(7.0)


def test_the_start_of_a_run_ends_with_its_first_record(tmp_path):
    record = json.dumps({"seed": 0, "env_steps": 100, "updates": 1, "eval/return": 1.0})
    burn = "[None for _ in iter(lambda: time.process_time() < {0}, False)]"
    code = (
        f"metrics = root / 'run' / 'metrics.jsonl'; metrics.parent.mkdir(); "
        f"metrics.touch(); {burn.format(2)}; "
        f"metrics.write_text({record!r} + chr(10)); {burn.format(9)}"
    )
    run = Step("run", "train", (), "run", code=code, total=100)
    found = []
    assert run_all({"run": run}, tmp_path, local(1, tmp_path), {}, found.append) == {}
    [ended] = found
    ticks = 5 / os.sysconf("SC_CLK_TCK")  # user and system time are each rounded down to one
    assert 2 - ticks <= ended.start_seconds < 9
    assert 9 - ticks <= ended.core_seconds


def test_a_hang_is_a_failure(tmp_path):
    began = time.monotonic()
    jobs = {"slow": step("slow", "time.sleep(60)", minutes=0.02)}
    assert run_all(jobs, tmp_path, local(1, tmp_path), {}) == {
        "slow": "was stopped at its limit of 0 minutes",
    }
    assert time.monotonic() - began < 30


def test_an_interruption_stops_the_jobs(tmp_path, monkeypatch):
    def interrupt(*args):
        if (tmp_path / "begun.txt").exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(Bars, "look", interrupt)
    code = "(root / 'begun.txt').write_text('x'); time.sleep(60); " + write("long")
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_all({"long": step("long", code)}, tmp_path, local(1, tmp_path), {})
    assert time.monotonic() - began < 30
    assert not (tmp_path / "long.txt").exists()


def test_limits_follow_estimates():
    job = Job(
        "a",
        "train",
        ("eval.every=10", "total_env_steps=100"),
        "a",
        seeds=2,
        total=100,
        speed="kind",
    )
    table = {"kind": {"rate": 2.0, "eval_s": 1.0, "start_s": 30.0}}
    assert cost.seconds(job, table) == 30 + 2 * (100 / 2 + 11 * 1)
    assert limit(job, table) == 60 * engine.LEAST_MINUTES
    assert limit(dataclasses.replace(job, total=100_000), table) > 6 * 2 * 50_000
    assert limit(job, {}) == 60 * engine.UNKNOWN_MINUTES
    first = dataclasses.replace(
        job,
        arguments=("eval.every=10", "algo.stage1_updates=40"),
        offline=True,
    )
    table["kind"]["first_rate"] = 1.0
    assert cost.seconds(first, table) == 30 + 2 * (60 / 2 + 40 + 11)


class Obedient(Executor):
    """An executor without processes: every task ends at its second look, as it is told."""

    def __init__(self, root, outcomes, known=()):
        self.at_once = 2
        self.root = root
        self.outcomes = outcomes
        self.known = known
        self.calls = []
        self.looks = {}

    def submit(self, tasks):
        self.calls.append(("submit", *(task.name for task in tasks)))

    def resume(self, task):
        return task.name in self.known

    def cancel(self, names, grace=0.0):
        self.calls.append(("cancel", *names))

    def poll(self, name):
        self.looks[name] = self.looks.get(name, 0) + 1
        if self.looks[name] < 2:
            return State(True, 1.0)
        if self.outcomes[name] == 0:
            (self.root / f"{name}.txt").write_text("x")
        return State(False, 1.0, status=self.outcomes[name])


def test_jobs_are_executed_behind_an_interface(tmp_path, monkeypatch):
    """An executor needs to know nothing of studies; a task that is at work already is followed."""
    monkeypatch.setattr(engine, "POLL", 0.0)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "bad.log").write_text("error: no\n")
    names = ("first", "bad", "known", "after")
    jobs = {name: step(name, "", ["first"] if name == "after" else ()) for name in names}
    executor = Obedient(tmp_path, {**dict.fromkeys(names, 0), "bad": 1}, known=("known",))
    assert run_all(jobs, tmp_path, executor, {}) == {"bad": "failed: error: no"}
    expected = [("submit", "first", "bad"), ("submit", "after")]
    assert executor.calls == expected


def test_a_task_says_what_an_executor_needs(tmp_path):
    job = Job("a", "train", ("algo=vdn", "run_dir={root}/a"), "deep/a", seeds=3)
    told = engine.task(job, tmp_path, 60.0)
    command = ("-m", "jaxshare.train", "algo=vdn", f"run_dir={tmp_path}/a")
    log = tmp_path / "logs" / "a.log"
    run_dir = tmp_path / "deep" / "a"
    assert told == Task("a", command, log, tmp_path.resolve() / ".cache", 60.0, 3, run_dir)
    assert (tmp_path / "deep").is_dir()


def test_a_local_run_is_told_how_many_devices_it_has(tmp_path):
    executor = Local(1, tmp_path, Resources())
    log = tmp_path / "logs" / "a.log"
    command = ("-c", "import os, sys; print(sys.argv[1:], os.environ['JAX_COMPILATION_CACHE_DIR'])")
    executor.submit([Task("a", command, log, tmp_path / "cache", 60.0, seeds=1)])
    while executor.poll("a").running:
        time.sleep(0.05)
    assert "['parallel.devices=1']" in log.read_text()
    executor.cancel(["a", "never begun"])  # of which none is at work

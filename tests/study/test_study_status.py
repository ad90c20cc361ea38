"""What other processes are told of a study at work, and may ask of it."""

import dataclasses
import json
import os
import platform
import threading
import time

import pytest

from jaxshare.study import engine, ledger, status
from jaxshare.study.engine import run_all
from jaxshare.study.executors.base import Resources
from jaxshare.study.executors.local import Local
from jaxshare.study.job import Job
from jaxshare.types import RefusedError


@dataclasses.dataclass(frozen=True)
class Step(Job):
    """A job that runs a line of Python; root is the folder."""

    code: str = ""

    def command(self, root):
        return ["-c", f"import pathlib, sys, time; root = pathlib.Path({root!r}); {self.code}"]


def step(name, code):
    return Step(name, "script", (), f"{name}.txt", code=code)


def entry(root, **changes):
    """What a process at work has said."""
    said = {"host": "node7", "pid": 4711, "executor": "ray", "at": time.time(), "running": {}, "waiting": []}
    (root / ledger.DRIVER).write_text(json.dumps(said | changes))


def run_log(root, job, rows):
    (root / job.out).mkdir(parents=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (root / job.out / "metrics.jsonl").write_text(text)


def test_every_job_has_a_state(tmp_path):
    total = {"total": 1000, "seeds": 2}
    jobs = {name: Job(name, "train", (), name, **total) for name in ("fast", "queued", "broken", "idle")}
    jobs["file"] = step("file", "")
    (tmp_path / "file.txt").touch()
    entry(tmp_path, running={"fast": 2}, waiting=["queued"])
    rows = [{"seed": s, "env_steps": 100 * t, "updates": t, "wall_s": 2.0 * t} for t in range(5) for s in (0, 1)]
    run_log(tmp_path, jobs["fast"], rows)
    ledger.note_failure(tmp_path, jobs["broken"], "failed: error: lr=-1")
    states = status.of_jobs(jobs, tmp_path)
    assert states["fast"] == status.JobStatus("running", 0.4, 100.0, 12.0, attempt=2)
    assert states["queued"].state == "waiting"
    assert (states["broken"].state, states["broken"].reason) == ("failed", "failed: error: lr=-1")
    assert (states["idle"].state, states["file"].state) == ("open", "done")
    plain = status.plain(jobs, tmp_path)
    assert plain["counts"] == {"done": 1, "running": 1, "waiting": 1, "failed": 1, "open": 1}
    json.dumps(plain)


def test_a_process_that_is_gone_is_not_at_work(tmp_path):
    entry(tmp_path, at=time.time() - 100)
    assert ledger.driver(tmp_path) is None
    entry(tmp_path, host=platform.node(), pid=2**22 + 1)
    assert ledger.driver(tmp_path) is None
    (tmp_path / ledger.DRIVER).write_text("{half")
    assert ledger.driver(tmp_path) is None


def test_a_second_process_is_refused(tmp_path):
    entry(tmp_path)
    with pytest.raises(RefusedError, match="process 4711 on node7 runs the jobs"):
        ledger.check_alone(tmp_path)
    entry(tmp_path, host=platform.node(), pid=os.getpid())
    ledger.check_alone(tmp_path)


def test_failures_are_left_alone_until_they_are_to_be_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "POLL", 0.02)
    code = "(root / 'tries').open('a').write('x'); print('error: no'); sys.exit(1)"
    jobs = {"bad": step("bad", code)}
    for _ in range(2):
        failed = run_all(jobs, tmp_path, Local(1, tmp_path, Resources()), {})
        assert failed == {"bad": "failed: error: no"}
    assert (tmp_path / "tries").read_text() == "x"
    assert ledger.forget(tmp_path, jobs.values()) == 1
    run_all(jobs, tmp_path, Local(1, tmp_path, Resources()), {})
    assert (tmp_path / "tries").read_text() == "xx"


def test_another_process_may_end_some_jobs(tmp_path, monkeypatch):
    """Those at work save first; those that wait for their turn are not begun."""
    monkeypatch.setattr(engine, "POLL", 0.05)
    monkeypatch.setattr(ledger, "EVERY", 0.0)
    saves = (
        "import signal; signal.signal(signal.SIGTERM, lambda *_: ((root / 'saved').touch(), sys.exit(143))); "
        "(root / 'begun').touch(); time.sleep(60)"
    )
    jobs = {"long": step("long", saves), "next": step("next", "(root / 'next.txt').touch()")}
    jobs["other"] = step("other", "(root / 'other.txt').touch()")

    def ask():
        until = time.monotonic() + 30
        while not (tmp_path / "begun").exists() or ledger.driver(tmp_path) is None:
            assert time.monotonic() < until
            time.sleep(0.05)
        ledger.ask_cancel(tmp_path, ["long", "next"])

    thread = threading.Thread(target=ask)
    thread.start()
    failed = run_all(jobs, tmp_path, Local(1, tmp_path, Resources()), {})
    thread.join()
    assert failed == {"long": "was cancelled", "next": "was cancelled"}
    assert (tmp_path / "saved").exists()
    assert (tmp_path / "other.txt").exists()
    assert not (tmp_path / "next.txt").exists()
    assert not (tmp_path / ledger.CANCEL).exists()
    assert not (tmp_path / ledger.DRIVER).exists()

"""A run directory belongs to one process at a time, and default names to one run."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxshare.run import lease
from jaxshare.run import lock as locking
from jaxshare.run.lock import LOCK, Lock
from jaxshare.types import RefusedError

HOLD = """
import pathlib, sys, types
light = types.ModuleType("jaxshare.types")  # without jax, which takes seconds to import
light.RefusedError = type("RefusedError", (Exception,), {})
sys.modules["jaxshare.types"] = light
from jaxshare.run.lock import Lock
from jaxshare.types import RefusedError
run_dir = pathlib.Path(sys.argv[1])
try:
    lock = Lock(run_dir)
except RefusedError as error:
    sys.exit(str(error))
print("held", flush=True)
sys.stdin.readline()
lock.release()
"""


@pytest.fixture
def holder(tmp_path):
    """Start processes that hold the lock of a folder until they are told or killed."""
    started = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def refusal(run_dir):
    with pytest.raises(RefusedError) as refused:
        Lock(run_dir)
    message = str(refused.value)
    assert "\n" not in message
    assert message.startswith(f"run_dir={run_dir}")
    assert "choose another run_dir" in message
    return message


def rewrite(run_dir, **changes):
    """The lock as another process would have written it."""
    holder = dataclasses.replace(locking.this_process(), token="another", **changes)
    (run_dir / LOCK).write_text(json.dumps(dataclasses.asdict(holder)))


def test_the_second_is_refused_and_told_who_has_it(tmp_path, holder):
    first = holder()
    assert first.stdout.readline() == "held\n"
    message = refusal(tmp_path)
    assert f"process {first.pid} on {locking.this_process().host}" in message
    _, errors = holder().communicate(timeout=30)
    assert f"process {first.pid}" in errors
    first.communicate("\n", timeout=30)
    assert list(tmp_path.iterdir()) == []
    Lock(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("reaped", [True, False])
def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, holder, reaped):
    first = holder()
    assert first.stdout.readline() == "held\n"
    first.send_signal(signal.SIGKILL)
    if reaped:
        first.wait()
    else:  # its parent has not asked for its end yet, so that the number is still in use
        os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
    assert (tmp_path / LOCK).exists()
    mine = Lock(tmp_path)
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    mine.release()
    assert not (tmp_path / LOCK).exists()


def test_a_number_that_another_process_has_now_is_not_the_holder(tmp_path):
    rewrite(tmp_path, started="1")
    Lock(tmp_path).release()
    assert not (tmp_path / LOCK).exists()


def test_a_machine_that_was_started_anew_has_no_holders_left(tmp_path):
    rewrite(tmp_path, boot="an earlier start")
    Lock(tmp_path).release()
    assert not (tmp_path / LOCK).exists()


def test_another_machine_cannot_be_asked(tmp_path):
    rewrite(tmp_path, host="node7", boot="its start", pid=4711)
    message = refusal(tmp_path)
    assert "process 4711 on node7" in message
    assert f"delete {tmp_path / LOCK}" in message
    (tmp_path / LOCK).unlink()  # the remedy
    Lock(tmp_path).release()


def age(path, seconds):
    """As if nobody had touched the file for so long."""
    touched = path.stat().st_mtime - seconds
    os.utime(path, (touched, touched))


def test_a_silent_lock_of_another_machine_is_taken_over(tmp_path):
    rewrite(tmp_path, host="node7", boot="its start", lease=10.0)
    age(tmp_path / LOCK, 5.0)
    refusal(tmp_path)
    age(tmp_path / LOCK, 15.0)
    mine = Lock(tmp_path)
    mine.check()
    mine.release()


def test_a_lock_of_an_earlier_version_is_never_silent(tmp_path):
    holder = dataclasses.asdict(dataclasses.replace(locking.this_process(), host="node7", boot="its start"))
    del holder["lease"]
    (tmp_path / LOCK).write_text(json.dumps(holder))
    age(tmp_path / LOCK, 1e6)
    refusal(tmp_path)


def test_who_was_taken_over_is_told_and_leaves_the_new_lock_alone(tmp_path):
    mine = Lock(tmp_path)
    rewrite(tmp_path)
    with pytest.raises(RefusedError, match="taken over"):
        mine.check()
    mine.release()
    assert json.loads((tmp_path / LOCK).read_text())["token"] == "another"


def test_a_holder_touches_its_lock_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.02)
    mine = Lock(tmp_path)
    age(tmp_path / LOCK, 1000.0)
    until = time.monotonic() + 10
    while lease.silence(tmp_path / LOCK) > 500 and time.monotonic() < until:
        time.sleep(0.01)
    assert lease.silence(tmp_path / LOCK) < 10
    rewrite(tmp_path)
    age(tmp_path / LOCK, 1000.0)
    time.sleep(0.2)
    assert lease.silence(tmp_path / LOCK) > 500
    mine.release()


def test_another_container_is_asked_by_a_lock_of_the_system(tmp_path, holder):
    first = holder()
    assert first.stdout.readline() == "held\n"
    inside = json.loads((tmp_path / LOCK).read_text())
    with open(tmp_path / LOCK, "r+") as file:  # the same file, as if numbers of processes meant something else there
        file.write(json.dumps(inside | {"namespace": "pid:[1]", "pid": 2**22 + 1}))
        file.truncate()
    assert "cannot be asked from here" in refusal(tmp_path)
    first.kill()
    first.wait()
    Lock(tmp_path).release()


@pytest.mark.parametrize("text", ["", "precious", "{}", '{"pid": "1"}', "[" * 2000, '{"pid": 1e400}'])
def test_a_file_that_is_no_lock_is_left_alone(tmp_path, text, monkeypatch):
    monkeypatch.setattr(locking, "PATIENCE", 0.05)
    (tmp_path / LOCK).write_text(text)
    assert f"delete {tmp_path / LOCK}" in refusal(tmp_path)
    assert (tmp_path / LOCK).read_text() == text


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to(tmp_path / "elsewhere")
    refusal(tmp_path / "run")
    assert (tmp_path / "elsewhere").read_text() == "precious"


@pytest.mark.parametrize("left_behind", [False, True])
def test_of_many_threads_one_gets_it(tmp_path, left_behind):
    """Also when all of them find the same file of a dead process."""
    for _ in range(20):
        if left_behind:
            rewrite(tmp_path, started="1")
        winners, losers = [], []
        gate = threading.Barrier(8)

        def take(gate=gate, winners=winners, losers=losers):
            gate.wait()
            try:
                winners.append(Lock(tmp_path))
            except RefusedError as error:
                losers.append(str(error))

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(winners), len(losers)) == (1, 7)
        assert all("in use by process" in message for message in losers)
        winners[0].release()
        assert list(tmp_path.iterdir()) == []


def test_of_many_processes_one_gets_it(tmp_path, holder):
    rewrite(tmp_path, started="1")
    processes = [holder() for _ in range(5)]
    lines = [process.stdout.readline() for process in processes]  # "" from those that ended
    assert sorted(lines) == [""] * 4 + ["held\n"]


def test_releasing_twice_or_after_a_takeover_removes_nothing_of_others(tmp_path):
    first = Lock(tmp_path)
    rewrite(tmp_path)
    first.release()
    first.release()
    assert json.loads((tmp_path / LOCK).read_text())["token"] == "another"

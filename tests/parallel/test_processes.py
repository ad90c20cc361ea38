"""One run in several processes: the bits of one process, one writer, and one end for all."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest
import tiny

from jaxshare.commands import launch
from jaxshare.types import RefusedError

RUN = (*tiny.TWO_STEP, *tiny.QMIX, *tiny.SIZES, "parallel.shards=2")
LONG = (*RUN, "total_env_steps=1000000", "checkpoint.every=0")
SOON = 10  # seconds in which the end of one process ends all


def test_what_stands_before_and_behind_the_dashes():
    numbers, rest = launch.parsed(["processes=3", "devices=2", "--", "algo=qmix"])
    assert (numbers, rest) == ({"processes": 3, "devices": 2}, ["algo=qmix"])
    for wrong in (["processes=2"], ["seeds=2", "--"], ["processes=0", "--"], ["devices=x", "--"]):
        with pytest.raises(RefusedError):
            launch.parsed(wrong)


def test_each_process_sees_its_own_gpus():
    assert launch.seeing({}, 1, 2)[launch.GPUS] == "2,3"
    assert launch.seeing({launch.GPUS: "4,5,7,9"}, 1, 2)[launch.GPUS] == "7,9"


@pytest.mark.parametrize(("code", "told"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 137), ("", 1)])
def test_when_one_process_ends_the_others_do_soon(monkeypatch, code, told):
    """Even one that does not hear of SIGTERM, as in a program that waits for the dead one."""
    monkeypatch.setattr(launch, "AFTER_THE_END", 1.0)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    started = [subprocess.Popen([sys.executable, "-c", program]) for program in (deaf, f"import os, sys; {code}")]
    begin = time.monotonic()
    try:
        assert launch._watch(started) == told
    finally:
        launch._end(started)
    assert time.monotonic() - begin < SOON
    assert all(process.poll() is not None for process in started)


def test_processes_share_the_devices_of_each_run():
    with pytest.raises(RefusedError, match=r"parallel.processes=2 share the devices of each run.*parallel.data=1"):
        tiny.train("never", *RUN, "parallel.processes=2")


def test_processes_do_not_share_an_object_store():
    with pytest.raises(RefusedError, match=r"run_dir=memory://run cannot be used with parallel\.processes=2"):
        tiny.train("memory://run", *RUN, "parallel.data=2", "parallel.processes=2")


# ---------------------------------------------------------------------------------- real processes


def launched(run_dir, *arguments):
    command = [sys.executable, "-m", "jaxshare.launch", "processes=2", "devices=1", "--"]
    return started([*command, *arguments, f"run_dir={run_dir}"])


def trained(*arguments):
    return started([sys.executable, "-m", "jaxshare.train", *arguments])


def started(command):
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=tiny.REPOSITORY, env=tiny.ENVIRONMENT, stdout=pipe, stderr=pipe, text=True)


def finish(process, code=0):
    """(stdout, stderr) of a process that ends with this status."""
    output = process.communicate(timeout=240)
    assert process.returncode == code, output[1]
    return output


def process_number(number, run_dir):
    """The process id of one of a launched command."""
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        words = path.read_bytes().decode().split("\0") if path.exists() else []
        if f"parallel.process={number}" in words and f"run_dir={run_dir}" in words:
            return int(path.parent.name)
    raise AssertionError("there is no such process")


def wait_for_records(process, run_dir, count=40):
    metrics = run_dir / "metrics.jsonl"
    until = time.monotonic() + 240
    while not metrics.exists() or len(metrics.read_text().splitlines()) < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.2)


@pytest.mark.usefixtures("optimised")  # as the processes compile
def test_two_processes_have_the_bits_of_two_devices(tmp_path):
    process = launched(tmp_path / "two", *RUN, "checkpoint.every=16")
    tiny.train(tmp_path / "one", *RUN, "parallel.data=2")
    _, told = finish(process)
    assert "error" not in told
    assert tiny.records(tmp_path / "two") == tiny.records(tmp_path / "one")
    tiny.assert_equal(tiny.restore(tmp_path / "two", *RUN), tiny.restore(tmp_path / "one", *RUN))


@pytest.mark.slow
def test_a_signal_to_one_process_saves_all_and_either_number_goes_on(tmp_path):
    run_dir = tmp_path / "run"
    process = launched(run_dir, *LONG)
    wait_for_records(process, run_dir)
    os.kill(process_number(1, run_dir), signal.SIGTERM)
    _, told = finish(process, 128 + signal.SIGTERM)
    assert "Stopped by SIGTERM" in told
    (saved,) = [step for step in tiny.steps_saved(run_dir) if step > 2]
    assert saved > 10

    # on in two again, then in one
    process = launched(run_dir, *LONG, "resume=auto")
    wait_for_records(process, run_dir, len(tiny.records(run_dir)) + 40)
    process.send_signal(signal.SIGINT)
    finish(process, 128 + signal.SIGINT)
    process = trained(*LONG, "parallel.data=2", "resume=auto", f"run_dir={run_dir}")
    wait_for_records(process, run_dir, len(tiny.records(run_dir)) + 40)
    process.terminate()
    finish(process, 128 + signal.SIGTERM)

    # and back in two: what one process has saved, each of them reads its part of
    process = launched(run_dir, *LONG, "resume=auto")
    wait_for_records(process, run_dir, len(tiny.records(run_dir)) + 40)
    process.send_signal(signal.SIGINT)
    finish(process, 128 + signal.SIGINT)

    # nobody can tell
    records = tiny.records(run_dir)
    process = trained(*LONG, "parallel.data=2", f"run_dir={tmp_path / 'whole'}")
    wait_for_records(process, tmp_path / "whole", len(records) + 1)
    process.terminate()
    finish(process, 128 + signal.SIGTERM)
    assert tiny.records(tmp_path / "whole")[: len(records)] == records


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_process_that_is_killed_ends_all(tmp_path, number):
    process = launched(tmp_path / "run", *LONG)
    wait_for_records(process, tmp_path / "run")
    other = process_number(1 - number, tmp_path / "run")
    os.kill(process_number(number, tmp_path / "run"), signal.SIGKILL)
    begin = time.monotonic()
    output = process.communicate(timeout=60)
    assert time.monotonic() - begin < SOON
    assert process.returncode not in (0, None), output[1]
    assert not pathlib.Path(f"/proc/{other}").exists()


@pytest.mark.slow
def test_processes_with_different_settings_are_refused_alike(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = (*RUN, "parallel.data=2", "parallel.processes=2", f"parallel.coordinator=127.0.0.1:{port}")
    pair = [
        trained(*common, f"run_dir={tmp_path}/run", "parallel.process=0"),
        trained(*common, f"run_dir={tmp_path}/run", "parallel.process=1", "algo.hparams.lr=0.5"),
    ]
    for process in pair:
        _, told = finish(process, 1)
        assert "process 1 has algo.hparams.lr=0.5" in told
        assert "Traceback" not in told
    assert not (tmp_path / "run").exists()

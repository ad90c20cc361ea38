"""Signals that announce an end: at once where nothing is lost, and otherwise after everything is saved."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest
import tiny

from jaxshare.run import signals
from jaxshare.run.signals import StoppedError, watching

SOON = 5.0  # seconds
MINUTE_IN_C = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**8)"  # no Python handler runs meanwhile, as in XLA's compiler
WAIT = """
import hashlib, pathlib, signal, sys, time
for ignored_by_a_shell in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    default = signal.default_int_handler if ignored_by_a_shell == signal.SIGINT else signal.SIG_DFL
    signal.signal(ignored_by_a_shell, default)
from jaxshare.run.signals import watching
with watching(at_once=True) as watch:
    watch.on_leaving(lambda: pathlib.Path(sys.argv[1]).write_text("closed"))
    {before}
    with watch.computing("compiling"):
        print("ready", flush=True)
        {work}
    print("returned", flush=True)
    {after}
"""


def run(tmp_path, signums, before="", work=MINUTE_IN_C, after=""):
    """(exit status, stdout, stderr, seconds from the first signal to the end) of a process."""
    code = WAIT.format(before=before, work=work, after=after)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "closed")], cwd=tiny.REPOSITORY, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.1)
        since = time.monotonic()
        for signum in signums:
            process.send_signal(signum)
            time.sleep(0.2)
        output, errors = process.communicate(timeout=60)
        return process.returncode, output, errors, time.monotonic() - since
    finally:
        process.kill()


@pytest.mark.parametrize("signum", signals.ENDS, ids=[signal.Signals(number).name for number in signals.ENDS])
def test_where_nothing_is_lost_the_process_ends_at_once(tmp_path, signum):
    code, output, errors, seconds = run(tmp_path, [signum])
    assert code == 128 + signum
    assert output == ""
    assert errors == f"Stopped by {signal.Signals(signum).name}; nothing was learned yet.\n"
    assert seconds < SOON
    assert (tmp_path / "closed").read_text() == "closed"


def test_all_that_announce_an_end_are_there():
    wanted = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGQUIT", "SIGXCPU")
    assert [signal.Signals(number).name for number in signals.ENDS] == list(wanted)


def test_it_says_how_to_go_on(tmp_path):
    then = "watch.then = 'the same command with resume=auto run_dir=x goes on'"
    _, _, errors, _ = run(tmp_path, [signal.SIGTERM], before=then)
    assert errors == "Stopped by SIGTERM; the same command with resume=auto run_dir=x goes on.\n"


def test_a_closer_that_hangs_does_not_hold_it_up(tmp_path):
    code, _, _, seconds = run(tmp_path, [signal.SIGTERM], before="watch.on_leaving(lambda: time.sleep(60))")
    assert code == 128 + signal.SIGTERM
    assert seconds < SOON


def test_what_was_learned_is_not_left(tmp_path):
    """It says at once what will happen, and goes on to where it is saved."""
    code, output, errors, _ = run(
        tmp_path, [signal.SIGUSR1], before="watch.learned()", work="time.sleep(1)", after="print(list(watch))"
    )
    assert (code, output) == (0, f"returned\n[{int(signal.SIGUSR1)}]\n")
    assert errors == "SIGUSR1: the run ends when compiling is done.\n"


def test_a_second_interrupt_ends_it_at_once_whatever_is_lost(tmp_path):
    code, output, errors, seconds = run(tmp_path, [signal.SIGINT, signal.SIGINT], before="watch.learned()")
    assert (code, output) == (130, "")
    assert "Traceback" not in errors
    assert seconds < SOON


def test_what_is_ignored_stays_ignored(tmp_path):
    """As under nohup."""
    ignore = "pass\nimport signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\nwith watching(at_once=True) as watch:"
    code = WAIT.replace("with watching(at_once=True) as watch:", ignore.removeprefix("pass\n"))
    code = code.format(before="", work="time.sleep(1)", after="")
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "closed")], cwd=tiny.REPOSITORY, text=True, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=30)[0] == "returned\n"
    assert process.returncode == 0


# ------------------------------------------------------------------------------------------------- in this process


def test_handlers_and_the_wakeup_descriptor_are_given_back():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = [signal.getsignal(number) for number in signals.ENDS]
    old = signal.set_wakeup_fd(writing)
    try:
        with watching() as watch:
            os.kill(os.getpid(), signal.SIGUSR2)
            until = time.monotonic() + 10
            while not watch and time.monotonic() < until:
                time.sleep(0.01)
        assert list(watch) == [signal.SIGUSR2]
        assert os.read(reading, 1) == bytes([signal.SIGUSR2])  # handed on
        assert signal.set_wakeup_fd(old) == writing
    finally:
        signal.set_wakeup_fd(old)
        os.close(reading)
        os.close(writing)
    assert [signal.getsignal(number) for number in signals.ENDS] == before
    assert "signals" not in {thread.name for thread in threading.enumerate()}


def test_a_caller_in_python_is_not_ended_but_told(capfd):
    """A notebook that trains must survive an interrupt."""
    with watching() as watch:
        with watch.computing("compiling"):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
        assert list(watch) == [signal.SIGINT]
        refused = pytest.raises(StoppedError, match="Stopped by SIGINT; nothing was learned yet")
        with refused, watch.computing("evaluation"):
            pytest.fail("it was entered")
    assert capfd.readouterr().err == "SIGINT: the run ends when compiling is done.\n"


def test_other_threads_have_no_signals():
    found = []

    def look():
        with watching() as watch, watch.computing("chunk"):
            found.append(signal.getsignal(signal.SIGUSR1))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL]


# ------------------------------------------------------------------------------------------------------- the command


def wait_until(condition, process, seconds=240):
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


def command(run_dir, *arguments, cold=True):
    environment = dict(tiny.ENVIRONMENT)
    if cold:
        environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    return subprocess.Popen(
        [sys.executable, "-m", "jaxshare.train", f"run_dir={run_dir}", *arguments], cwd=tiny.REPOSITORY,
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def children(process):
    """Processes whose command line names this one, as those of environments do, or whose parent it is."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if int(parent) == process.pid:
            found.append(int(entry.name))
    return found


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_cold_compilation_is_left_within_seconds(tmp_path, signum):
    """The largest network of the suite, which takes most of a minute."""
    run_dir = tmp_path / "run"
    arguments = ("env=smax", "env.scenario=3m", "algo=qmix", "modifiers=[differ]", "seeds=2", "progress=false")
    process = command(run_dir, *arguments)
    wait_until((run_dir / "config.yaml").exists, process)
    time.sleep(8.0)  # tracing is over, the compiler is at work
    since = time.monotonic()
    process.send_signal(signum)
    _, errors = process.communicate(timeout=120)
    assert time.monotonic() - since < SOON
    assert process.returncode == 128 + signum
    assert errors == f"Stopped by {signal.Signals(signum).name}; nothing was learned yet.\n"
    assert not (run_dir / "run.lock").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")  # as the command compiles
@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU])
def test_learned_things_are_saved_and_the_run_goes_on_exactly(tmp_path, signum):
    arguments = (*tiny.PLAIN, "algo.recurrent=false", "total_env_steps=800", "checkpoint.every=0")
    whole = tiny.train(tmp_path / "whole", *arguments)
    run_dir = tmp_path / "run"
    log = run_dir / "metrics.jsonl"
    process = command(run_dir, *arguments, cold=False)
    wait_until(lambda: log.exists() and len(log.read_bytes().splitlines()) > 6, process)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signum, errors
    assert f"Stopped by {signal.Signals(signum).name}; the same command with resume=auto run_dir={run_dir}" in errors
    assert tiny.steps_saved(run_dir)[-1] > 1
    tiny.train(run_dir, *arguments, "resume=auto")
    tiny.assert_equal(tiny.restore(run_dir, *arguments), tiny.restore(whole, *arguments))
    assert tiny.records(run_dir) == tiny.records(whole)


@pytest.mark.slow
def test_workers_of_environments_end_with_a_run_that_is_left(tmp_path):
    arguments = (
        "env=lbforaging", "env.scenario=5x5-2p-1f", "env.workers=2", "algo=iql", "num_envs=4", "batch_size=4",
        "eval.every=100000", "total_env_steps=1000000", "progress=false",
    )  # fmt: skip
    run_dir = tmp_path / "run"
    process = command(run_dir, *arguments)
    wait_until(lambda: len(children(process)) >= 2 and (run_dir / "config.yaml").exists(), process)
    workers = children(process)
    since = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert time.monotonic() - since < 2 * SOON
    assert process.returncode == 128 + signal.SIGTERM
    time.sleep(0.5)
    assert [pid for pid in workers if alive(pid)] == []

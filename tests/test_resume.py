"""Stopping a run, in whatever way, changes nothing but wall-clock time."""

import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import tiny

from jaxshare.commands import train
from jaxshare.run.checkpoint.checkpoints import Checkpoints
from jaxshare.run.console import Console
from jaxshare.run.fleet import Fleet
from jaxshare.run.folder import open_run_dir

pytestmark = pytest.mark.usefixtures("optimised")  # bitwise comparisons

ARGUMENTS = (*tiny.FULL, "seeds=2")
LONG = (*tiny.PLAIN, "algo.recurrent=false", "total_env_steps=800", "checkpoint.every=64")
RESUME = "resume=auto"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run without interruption."""
    return tiny.train(tmp_path_factory.mktemp("whole") / "run", *ARGUMENTS)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The first two of its four chunks, on one device, with a checkpoint after each."""
    run_dir = tmp_path_factory.mktemp("stopped") / "run"
    return tiny.train(run_dir, *ARGUMENTS, "parallel.devices=1", "checkpoint.every=16", max_chunks=2)


@pytest.fixture
def half(stopped, tmp_path):
    """A copy of it to go on with."""
    return shutil.copytree(stopped, tmp_path / "half")


@pytest.fixture(scope="module")
def whole_long(tmp_path_factory):
    return tiny.train(tmp_path_factory.mktemp("whole") / "long", *LONG)


def assert_same_run(run_dir, expected, arguments):
    """Everything in the last checkpoint to the bit, and the same metrics."""
    tiny.assert_equal(tiny.restore(run_dir, *arguments), tiny.restore(expected, *arguments))
    assert tiny.records(run_dir) == tiny.records(expected)


def run_command(run_dir, *arguments):
    """`python -m jaxshare.train` as a process of its own, with the suite's compilation cache."""
    return subprocess.Popen(
        [sys.executable, "-m", "jaxshare.train", f"run_dir={run_dir}", *arguments],
        cwd=tiny.REPOSITORY, env=tiny.ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_checkpoints(process, run_dir, number, seconds=240):
    """Until a checkpoint from after the start is there, and `number` were written in all."""
    until = time.monotonic() + seconds
    seen = set()
    while len(seen) < number:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, f"no checkpoint after {seconds} s"
        seen.update(tiny.steps_saved(run_dir))
        time.sleep(0.01)


# ------------------------------------------------------------------------------------------------------------ exact


def test_the_uninterrupted_run_learned_something(whole):
    clock, states = tiny.restore(whole, *ARGUMENTS)
    assert int(clock.updates) == 4 * 2 * 4
    for state in states:
        assert state.env_steps == 64
        assert np.count_nonzero(state.replay.mask) == 16 * 2
        assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(state.learner.opt_state["agent"]))
        moved = jax.tree.map(lambda x, y: np.any(x != y), state.learner.params, state.learner.target_params)
        assert any(jax.tree.leaves(moved))


def test_stop_and_resume_is_exact(whole, half):
    """On another number of devices, and with records behind the last checkpoint, as a kill leaves them."""
    assert len(tiny.records(half)) < len(tiny.records(whole))
    with open(half / "metrics.jsonl", "a") as file:
        file.write('{"seed": 0, "env_steps": 56, "updates": 24, "wall_s": 1.0, "loss/td": 0.5}\n{"seed": 0, "env')
    tiny.train(half, *ARGUMENTS, "parallel.devices=2", RESUME)
    assert_same_run(half, whole, ARGUMENTS)
    seconds = [record["wall_s"] for record in tiny.records(half, but=())]
    assert seconds == sorted(seconds)


@pytest.mark.slow  # test_checkpoint_readers reads such a one, and an unfinished one is passed over below
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(whole, half, capsys):
    """Its metrics are cut to where that one was, and the run ends with the same bits as if nothing had been."""
    older, newest = tiny.steps_saved(half)
    for path in (half / "checkpoints" / str(newest)).rglob("manifest.ocdbt"):
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    capsys.readouterr()
    tiny.train(half, *ARGUMENTS, RESUME)
    warning = capsys.readouterr().err
    for step in (older, newest):
        assert str(half / "checkpoints" / str(step)) in warning
    assert "manifest.ocdbt is not what was written" in warning
    assert "delete" not in warning
    assert_same_run(half, whole, ARGUMENTS)


def test_resuming_compiles_the_chunk_once(half, monkeypatch):
    """The states and the clock read from a checkpoint are laid out as a chunk returns them."""
    compiled, chunks, chunk = [], [], Fleet.chunk

    def note(event, duration, **about):
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    def spy(self, interrupted):
        before = len(compiled)
        found = chunk(self, interrupted)
        chunks.append(len(compiled) - before)
        return found

    jax.monitoring.register_event_duration_secs_listener(note)
    monkeypatch.setattr(Fleet, "chunk", spy)
    try:
        tiny.train(half, *ARGUMENTS, RESUME)
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
    assert chunks == [1, 0]


def test_resuming_a_finished_run_shows_the_table_and_changes_nothing(whole, tmp_path, capsys):
    run_dir = shutil.copytree(whole, tmp_path / "run")
    before = tiny.files(run_dir)
    capsys.readouterr()
    tiny.train(run_dir, *ARGUMENTS, RESUME)
    shown = capsys.readouterr().out
    assert "last evaluation" in shown
    assert "seed 1" in shown
    after = tiny.files(run_dir)
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} <= {"config.yaml", "learning_curve.png"}


@pytest.mark.slow
def test_total_env_steps_may_grow_where_no_schedule_reads_it(tmp_path):
    arguments = (*tiny.PLAIN, "algo.recurrent=false")
    tiny.train(tmp_path, *arguments, "total_env_steps=40")
    clock, (state,) = tiny.restore(tmp_path, *arguments)
    assert (state.env_steps, clock.updates) == (40, 16)
    tiny.train(tmp_path, *arguments, RESUME)
    clock, (state,) = tiny.restore(tmp_path, *arguments)
    assert (state.env_steps, clock.updates) == (64, 32)


@pytest.mark.slow
def test_without_its_replay_a_run_goes_on_inexactly_and_says_so(tmp_path, capsys):
    arguments = (*ARGUMENTS, "checkpoint.replay=false")
    tiny.train(tmp_path, *arguments, max_chunks=2)
    before, _ = tiny.restore(tmp_path, *arguments)
    assert not (tmp_path / "checkpoints" / str(tiny.steps_saved(tmp_path)[-1]) / "replay").exists()
    capsys.readouterr()
    tiny.train(tmp_path, *arguments, RESUME)
    shown = capsys.readouterr().out
    assert "note" in shown
    assert "inexactly" in shown
    clock, states = tiny.restore(tmp_path, *arguments)
    assert clock.updates > before.updates
    assert all(state.env_steps >= 64 for state in states)
    assert all(np.all(np.isfinite(x)) for state in states for x in jax.tree.leaves(state.learner))


# ---------------------------------------------------------------------------------------------------------- signals


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "evaluations"),
    [(signal.SIGTERM, 3), (signal.SIGINT, 5)],  # during the second chunk; during the last
)
def test_signals_save_at_the_next_chunk_boundary(whole, tmp_path, monkeypatch, capsys, signum, evaluations):
    calls, evaluated = [], Console.evaluated

    def interrupt(self, *args):
        evaluated(self, *args)
        calls.append(1)
        if len(calls) == evaluations:
            os.kill(os.getpid(), signum)

    handlers = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    with monkeypatch.context() as patch:
        patch.setattr(Console, "evaluated", interrupt)
        patch.setattr(sys, "argv", ["train", f"run_dir={tmp_path}", *ARGUMENTS])
        with pytest.raises(SystemExit) as stop:
            train.main()
    assert stop.value.code == 128 + signum
    message = capsys.readouterr().err
    assert signal.Signals(signum).name in message
    assert RESUME in message
    assert tiny.steps_saved(tmp_path)[-1] == 1 + 2 * (evaluations - 1)
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == handlers
    tiny.train(tmp_path, *ARGUMENTS, RESUME)
    assert_same_run(tmp_path, whole, ARGUMENTS)


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_process_stopped_at_any_moment_goes_on_with_the_same_command(whole_long, tmp_path, signum, code):
    process = run_command(tmp_path, *LONG)
    wait_for_checkpoints(process, tmp_path, 3)
    time.sleep(np.random.default_rng().uniform(0.0, 0.2))
    process.send_signal(signum)
    _, error = process.communicate(timeout=120)
    assert process.returncode == code
    assert "Traceback" not in error
    assert signum == signal.SIGKILL or RESUME in error
    tiny.train(tmp_path, *LONG, RESUME)
    assert_same_run(tmp_path, whole_long, LONG)


# ------------------------------------------------------------------------------ killed while a checkpoint is written


def test_an_unfinished_checkpoint_is_passed_over(whole, half):
    good = tiny.steps_saved(half)
    assert good == [3, 5]
    unfinished = (half / "checkpoints" / "5").rename(half / "checkpoints" / "5.orbax-checkpoint-tmp")
    biggest = max((p for p in unfinished.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    os.truncate(biggest, biggest.stat().st_size // 2)
    shutil.copytree(unfinished, half / "checkpoints" / "5.orbax-checkpoint-tmp-1700000000000000")
    assert tiny.steps_saved(half) == [3]
    tiny.train(half, *ARGUMENTS, RESUME)
    assert_same_run(half, whole, ARGUMENTS)


@pytest.mark.parametrize("resume", ["auto", "never"])
@pytest.mark.parametrize("left", ["config.yaml", "checkpoints", "checkpoints/1.orbax-checkpoint-tmp/learner"])
def test_a_run_killed_before_its_first_checkpoint_begins_anew(tmp_path, left, resume):
    chosen = tiny.settings(tmp_path, *ARGUMENTS, f"resume={resume}")
    assert open_run_dir(chosen) == (tmp_path, False)
    (tmp_path / "metrics.jsonl").touch()
    if not (tmp_path / left).exists():
        (tmp_path / left).mkdir(parents=True)
    assert open_run_dir(chosen) == (tmp_path, False)


def test_the_earlier_checkpoint_stays_until_the_new_one_is_complete(half, monkeypatch):
    seen, save = [], Checkpoints.save

    def spy(self, *args):
        before = tiny.steps_saved(half)
        save(self, *args)
        seen.append((before, tiny.steps_saved(half)))

    monkeypatch.setattr(Checkpoints, "save", spy)
    tiny.train(half, *ARGUMENTS, "checkpoint.keep=1", RESUME, max_chunks=1)
    assert [after for _, after in seen] == [[7]]
    assert 5 in seen[0][0]


@pytest.mark.slow
def test_a_run_with_continuous_actions_is_exact_as_well(tmp_path):
    """Their masks are arrays without an element, which orbax does not save."""
    arguments = (
        "env=mpe", "env.scenario=pred_prey_3a", "env.max_steps=2", "algo=comix", "algo.hidden_dim=4",
        "algo.embed_dim=4", "algo.cem_samples=4", "algo.cem_elites=2", "algo.cem_rounds=1", "num_envs=4",
        "batch_size=4", "replay.capacity=16", "eval.every=16", "eval.episodes=4", "progress=false",
        "total_env_steps=40", "checkpoint.every=16",
    )  # fmt: skip
    whole = tiny.train(tmp_path / "whole", *arguments)
    tiny.train(tmp_path / "half", *arguments, max_chunks=1)
    tiny.train(tmp_path / "half", *arguments, RESUME)
    assert_same_run(tmp_path / "half", whole, arguments)

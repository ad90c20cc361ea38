"""Commands that read checkpoints: the newest sound one, whatever else lies there or happens meanwhile."""

import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from rich.console import Console

from jaxshare import collect, decompose, evaluate
from jaxshare.checkpoint import Checkpoints, DamagedError
from jaxshare.run import build
from jaxshare.types import RefusedError

ARGUMENTS = (*tiny.PLAIN, "algo.recurrent=false", "checkpoint.every=16", "checkpoint.keep=9", "checkpoint.replay=false")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tiny.train(tmp_path_factory.mktemp("whole") / "run", *ARGUMENTS, max_chunks=2)


@pytest.fixture(scope="module")
def program(whole):
    return build.prepare(tiny.settings(whole, *ARGUMENTS))


@pytest.fixture
def run_dir(whole, tmp_path):
    """A copy whose newest checkpoint is damaged."""
    copy = shutil.copytree(whole, tmp_path / "run")
    newest = tiny.steps_saved(copy)[-1]
    for path in (copy / "checkpoints" / str(newest) / "learner").rglob("manifest.ocdbt"):
        path.write_bytes(b"")
    return copy


def read_by_evaluate(run_dir, program, checkpoint=None):
    config = evaluate.Config(run_dir=str(run_dir), checkpoint=checkpoint)
    return evaluate._restore(run_dir, config, tiny.settings(run_dir, *ARGUMENTS), program)


def read_by_decompose(run_dir, program):
    return decompose._restore(run_dir, tiny.settings(run_dir, *ARGUMENTS), program)


@pytest.mark.parametrize("read", [read_by_evaluate, read_by_decompose])
def test_the_one_before_a_damaged_one_is_read(run_dir, program, read, capsys):
    *_, older, newest = tiny.steps_saved(run_dir)
    before = tiny.files(run_dir)
    step, clock, states, *_ = read(run_dir, program)
    assert (step, int(clock.iteration), len(states)) == (older, older, 1)
    warning = capsys.readouterr().err
    for step in (older, newest):
        assert str(run_dir / "checkpoints" / str(step)) in warning
    assert "manifest.ocdbt" in warning
    assert "delete" not in warning
    assert tiny.files(run_dir) == before


def test_a_damaged_one_that_was_asked_for_is_refused(run_dir, program):
    *_, older, newest = tiny.steps_saved(run_dir)
    with pytest.raises(DamagedError, match=rf"{newest} is damaged .*manifest.ocdbt.*Sound ones may be: .*{older}"):
        read_by_evaluate(run_dir, program, newest)


def test_policies_of_damaged_checkpoints_are_left_out(run_dir, program, capsys):
    *sound, newest = tiny.steps_saved(run_dir)
    config = collect.Config(run_dir=str(run_dir), pool_episodes=2, progress=False)
    settings = tiny.settings(run_dir, *ARGUMENTS)
    policies = collect._policies(config, settings, program, Console(), low=0.0)
    assert len(policies.names) == len(sound) + 1
    assert np.all(np.isfinite(policies.returns))
    warning = capsys.readouterr().err
    assert f"checkpoint {newest} is left out" in warning
    assert "manifest.ocdbt" in warning


def test_beside_a_run_that_saves_fast(whole, program, tmp_path):
    """Its checkpoints are removed as fast as it can; each reading ends with one of them."""
    run_dir = shutil.copytree(whole, tmp_path / "run")
    writer = Checkpoints(run_dir, keep=1)
    shapes = jax.eval_shape(program.init, jnp.int32(0)).replace(replay=None)
    clock, runs = writer.restore(writer.latest(), shapes, 1, with_replay=False)
    stop = threading.Event()
    problems = []

    def save():
        step = writer.latest()
        while not stop.is_set():
            step += 1
            try:
                writer.save(clock._replace(iteration=np.int32(step)), runs, {})
            except RefusedError as error:
                problems.append(error)
                return

    thread = threading.Thread(target=save)
    thread.start()
    try:
        steps = [read_by_evaluate(run_dir, program)[0] for _ in range(6)]
    finally:
        stop.set()
        thread.join()
    assert problems == []
    assert steps == sorted(steps)
    assert steps[-1] > steps[0]


@pytest.mark.parametrize("read", [read_by_evaluate, read_by_decompose])
def test_an_environment_that_changed_since(whole, read):
    """Which number changed is said, and no checkpoint is blamed."""
    arguments = [argument.replace("two_step", "climbing") for argument in ARGUMENTS]
    before = tiny.files(whole)
    with pytest.raises(RefusedError) as refused:
        read(whole, build.prepare(tiny.settings(whole, *arguments)))
    message = str(refused.value)
    assert "offers 3 actions now, and the run was trained with 2" in message, message
    assert "damaged" not in message
    assert "delete" not in message
    assert tiny.files(whole) == before


def test_without_any_checkpoint(program, tmp_path):
    with pytest.raises(RefusedError, match=r"has no checkpoint; it has: none"):
        read_by_evaluate(tmp_path, program)
    with pytest.raises(RefusedError, match=r"has no checkpoint\. Train it first"):
        read_by_decompose(tmp_path, program)

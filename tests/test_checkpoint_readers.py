"""Commands that read checkpoints: the newest sound one, whatever else lies there or happens meanwhile."""

import shutil
import threading

import numpy as np
import pytest
import tiny
from rich.progress import Progress

from jaxshare.collection import policies
from jaxshare.run import saved
from jaxshare.run.checkpoint.checkpoints import Checkpoints
from jaxshare.run.checkpoint.errors import DamagedError
from jaxshare.types import RefusedError

ARGUMENTS = (*tiny.PLAIN, "algo.recurrent=false", "checkpoint.every=16", "checkpoint.keep=9", "checkpoint.replay=false")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tiny.train(tmp_path_factory.mktemp("whole") / "run", *ARGUMENTS, max_chunks=2)


@pytest.fixture
def run_dir(whole, tmp_path):
    """A copy whose newest checkpoint is damaged."""
    copy = shutil.copytree(whole, tmp_path / "run")
    newest = tiny.steps_saved(copy)[-1]
    for path in (copy / "checkpoints" / str(newest) / "learner").rglob("manifest.ocdbt"):
        path.write_bytes(b"")
    return copy


def read(run_dir, checkpoint=None):
    return saved.open_run(run_dir, checkpoint).restored


def test_the_one_before_a_damaged_one_is_read(run_dir, capsys):
    *_, older, newest = tiny.steps_saved(run_dir)
    before = tiny.files(run_dir)
    restored = read(run_dir)
    assert (restored.step, int(restored.clock.iteration), len(restored.runs)) == (older, older, 1)
    warning = capsys.readouterr().err
    for step in (older, newest):
        assert str(run_dir / "checkpoints" / str(step)) in warning
    assert "manifest.ocdbt" in warning
    assert "delete" not in warning
    assert tiny.files(run_dir) == before


def test_a_damaged_one_that_was_asked_for_is_refused(run_dir):
    *_, older, newest = tiny.steps_saved(run_dir)
    with pytest.raises(DamagedError, match=rf"{newest} is damaged .*manifest.ocdbt.*Sound ones may be: .*{older}"):
        read(run_dir, newest)


def test_policies_of_damaged_checkpoints_are_left_out(run_dir, capsys):
    *sound, newest = tiny.steps_saved(run_dir)
    with Progress(disable=True) as bar:
        measured = policies.measure(saved.open_run(run_dir), policies.Sample(2, seed=0), bar)
    assert len(measured.names) == len(sound) + 1
    assert np.all(np.isfinite(measured.returns))
    warning = capsys.readouterr().err
    assert f"checkpoint {newest} is left out" in warning
    assert "manifest.ocdbt" in warning


def test_beside_a_run_that_saves_fast(whole, tmp_path):
    """Its checkpoints are removed as fast as it can; each reading ends with one of them."""
    run_dir = shutil.copytree(whole, tmp_path / "run")
    writer = Checkpoints(run_dir, keep=1)
    shapes = saved.open_run(run_dir).wanted().shapes
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
        steps = [read(run_dir).step for _ in range(6)]
    finally:
        stop.set()
        thread.join()
    assert problems == []
    assert steps == sorted(steps)
    assert steps[-1] > steps[0]


def test_an_environment_that_changed_since(whole):
    """Which number changed is said, and no checkpoint is blamed."""
    arguments = [argument.replace("two_step", "climbing") for argument in ARGUMENTS]
    before = tiny.files(whole)
    with pytest.raises(RefusedError) as refused:
        _ = saved.open_run(whole).with_settings(tiny.settings(whole, *arguments)).restored
    message = str(refused.value)
    assert "offers 3 actions now, and the run was trained with 2" in message, message
    assert "damaged" not in message
    assert "delete" not in message
    assert tiny.files(whole) == before


def test_without_any_checkpoint(whole, tmp_path):
    (tmp_path / "config.yaml").write_text((whole / "config.yaml").read_text())
    for checkpoint in ("latest", 7, "best"):
        with pytest.raises(RefusedError, match=r"has no checkpoint\. Train it first"):
            read(tmp_path, checkpoint)
    with pytest.raises(RefusedError, match=r"has no checkpoint\. Train it first"), Progress(disable=True) as bar:
        policies.measure(saved.open_run(tmp_path), policies.Sample(2, seed=0), bar)

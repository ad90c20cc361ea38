"""When a run saves its checkpoints, and that each is on the disk before anything counts on it."""

import itertools
import sys

import pytest
import tiny

sys.path.insert(0, str(tiny.REPOSITORY / "benchmarks"))

from _faults_forgetful import ForgetfulDisk

from jaxshare.run.checkpoint.checkpoints import Checkpoints
from jaxshare.run.folder import open_run_dir


@pytest.mark.parametrize(("minutes", "saved"), [(1e-9, [1, 3, 5, 7, 9]), (60, [1, 9]), (0, [1, 9])])
def test_checkpoints_by_the_clock(tmp_path, minutes, saved):
    """Beside those by environment steps: after the prefill, after each chunk whose time has come, and at the end."""
    arguments = (*tiny.PLAIN, "algo.recurrent=false", "checkpoint.every=0", "checkpoint.keep=9")
    tiny.train(tmp_path, *arguments, f"checkpoint.minutes={minutes}")
    assert tiny.steps_saved(tmp_path) == saved


def test_after_power_loss_the_same_command_goes_on_or_starts_anew(tmp_path):
    """Configuration, versions, metrics and checkpoints: at every moment of a run what is read is on the disk."""
    disk = ForgetfulDisk(tmp_path / "disk")
    disk.root.mkdir()
    images = []
    moments = itertools.count()

    def lose_power():
        moment = next(moments)
        if moment % 7 == 0:
            images.append(disk.image(tmp_path / f"image{moment}", all_names=moment % 2 == 0))

    with disk.watch(lose_power):
        tiny.train(disk.root / "run", *tiny.PLAIN, "checkpoint.every=16", max_chunks=2)
        images.append(disk.image(tmp_path / "last", all_names=False))
    assert len(images) > 9

    ends = []
    for image in images:
        run_dir = image / "run"
        _, resuming = open_run_dir(tiny.settings(run_dir, *tiny.PLAIN, "resume=auto"))
        checkpoints = Checkpoints(run_dir)
        ends.append(checkpoints.latest() if resuming else None)
        if resuming:
            meta = checkpoints.meta(checkpoints.latest())
            assert (run_dir / "metrics.jsonl").stat().st_size >= meta["metrics_bytes"]
    assert ends[0] is None
    assert ends[-1] == tiny.steps_saved(disk.root / "run")[-1]
    assert sorted(ends, key=lambda end: end or 0) == ends

"""benchmarks/faults.py: its disks lose what they should and nothing else, and its counts are told."""

import errno
import random
import sys

import pytest
import tiny

sys.path.insert(0, str(tiny.REPOSITORY / "benchmarks"))

import _faults_disk
import _faults_run
import faults
from _faults_run import Outcome

from jaxshare import durable

needs_mount = pytest.mark.skipif(not _faults_disk.can_mount(), reason="no file system can be mounted here")


@pytest.mark.parametrize("name", list(_faults_disk.DAMAGES))
def test_a_damage_changes_its_file(tmp_path, name):
    path = tmp_path / "file"
    path.write_bytes(b"sixteen bytes ok")
    _faults_disk.DAMAGES[name](path)
    lengths = {"bit flipped": 16, "cut in half": 8, "emptied": 0}
    assert path.exists() == (name != "deleted")
    if path.exists():
        assert len(path.read_bytes()) == lengths[name]
        assert path.read_bytes() != b"sixteen bytes ok"


def test_images_of_a_disk_that_forgets(tmp_path, monkeypatch):
    """A run that syncs what it should is found whole in each image; what it did not sync is lost."""
    monkeypatch.setattr(_faults_disk, "SYNCS", 40)
    random.seed(3)

    def train(run_dir):
        run_dir.mkdir()
        (run_dir / "bare").write_text("lost")
        durable.sync_folder(run_dir.parent)
        for step in range(40):
            durable.write_text(run_dir / "config.yaml", f"step {step}")

    images = _faults_disk.images_of_forgetful(tmp_path, 6, train)
    assert len(images) == 6
    assert {image.kind for image in images} == {"names without bytes", "nothing unsynced"}
    texts = []
    for image in images:
        with image.opened() as run_dir:
            config = run_dir / "config.yaml"
            texts.append(config.read_text() if config.exists() else "")
            bare = run_dir / "bare"
            assert not bare.exists() or bare.read_text() == ""
    assert all(text.startswith("step") for text in texts[1:])


def test_a_checkpoint_is_complete_when_its_name_is_a_number(tmp_path):
    assert not _faults_disk.has_checkpoint(tmp_path)
    (tmp_path / "checkpoints" / "5.orbax-checkpoint-tmp-new").mkdir(parents=True)
    assert not _faults_disk.has_checkpoint(tmp_path)
    (tmp_path / "checkpoints" / "5").mkdir()
    assert _faults_disk.has_checkpoint(tmp_path)
    assert not _faults_disk.has_checkpoint(tmp_path, 2)


def test_what_is_counted_and_told(tmp_path, monkeypatch):
    outcomes = [Outcome(True, True, "a"), Outcome(True, None, "b"), Outcome(False, False, "a", "error: no")]
    monkeypatch.setitem(faults.KINDS, "kills", lambda folder, whole, trials: outcomes)
    row = faults.campaign("kills", tmp_path, tmp_path, 3)
    assert (row["trials"], row["survived"], row["to_the_end"], row["same_bits"]) == (3, 2, 2, 1)
    told = faults.line("kills", row)
    assert "2 of    3 survived,   1 of   2 same bits" in told
    assert "2 a; 1 b" in told
    assert "error: no" in told


def test_one_sentence():
    assert _faults_run.said_in_one_sentence("error: the disk is full\n")
    assert not _faults_run.said_in_one_sentence("Traceback (most recent call last):\n")
    assert not _faults_run.said_in_one_sentence("a\n" * 9)


@needs_mount
@pytest.mark.slow
def test_a_mounted_disk_is_full_and_remembers_what_was_synced(tmp_path):
    with _faults_disk.mounted(tmp_path / "disk.img", tmp_path / "disk") as place:
        durable.write_text(place / "config.yaml", "synced")
        (place / "bare").write_text("not synced")
        copy = tmp_path / "copy.img"
        copy.write_bytes((tmp_path / "disk.img").read_bytes())
        _faults_disk.fill(place)
        with pytest.raises(OSError, match="No space left") as full:
            durable.write_text(place / "config.yaml", "new" * 10_000)
        assert full.value.errno == errno.ENOSPC
        assert (place / "config.yaml").read_text() == "synced"
    with _faults_disk.mounted(copy, tmp_path / "after") as place:
        assert (place / "config.yaml").read_text() == "synced"
        bare = place / "bare"
        assert not bare.exists() or bare.read_text() == ""


@needs_mount
@pytest.mark.slow
def test_power_loss_on_a_mounted_disk(tmp_path):
    whole = tmp_path / "whole"
    assert _faults_run.go_on(whole, whole).same_bits
    outcomes = faults.power(tmp_path, whole, 3)
    assert [(outcome.survived, outcome.same_bits) for outcome in outcomes] == [(True, True)] * 3, outcomes
    assert not any("LOST" in outcome.note for outcome in outcomes)

"""Checkpoints without a run: durable, summed, and told apart when damaged, gone, or of something else."""

import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny

sys.path.insert(0, str(tiny.REPOSITORY / "benchmarks"))

import orbax.checkpoint as ocp
from _faults_forgetful import ForgetfulDisk

from jaxshare import durable
from jaxshare.run.checkpoint import checksums, contents
from jaxshare.run.checkpoint.checkpoints import Checkpoints
from jaxshare.run.checkpoint.contents import Best, Wanted
from jaxshare.run.checkpoint.errors import DamagedError, GoneError
from jaxshare.types import Box, Clock, Discrete, EnvSpec, LearnerState, RefusedError, TrainState

SLOTS = 4
ALL = ["learner", "replay", "best", "meta"]


def state(seed, width=3):
    """A run with a little of everything, an empty array and two filled slots of four."""
    rng = np.random.default_rng(seed)
    learner = LearnerState(
        params={"agent": {"kernel": rng.normal(size=(width, 2)).astype(np.float32)}},
        target_params={"agent": {"kernel": rng.normal(size=(width, 2)).astype(np.float32)}},
        opt_state={"agent": (np.int32(seed), rng.normal(size=(width, 2)).astype(np.float32))},
        stats={},
    )
    replay = {"obs": rng.normal(size=(2, width)).astype(np.float32), "avail": np.zeros((2, 0), bool)}
    return TrainState(seed=np.int32(seed), env_steps=np.int32(8), updates=np.int32(5), learner=learner, replay=replay)


def clock(step):
    return Clock(*(np.int32(step) for _ in Clock._fields))


def wanted(replay=True, best=True, width=3):
    """What `state` is, with a ring of SLOTS."""
    run = state(0, width)
    ring = jax.tree.map(lambda x: np.zeros((SLOTS, *x.shape[1:]), x.dtype), run.replay)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), run.replace(replay=ring))
    return Wanted(shapes if replay else shapes.replace(replay=None), 2, replay, best)


def save(run_dir, *steps, keep=2, spec=None):
    """Checkpoints of these iterations, in one folder, each with other numbers."""
    checkpoints = Checkpoints(run_dir, keep, spec=spec)
    for step in steps:
        runs = [state(step), state(step + 100)]
        bests = [Best(run.learner.params, 8, 0.5) for run in runs]
        checkpoints.save(clock(step), runs, {"metrics_bytes": 10 * step}, bests)
    return checkpoints


def assert_holds(restored, step):
    assert restored.meta["metrics_bytes"] == 10 * step
    assert int(restored.clock.iteration) == step
    for run, seed in zip(restored.runs, (step, step + 100), strict=True):
        expected = state(seed)
        tiny.assert_equal(run.learner, expected.learner)
        if restored.runs[0].replay is not None:
            np.testing.assert_array_equal(run.replay["obs"][:2], expected.replay["obs"])
            assert run.replay["avail"].shape == (SLOTS, 0)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("written")
    save(run_dir, 3, 5)
    return run_dir


@pytest.fixture
def run_dir(written, tmp_path):
    """A copy of checkpoints 3 and 5 to damage."""
    return shutil.copytree(written, tmp_path / "run")


# ---------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["lr[1e-4]", "a*b", "what?", "{x,y}", "[!a]", "größe #1 %20 a=b", "[/a]"])
def test_any_name_of_a_folder(tmp_path, name):
    run_dir = tmp_path / name
    checkpoints = save(run_dir, 1, 2, 3)
    assert checkpoints.steps() == [2, 3]
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == ["2", "3"]
    step, restored = checkpoints.newest(lambda step: checkpoints.load(step, wanted()))
    assert step == 3
    assert_holds(restored, 3)


def test_a_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoints = save(tmp_path.relative_to(tmp_path) / "lr[0]", 1)
    assert_holds(checkpoints.load(1, wanted()), 1)


# --------------------------------------------------------------------------------------------- damage


def flip(path):
    """One bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    os.truncate(path, 0)


DAMAGES = {"flipped": flip, "truncated": truncate, "emptied": empty, "deleted": os.unlink}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_no_single_damage_is_read_in_silence(run_dir, damage):
    newest = run_dir / "checkpoints" / "5"
    files = [path for path in newest.rglob("*") if path.is_file()]
    assert len(files) > 20
    checkpoints = Checkpoints(run_dir)
    for path in files:
        original = path.read_bytes()
        damage(path)
        with pytest.raises(DamagedError) as refused:
            checkpoints.load(5, wanted())
        assert str(newest) in str(refused.value)
        assert "delete" not in str(refused.value)
        path.write_bytes(original)
    assert_holds(checkpoints.load(5, wanted()), 5)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_checkpoint_gives_way_to_the_one_before(run_dir, damage):
    damage(run_dir / "checkpoints" / "5" / "meta" / "metadata")
    warnings = []
    checkpoints = Checkpoints(run_dir)
    step, restored = checkpoints.newest(lambda step: checkpoints.load(step, wanted()), warnings.append)
    assert step == 3
    assert_holds(restored, 3)
    (warning,) = warnings
    for word in (run_dir / "checkpoints" / "5", run_dir / "checkpoints" / "3", "meta"):
        assert str(word) in warning
    assert "delete" not in warning
    assert checkpoints.latest() == 3
    assert checkpoints.steps() == [3, 5]  # nothing was changed


def test_what_is_not_read_may_be_damaged(run_dir):
    for path in (run_dir / "checkpoints" / "5" / "replay").rglob("manifest.ocdbt"):
        flip(path)
    assert_holds(Checkpoints(run_dir).load(5, wanted(replay=False)), 5)


def test_a_run_that_goes_on_from_the_one_before_replaces_the_damaged_one(run_dir):
    flip(run_dir / "checkpoints" / "5" / "meta" / "metadata")
    checkpoints = Checkpoints(run_dir, keep=2)
    checkpoints.newest(lambda step: checkpoints.load(step, wanted()), print)
    again = [state(5), state(105)]
    checkpoints.save(clock(5), again, {"metrics_bytes": 50}, [Best(run.learner.params, 8, 0.5) for run in again])
    assert checkpoints.steps() == [3, 5]
    assert_holds(checkpoints.load(5, wanted()), 5)


def test_a_damaged_one_never_counts_as_one_that_is_kept(run_dir):
    flip(run_dir / "checkpoints" / "5" / "meta" / "metadata")
    checkpoints = Checkpoints(run_dir, keep=2)
    checkpoints.newest(lambda step: checkpoints.load(step, wanted()), print)
    checkpoints.save(clock(6), [state(6), state(106)], {})
    assert checkpoints.steps() == [3, 6]


def test_without_a_sound_one_nothing_is_told_to_be_deleted(run_dir):
    for step in ("3", "5"):
        empty(run_dir / "checkpoints" / step / "meta" / "metadata")
    checkpoints = Checkpoints(run_dir)
    with pytest.raises(RefusedError, match=r"no checkpoint in .* is sound \(5: .*; 3: .*\)") as refused:
        checkpoints.newest(lambda step: checkpoints.load(step, wanted()))
    assert "delete" not in str(refused.value)


def test_a_file_of_metadata_that_is_too_large_is_not_read(run_dir):
    folder = run_dir / "checkpoints" / "5"
    os.truncate(folder / "learner" / "_METADATA", 2**30)
    (folder / checksums.NAME).unlink()
    meta = json.loads((folder / "meta" / "metadata").read_text())
    (folder / "meta" / "metadata").write_text(json.dumps({**meta, "format": "jaxshare-1"}))
    with pytest.raises(DamagedError, match="too large"):
        Checkpoints(run_dir).load(5, wanted())


# ---------------------------------------------------------------------------------------- other things


def spec(obs_dim, action=None):
    return EnvSpec("zoo:Versioned", 2, obs_dim, 4, action or Discrete(5), 10, (0, 0), ("all",))


def test_another_environment_is_named_and_the_checkpoint_left_alone(tmp_path):
    save(tmp_path, 3, 5, spec=spec(3))
    checkpoints = Checkpoints(tmp_path, spec=spec(4))
    before = tiny.files(tmp_path)
    with pytest.raises(RefusedError) as refused:
        checkpoints.newest(lambda step: checkpoints.load(step, wanted(width=4)))
    assert "shows 4 numbers to an agent now, and the run was trained with 3" in str(refused.value)
    assert "delete" not in str(refused.value)
    assert not isinstance(refused.value, DamagedError)
    assert tiny.files(tmp_path) == before


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (spec(3), spec(3), ""),
        (spec(3, Box(2, (0.0,) * 2, (1.0,) * 2)), spec(3, Box(1, (0.0,), (1.0,))), "takes 1 numbers as an action"),
        (spec(3), spec(5, Discrete(6)), "shows 5 numbers to an agent now, and the run was trained with 3; it offers 6"),
    ],
)
def test_what_changed_in_an_environment(old, new, told):
    assert contents.changes(contents.facts(old), contents.facts(new)).startswith(told)
    assert bool(told) == bool(contents.changes(contents.facts(old), contents.facts(new)))


def test_shapes_are_compared_before_arrays_are_read(run_dir, monkeypatch):
    monkeypatch.setattr(ocp.Checkpointer, "restore", lambda *args, **more: pytest.fail("arrays were read"))
    with pytest.raises(RefusedError, match=r"another network .*float32\[3, 2\], expected float32\[9, 2\]"):
        Checkpoints(run_dir).load(5, wanted(width=9))


def test_one_that_is_removed_while_it_is_read_gives_way_to_the_newest(run_dir):
    checkpoints = Checkpoints(run_dir)
    tries = []

    def read(step):
        tries.append(step)
        if len(tries) == 1:  # as a run does it that saves meanwhile
            save(run_dir, 7, 8)
            shutil.rmtree(run_dir / "checkpoints" / "3", ignore_errors=True)
        return checkpoints.load(step, wanted())

    step, restored = checkpoints.newest(read, pytest.fail)
    assert tries == [5, 8]
    assert step == 8
    assert_holds(restored, 8)
    with pytest.raises(GoneError, match=r"was removed while it was read.* There are now: 7, 8"):
        checkpoints.load(5, wanted())


def test_checkpoints_from_before_there_were_checksums(tmp_path):
    runs = [state(4), state(104)]
    meta = {"format": "jaxshare-1", "filled": 2, "replay": True, "best": [], "metrics_bytes": 40}
    items = {
        "learner": ocp.args.PyTreeSave(contents.learner_tree(clock(4), runs)),
        "replay": ocp.args.PyTreeSave(contents.replay_tree(runs)),
        "meta": ocp.args.JsonSave(meta),
    }
    with ocp.CheckpointManager(tmp_path / "checkpoints") as manager:
        manager.save(4, args=ocp.args.Composite(**items))
    assert_holds(Checkpoints(tmp_path).load(4, wanted()), 4)


# ---------------------------------------------------------------------------------------- power and disk


@pytest.mark.parametrize("all_names", [False, True])
@pytest.mark.parametrize("keep", [1, 2])
def test_power_loss_at_any_moment_leaves_the_newest_complete_checkpoint(tmp_path, keep, all_names):
    disk = ForgetfulDisk(tmp_path / "live")
    disk.root.mkdir()
    completed = []
    images = []

    def lose_power():
        if len(images) % 7 == 0 or completed:
            where = disk.image(tmp_path / f"image{len(images)}", all_names)
            images.append((where, list(completed)))
        else:
            images.append(None)

    checkpoints = Checkpoints(disk.root, keep)
    with disk.watch(lose_power):
        for step in (1, 2, 3):
            checkpoints.save(clock(step), [state(step), state(step + 100)], {"metrics_bytes": 10 * step})
            completed.append(step)
    images = [image for image in images if image]
    assert len(images) > 20
    sound = 0
    for where, before in images[:: max(1, len(images) // 12)]:
        reader = Checkpoints(where)
        newest = reader.newest(lambda step, reader=reader: reader.load(step, wanted(best=False)), pytest.fail)
        if newest is None:
            assert not before
            continue
        assert newest[0] >= max(before, default=1)
        assert_holds(newest[1], newest[0])
        sound += 1
    assert sound > 5


def test_the_disk_forgets_what_was_not_synced(tmp_path):
    disk = ForgetfulDisk(tmp_path / "live")
    disk.root.mkdir()
    with disk.watch():
        (disk.root / "bare").write_text("lost")
        durable.write_text(disk.root / "config", "old")
        durable.write_text(disk.root / "config", "new")
        (disk.root / "late").write_text("lost")
        strict = disk.image(tmp_path / "strict", all_names=False)
        named = disk.image(tmp_path / "named", all_names=True)
    assert {path.name: path.read_text() for path in strict.iterdir()} == {"bare": "", "config": "new"}
    assert {path.name: path.read_text() for path in named.iterdir()} == {"bare": "", "config": "new", "late": ""}


def test_a_deleted_folder_is_made_again(tmp_path):
    checkpoints = save(tmp_path, 1)
    shutil.rmtree(tmp_path / "checkpoints")
    checkpoints.save(clock(2), [state(2), state(102)], {"metrics_bytes": 20})
    assert_holds(checkpoints.load(2, wanted(best=False)), 2)


@pytest.mark.parametrize("earlier", [True, False])
def test_a_failed_write_says_what_is_true(tmp_path, monkeypatch, capfd, earlier):
    checkpoints = save(tmp_path, *([1] if earlier else []))

    def full(*args, **more):
        raise ValueError("RESOURCE_EXHAUSTED: Failed to write: No space left on device [os_error_code='28']")

    monkeypatch.setattr(ocp.Checkpointer, "save", full)
    with pytest.raises(RefusedError) as refused:
        checkpoints.save(clock(2), [state(2), state(102)], {})
    message = str(refused.value)
    assert "No space left on device" in message
    assert "Free some space" in message
    assert ("the earlier checkpoints are kept" in message) == earlier
    assert ("there is no earlier checkpoint" in message) != earlier
    assert checkpoints.steps() == ([1] if earlier else [])
    assert [path.name for path in tmp_path.glob("checkpoints/*") if not path.name.isdigit()] == []
    assert capfd.readouterr().err == ""


def test_a_failed_write_is_told_by_us_alone(tmp_path):
    """No file may be larger than half a megabyte: what orbax and its threads say of that is kept from the person."""
    code = f"""
import pathlib, resource, sys
sys.path[:0] = {[str(tiny.REPOSITORY), str(tiny.REPOSITORY / "tests")]!r}
import numpy as np
import test_checkpoints as t
resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, 2**19))
runs = [t.state(seed).replace(replay=np.random.default_rng(seed).normal(size=(2, 300_000))) for seed in (1, 2)]
try:
    t.Checkpoints(pathlib.Path({str(tmp_path)!r})).save(t.clock(1), runs, {{}})
except t.RefusedError as error:
    print("error:", error, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], env=tiny.ENVIRONMENT, capture_output=True, text=True)
    assert done.stderr.startswith(f"error: run_dir: a checkpoint could not be written to {tmp_path / 'checkpoints'}")
    assert "File too large" in done.stderr
    assert len(done.stderr.splitlines()) == 1

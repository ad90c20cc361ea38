"""Data sets of one format as one of another: what comes back, what is refused, and what is left of a failure."""

import dataclasses
import errno
import os
import pathlib
import shlex
import subprocess
import sys

import numpy as np
import pytest
import toy_data

from jaxshare import cli, durable
from jaxshare.commands import convert
from jaxshare.data import hdf5, own, records, target, vault
from jaxshare.data.formats import open_any
from jaxshare.settings.fields import declared
from jaxshare.types import RefusedError

pytest.importorskip("h5py", reason="the extra hdf5")

REPOSITORY = pathlib.Path(__file__).parent.parent.parent


def run(*arguments):
    """The command with these arguments, without its bar."""
    return convert.convert(cli.small_config(convert.Config, [*arguments, "progress=false"]))


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A folder with two.jds (float32, no extras) in which the command is given."""
    monkeypatch.chdir(tmp_path)
    own.save(toy_data.dataset(extras=False), "two.jds", "float32")
    return tmp_path


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def without_last_slot(dataset):
    """All but what a vault does not hold: the slot behind the last step."""
    fields = {name: values.copy() for name, values in records.flat(dataset).items()}
    length = records.lengths(dataset)
    for name in records.SLOTS:
        fields[name][np.arange(len(length)), length] = 0
    return records.unflat(fields, dataset.card)


# --------------------------------------------------------------------------------------------------------- round trips


def test_own_to_hdf5_and_back_is_equal_to_the_bit(there, capsys):
    written = own.load("two.jds")
    run("data=two.jds", "out=new/two.h5")
    run("data=new/two.h5", "out=back.jds")
    assert "note: 1 episode truly ended at the time limit" in capsys.readouterr().out
    read = own.load("back.jds")
    toy_data.assert_equal(read, written, but=("avail", "truncated"))

    # what lies behind a true end is the only difference
    over = np.asarray(written.episodes.terminated)
    np.testing.assert_array_equal(read.episodes.truncated, written.episodes.truncated & ~over)
    behind = np.concatenate([np.zeros_like(over[:, :1]), over], axis=1)
    np.testing.assert_array_equal(read.episodes.avail[~behind], written.episodes.avail[~behind])
    assert read.card["composition"] == written.card["composition"]
    assert read.card["spec"] == written.card["spec"]
    assert read.card["returns"] == pytest.approx(written.card["returns"])
    assert read.card["converted_from"]["format"] == "PyMARL HDF5"


@pytest.mark.parametrize("options", [{}, {"individual": True}, {"continuous": True, "labels": False}])
def test_own_to_a_vault_and_back_is_equal_to_the_bit(there, capsys, options):
    own.save(toy_data.dataset(extras=False, **options), "some.jds", "float32")
    written = own.load("some.jds")
    run("data=some.jds", "out=toy/three.vlt/Good", "lossy=true")
    assert "lost: what the last step of 2 episodes that were cut off led to" in capsys.readouterr().out
    run("data=toy/three.vlt/Good", "out=back.jds", "dataset.last_step=keep")
    assert "7 episodes, 25 steps" in capsys.readouterr().out
    read = own.load("back.jds")
    toy_data.assert_equal(without_last_slot(read), without_last_slot(written))
    assert read.card["environment"] == "toy"
    assert read.common_reward == written.common_reward


def test_own_to_own_keeps_what_the_others_cannot(there, capsys):
    own.save(toy_data.dataset(individual=True), "all.jds", "float32")
    run("data=all.jds", "out=copy.jds")
    assert "lost" not in capsys.readouterr().out
    toy_data.assert_equal(own.load("copy.jds"), own.load("all.jds"))
    run("data=all.jds", "out=half.jds", "dtype=float16")
    assert "note: observations and states are float16, and were float32." in capsys.readouterr().out
    assert own.load("half.jds").episodes.obs.dtype == np.float16
    run("data=half.jds", "out=again.jds")
    toy_data.assert_equal(own.load("again.jds"), own.load("half.jds"))


def test_many_episodes_go_through_in_blocks(there):
    own.save(toy_data.dataset(extras=False, copies=60), "many.jds", "float32")
    run("data=many.jds", "out=many.h5")
    run("data=many.h5", "out=back.jds")
    toy_data.assert_equal(own.load("back.jds"), own.load("many.jds"), but=("avail", "truncated"))


def test_a_folder_of_parts_becomes_one_set(there):
    for number in range(2):
        hdf5.write(toy_data.dataset(seed=number, extras=False), there / "parts" / f"part_{number}.h5")
    run("data=parts", "out=whole.jds")
    assert len(own.open("whole.jds")) == 14
    assert own.open("whole.jds").card["converted_from"]["parts"] == ["part_0.h5", "part_1.h5"]


# -------------------------------------------------------------------------------------------------------------- losses


def test_what_would_be_lost_is_named_and_refused(there, capsys):
    own.save(toy_data.dataset(individual=True), "all.jds", "float32")
    lost = {
        "x.h5": ("log_prob", "the reward of each agent alone"),
        "x.vlt/Good": ("log_prob", "the last step of 2 episodes"),
    }
    for out, words in lost.items():
        with pytest.raises(RefusedError, match="lossy=true") as refusal:
            run("data=all.jds", f"out={out}")
        assert all(word in str(refusal.value) for word in words)
        assert left_in(there) == ["all.jds", "two.jds"]

    run("data=all.jds", "out=x.h5", "lossy=true")
    shown = capsys.readouterr().out
    assert all(f"lost: {what}" in shown for what in ("what the policies said", "the reward of each agent alone"))
    read = hdf5.open("x.h5").read()
    np.testing.assert_array_equal(read.episodes.reward[..., 0], records.team_reward(own.load("all.jds")))
    assert read.common_reward


def test_what_reading_a_vault_loses_is_a_loss_as_well(there):
    run("data=two.jds", "out=x.vlt/Good", "lossy=true")
    with pytest.raises(RefusedError, match=r"last step of 2 episodes .*dataset\.last_step=keep keeps it"):
        run("data=x.vlt/Good", "out=y.jds")
    run("data=x.vlt/Good", "out=y.jds", "lossy=true")
    assert own.open("y.jds").card["steps"] == 23


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "data is missing"),
        (("data=two.jds",), "out is missing"),
        (("data=none", "out=x.h5"), "none does not exist"),
        (("data=two.jds", "out=x"), r"out=x does not say which format.*format=own"),
        (("data=two.jds", "out=x.vlt"), r"by their uid\. Name one, as in out=x\.vlt/Good"),
        (
            ("data=two.jds", "out=x.jds", "format=hdf5"),
            "format=hdf5: out=x.jds has the name of jaxshare's own",
        ),
        (("data=two.jds", "out=x", "format=own"), r"ends with \.jds, as in x\.jds"),
        (("data=two.jds", "out=x.h5", "format=hdf"), "format=hdf is not one of own, vault, hdf5"),
        (
            ("data=two.jds", "out=x.h5", "dtype=float16"),
            "dtype=float16 has no effect on an HDF5 file",
        ),
        (("data=two.jds", "out=x.jds", "dtype=int8"), "dtype=int8 is not one of"),
        (("data=two.jds", "out=two.jds"), r"out=two\.jds exists.*overwrite=true"),
        (("data=two.jds", "out=two.jds", "overwrite=true"), "is data=two.jds itself"),
        (("data=two.jds", "out=two.jds/x.h5"), "lies in it"),
        (
            ("data=two.jds", "out=x.h5", "dataset.last_step=keep"),
            r"dataset\.last_step=keep has no effect",
        ),
        (
            ("data=two.jds", "out=x.h5", "dataset.last_step=no"),
            "dataset.last_step=no is not one of",
        ),
        (
            ("data=two.jds", "out=x.h5", "dataset.lst_step=no"),
            r"not a setting\. Did you mean dataset\.last_step",
        ),
        (("data=two.jds", "out=/proc/none/x.h5"), "cannot be written"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(there, arguments, message):
    before = left_in(there)
    with pytest.raises(RefusedError, match=message):
        run(*arguments)
    assert left_in(there) == before


def test_only_a_data_set_of_the_format_is_overwritten(there):
    for out, content in (("x.jds", "folder"), ("x.vlt/Good", "folder"), ("x.h5", "file")):
        path = there / out
        path.parent.mkdir(exist_ok=True)
        path.mkdir() if content == "folder" else path.write_text("precious")
        with pytest.raises(RefusedError, match="is not overwritten"):
            run("data=two.jds", f"out={out}", "overwrite=true", "lossy=true")
        assert path.exists()


@pytest.mark.parametrize("out", ["x.jds", "x.vlt/Good", "x.h5"])
def test_an_earlier_one_is_replaced_when_the_new_one_is_whole(there, out):
    run("data=two.jds", f"out={out}", "lossy=true")
    own.save(toy_data.dataset(seed=1, extras=False, copies=2), "more.jds", "float32")
    run("data=more.jds", f"out={out}", "lossy=true", "overwrite=true")
    assert open_any(out).card["episodes"] == 14
    assert [path.name for path in there.rglob("*") if path.suffix in (".old", ".unfinished", ".new")] == []


def test_a_folder_takes_the_place_of_another(tmp_path):
    for name in ("new", "path"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    durable.replace_folder(tmp_path / "new", tmp_path / "path")
    assert left_in(tmp_path) == ["path"]
    assert (tmp_path / "path" / "file").read_text() == "new"

    with pytest.raises(OSError, match="No such file"):
        durable.replace_folder(tmp_path / "none", tmp_path / "path")
    assert left_in(tmp_path) == ["path"]

    (tmp_path / "link").symlink_to(tmp_path / "path")
    (tmp_path / "new").mkdir()
    durable.replace_folder(tmp_path / "new", tmp_path / "link")
    assert left_in(tmp_path) == ["link", "path"]  # what the link stood for is not touched


# ------------------------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize("form", ["own", "vault", "hdf5"])
def test_a_damaged_source_is_refused_in_a_sentence(there, form, monkeypatch, capsys):
    dataset = own.load("two.jds")
    source = {"own": "two.jds", "vault": "two.vlt/Good", "hdf5": "two.h5"}[form]
    if form == "vault":
        vault.write(dataset, source)
    elif form == "hdf5":
        hdf5.write(dataset, source)
    files = [path for path in [there / source, *(there / source).rglob("*")] if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)

    monkeypatch.setattr(sys, "argv", ["jaxshare-convert", f"data={source}", "out=x.jds", "lossy=true"])
    with pytest.raises(SystemExit):
        convert.main()
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert "Copy it again" in message
    assert not [path for path in there.iterdir() if path.name.startswith("x.")]


def fail_to_write(monkeypatch):
    """As tensorstore and files do on a full disk."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(durable, "sync_tree", full)
    monkeypatch.setattr(durable, "write_bytes", full)


@pytest.mark.parametrize("out", ["new/x.jds", "new/x.vlt/Good", "new/x.h5"])
def test_nothing_is_left_where_the_disk_is_full(there, out, monkeypatch):
    fail_to_write(monkeypatch)
    with pytest.raises(RefusedError, match=r"could not be written \(No space left.*Free some space"):
        run("data=two.jds", f"out={out}", "lossy=true")
    assert left_in(there) == ["two.jds"]


@pytest.mark.parametrize("out", ["x.jds", "x.vlt/Good", "x.h5"])
def test_an_earlier_one_stays_where_the_disk_is_full(there, out, monkeypatch):
    run("data=two.jds", f"out={out}", "lossy=true")
    own.save(toy_data.dataset(seed=1, extras=False, copies=2), "more.jds", "float32")
    fail_to_write(monkeypatch)
    with pytest.raises(RefusedError, match="could not be written"):
        run("data=more.jds", f"out={out}", "lossy=true", "overwrite=true")
    assert open_any(out).card["episodes"] == 7
    assert [path.name for path in there.rglob("*") if path.suffix in (".old", ".unfinished", ".new")] == []


def test_files_that_may_not_grow(there):
    """Every writer meets the limit in its own library: each ends with one sentence, and HDF5 not with a crash."""
    own.save(toy_data.dataset(extras=False, copies=400), "many.jds", "float32")
    code = f"""
import resource, sys
sys.path[:0] = {[str(REPOSITORY)]!r}
from jaxshare.commands import convert
resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, 2**14))
for out in ("x.jds", "x.vlt/Good", "x.h5"):
    sys.argv = ["convert", "data=many.jds", f"out={{out}}", "lossy=true"]
    try:
        convert.main()
    except SystemExit:
        continue
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=there, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 3, done.stderr
    assert all("could not be written (File too large)" in line for line in lines)
    assert left_in(there) == ["many.jds", "two.jds"]


# ----------------------------------------------------------------------------------------------------------------- help


def test_help_shows_every_setting_and_its_examples_work(there, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jaxshare-convert", "--help"])
    convert.main()
    shown = capsys.readouterr().out
    for field in dataclasses.fields(convert.Config):
        assert f"  {field.name}" in shown
    assert "  dataset.last_step=mask" in shown

    own.save(toy_data.dataset(extras=False), "sets/2s3z_low.jds", "float32")
    vault.write(own.load("two.jds"), there / "smac_v1" / "3m.vlt" / "Good")
    examples = [shlex.split(line)[3:] for line in shown.splitlines() if line.startswith("  python -m")]
    assert len(examples) == 4
    written = [run(*example) for example in examples]
    assert [open_any(path).card["episodes"] for path in written] == [7] * 4
    last = [line for line in capsys.readouterr().out.splitlines() if line.startswith("written: ")]
    assert last == [f"written: {path}" for path in written]


def test_formats_are_those_of_the_setting():
    assert declared(convert.Config)["format"].allowed.choices == tuple(target.FORMATS)

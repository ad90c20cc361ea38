"""jaxshare's own format: what is written is what is read, whole or in part, and nothing else is taken for it."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tiny
import toy_data

from jaxshare.data import own, records
from jaxshare.data.formats import open_any
from jaxshare.data.own import arrays as own_arrays
from jaxshare.types import RefusedError

EXACT = ("avail", "alive", "action", "reward", "terminated", "truncated", "mask", *records.LABELS)


@pytest.fixture(scope="module")
def good():
    return toy_data.dataset()


@pytest.fixture(scope="module")
def stored(good, tmp_path_factory):
    """A finished data set, in f32, with chunks of two episodes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_arrays, "CHUNK_EPISODES", 2)
        return own.save(good, tmp_path_factory.mktemp("own") / "toy.jds", "float32")


def spoiled(stored, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(stored, tmp_path / stored.name)


def rewrite(folder, **changes):
    path = folder / own.CARD
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# --------------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("options", [{}, {"continuous": True}, {"individual": True, "labels": False, "extras": False}])
def test_what_is_written_is_what_is_read(options, tmp_path):
    written = toy_data.dataset(**options)
    path = own.save(written, tmp_path / "toy.jds", "float32")
    assert path == tmp_path / "toy.jds"
    read = own.load(path)
    toy_data.assert_equal(read, written)
    assert written.card.items() <= read.card.items()
    assert read.common_reward == written.common_reward
    assert read.card["returns"]["mean"] == pytest.approx(records.returns(written).mean())
    assert read.card["steps"] == sum(toy_data.LENGTHS)


@pytest.mark.parametrize(("dtype", "relative", "absolute"), [("float16", 2**-11, 2**-25), ("bfloat16", 2**-8, 0.0)])
def test_rounding_is_bounded_and_only_where_it_is_allowed(good, tmp_path, dtype, relative, absolute):
    scale = np.float32(10.0) ** np.arange(-7, 5)[: toy_data.OBS * 6].reshape(6, 1, 2)
    wide = good.episodes.replace(obs=good.episodes.obs * scale)
    written = records.make(wide, good.level, good.policy, good.component, good.card)
    read = own.load(own.save(written, tmp_path / "toy.jds", dtype))
    assert str(read.episodes.obs.dtype) == str(read.episodes.state.dtype) == dtype
    for name in ("obs", "state"):
        exact, rounded = (np.asarray(getattr(x.episodes, name), np.float64) for x in (written, read))
        np.testing.assert_array_less(np.abs(rounded - exact), relative * np.abs(exact) + absolute + 1e-300)
        assert (rounded != exact).any()
    toy_data.assert_equal(read, written, but=("obs", "state"))
    again = own.load(tmp_path / "toy.jds", dtype="float32")
    assert again.episodes.obs.dtype == np.float32
    np.testing.assert_array_equal(again.episodes.obs, read.episodes.obs.astype(np.float32))


def test_what_the_disk_cannot_hold_is_refused(good, tmp_path):
    large = records.make(good.episodes.replace(obs=good.episodes.obs + 7e4))
    with pytest.raises(RefusedError, match=r"dtype=float16 cannot hold obs, which reaches 7e\+04\. Use dtype=float32"):
        own.save(large, tmp_path / "toy.jds")
    own.save(large, tmp_path / "other.jds", "bfloat16")
    with pytest.raises(RefusedError, match="dtype=float64 is not one of"):
        own.save(large, tmp_path / "more.jds", "float64")


@pytest.mark.parametrize("chunk", [1, 2, 1024])
@pytest.mark.parametrize("batches", [(7,), (1,) * 7, (2, 1, 4)])
def test_batches_and_chunks_make_no_difference(good, tmp_path, monkeypatch, chunk, batches):
    monkeypatch.setattr(own_arrays, "CHUNK_EPISODES", chunk)
    first = 0
    with own.Writer(tmp_path / "toy.jds", good.card, "float32", toy_data.spec()) as writer:
        for batch in batches:
            writer.append(good.take(slice(first, first + batch)))
            first += batch
            assert len(writer) == first
    read = own.load(tmp_path / "toy.jds")
    toy_data.assert_equal(read, good)
    assert read.card["episodes"] == 7


def test_fields_may_have_chunks_of_their_own(good, tmp_path, monkeypatch):
    monkeypatch.setattr(own_arrays, "CHUNK_BYTES", 200)  # obs: 1 episode, mask: 32
    many = records.concatenate([good] * 6)
    with own.Writer(tmp_path / "toy.jds", good.card, "float32") as writer:
        for first in range(0, 42, 5):
            writer.append(many.take(slice(first, first + 5)))
    chunks = {name: len(list((tmp_path / "toy.jds" / name / "c").iterdir())) for name in ("obs", "mask")}
    assert chunks == {"obs": 42, "mask": 2}
    toy_data.assert_equal(own.load(tmp_path / "toy.jds"), many)


@pytest.mark.parametrize(
    "index", [slice(2, 5), slice(None, None, 3), slice(5, 1, -1), [6, 0, 0, 3], 4, -1, [], np.arange(7) % 2 == 1]
)
def test_a_part_is_what_it_is_of_the_whole(good, stored, index):
    toy_data.assert_equal(own.load(stored, index), good.take(index))
    toy_data.assert_equal(own.open(stored).read(index), good.take(index))


def test_a_part_reads_only_its_chunks(good, stored, tmp_path):
    folder = spoiled(stored, tmp_path)
    for chunk in (folder / "obs" / "c").iterdir():
        if chunk.name != "1":  # episodes 2 and 3
            shutil.rmtree(chunk)
    found = own.open(folder)
    assert len(found) == 7
    np.testing.assert_array_equal(found.field("obs", slice(2, 4)), good.episodes.obs[2:4])
    with pytest.raises(RefusedError, match="obs cannot be read"):
        found.field("obs", slice(2, 5))


@pytest.mark.parametrize("index", [7, [0, 7], [-8]])
def test_an_episode_that_there_is_not_is_refused(stored, index):
    with pytest.raises(RefusedError, match="There are 7 episodes"):
        own.load(stored, index)


def test_a_field_that_there_is_not_is_refused(stored):
    with pytest.raises(RefusedError, match=r"no field nope\. It has obs, "):
        own.open(stored).field("nope")


# ------------------------------------------------------------------------------------------------------------- writing


def test_nothing_is_there_until_all_is(good, tmp_path):
    path = tmp_path / "toy.jds"
    writer = own.Writer(path, good.card)
    writer.append(good)
    assert not path.exists()
    assert not json.loads((tmp_path / "toy.jds.unfinished" / own.CARD).read_text())["finished"]
    for read in (own.open, open_any):
        with pytest.raises(RefusedError, match=r"toy\.jds is unfinished: its writer was stopped"):
            read(path)
    with pytest.raises(RefusedError, match="is unfinished"):
        own.open(tmp_path / "toy.jds.unfinished")
    assert writer.close() == path
    assert len(own.open(path)) == 7


def test_an_error_leaves_it_unfinished(good, tmp_path):
    def fail():
        with own.Writer(tmp_path / "toy.jds", good.card) as writer:
            writer.append(good)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    with pytest.raises(RefusedError, match="is unfinished"):
        own.open(tmp_path / "toy.jds")


def test_a_kill_leaves_it_unfinished(good, tmp_path):
    code = (
        "import os, signal, pathlib, toy_data\nfrom jaxshare.data import own\n"
        f"writer = own.Writer(pathlib.Path({str(tmp_path)!r}) / 'toy.jds')\n"
        "writer.append(toy_data.dataset())\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    paths = f"{tiny.REPOSITORY}:{tiny.REPOSITORY / 'tests' / 'data'}"
    done = subprocess.run([sys.executable, "-c", code], env={**tiny.ENVIRONMENT, "PYTHONPATH": paths}, check=False)
    assert done.returncode == -9
    with pytest.raises(RefusedError, match="is unfinished"):
        own.open(tmp_path / "toy.jds")
    with pytest.raises(RefusedError, match=r"unfinished was left unfinished\. .*overwrite=true"):
        own.Writer(tmp_path / "toy.jds")
    own.save(good, tmp_path / "toy.jds", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["toy.jds"]


def test_an_old_one_stays_until_the_new_one_is_whole(good, stored, tmp_path):
    folder = spoiled(stored, tmp_path)
    with pytest.raises(RefusedError, match="exists"):
        own.save(good, folder)
    before = tiny.files(folder)
    writer = own.Writer(folder, overwrite=True)
    writer.append(good.take([1]))
    assert tiny.files(folder) == before
    writer.close()
    assert len(own.open(folder)) == 1


def test_what_is_not_ours_is_not_overwritten(good, tmp_path):
    (tmp_path / "toy.jds").mkdir()
    (tmp_path / "toy.jds" / "thesis.tex").touch()
    with pytest.raises(RefusedError, match="is not a data set of jaxshare and is not overwritten"):
        own.Writer(tmp_path / "toy.jds", overwrite=True)
    assert (tmp_path / "toy.jds" / "thesis.tex").exists()
    with pytest.raises(RefusedError, match=r"ends with \.jds, as in toy\.zip\.jds"):
        own.Writer(tmp_path / "toy.zip")


def test_what_is_wrong_is_not_written(good, tmp_path):
    writer = own.Writer(tmp_path / "toy.jds", good.card, spec=toy_data.spec())
    with pytest.raises(RefusedError, match="no episode was written"):
        writer.close()
    writer.append(good)
    wrong = good.episodes.replace(obs=np.full_like(good.episodes.obs, np.nan))
    with pytest.raises(RefusedError, match=r"toy\.jds after 7 episodes: obs is not a finite number"):
        writer.append(records.make(wrong))
    with pytest.raises(RefusedError, match=r"action: 2 numbers in the data, 4 choices"):
        writer.append(toy_data.dataset(continuous=True))
    with pytest.raises(RefusedError, match=r"extras\.log_prob differ in shape or dtype from the batches before"):
        writer.append(toy_data.dataset(extras=False))
    writer.close()
    assert len(own.open(tmp_path / "toy.jds")) == 7
    odd = records.make(good.episodes.replace(extras={"a/b": good.episodes.reward}))
    with pytest.raises(RefusedError, match=r"extras\.a/b cannot be the name of a field"):
        own.save(odd, tmp_path / "odd.jds")


# ----------------------------------------------------------------------------------------------- wrong and broken files


def test_what_is_not_there_or_not_ours_is_refused(stored, tmp_path):
    with pytest.raises(RefusedError, match=r"nope\.jds does not exist"):
        own.open(tmp_path / "nope.jds")
    with pytest.raises(RefusedError, match=r"it has no card\.json"):
        own.open(tmp_path)
    (tmp_path / "file.jds").write_text("hello")
    with pytest.raises(RefusedError, match=r"it has no card\.json"):
        own.open(tmp_path / "file.jds")
    folder = spoiled(stored, tmp_path)
    rewrite(folder, format="another")
    with pytest.raises(RefusedError, match=r"card\.json does not say so"):
        own.open(folder)
    (folder / own.CARD).write_text("[]")
    with pytest.raises(RefusedError, match=r"card\.json does not say so"):
        own.open(folder)


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_another_version_is_refused(stored, tmp_path, version):
    folder = spoiled(stored, tmp_path)
    rewrite(folder, version=version)
    with pytest.raises(RefusedError, match=f"has version {version} of the format, this jaxshare reads 1"):
        own.open(folder)


def test_an_unfinished_card_is_refused(stored, tmp_path):
    folder = spoiled(stored, tmp_path)
    rewrite(folder, finished=False)
    with pytest.raises(RefusedError, match="is unfinished"):
        own.open(folder)


@pytest.mark.parametrize("changes", [{"fields": None}, {"card": None, "fields": {"obs": {}}}, {"episodes": "many"}])
def test_an_incomplete_card_is_refused(stored, tmp_path, changes):
    folder = spoiled(stored, tmp_path)
    rewrite(folder, **changes)
    with pytest.raises(RefusedError, match=r"card\.json is incomplete"):
        own.open(folder)


def test_a_card_of_other_arrays_is_refused(stored, tmp_path):
    folder = spoiled(stored, tmp_path)
    rewrite(folder, episodes=6)
    with pytest.raises(RefusedError, match=r"obs is float32\[7, 6, 3, 2\], card\.json says something else"):
        own.open(folder)


def damage(path, how):
    raw = path.read_bytes()
    if how == "cut":
        path.write_bytes(raw[: len(raw) // 2])
    elif how == "emptied":
        path.write_bytes(b"")
    elif how == "flipped":
        middle = len(raw) // 2
        path.write_bytes(raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :])
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["cut", "emptied", "removed"])
def test_every_damaged_file_is_refused(stored, tmp_path, how):
    folder = spoiled(stored, tmp_path)
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert len(paths) > 40
    for path in paths:
        damage(folder / path, how)
        with pytest.raises(RefusedError, match=r"is damaged: .*Copy it again|it has no card\.json"):
            own.load(folder)
        shutil.copy(stored / path, folder / path)
    own.load(folder)


def test_every_flipped_bit_of_the_data_is_found(stored, tmp_path):
    folder = spoiled(stored, tmp_path)
    for path in sorted(path.relative_to(folder) for path in folder.glob("*/c/**/*") if path.is_file()):
        damage(folder / path, "flipped")
        with pytest.raises(RefusedError, match="is damaged"):
            own.load(folder)
        shutil.copy(stored / path, folder / path)

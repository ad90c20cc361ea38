"""PyMARL's HDF5 files: round trips, the columns as PyMARL has them, and broken files."""

import builtins
import shutil

import numpy as np
import pytest
import toy_data

from jaxshare.data import hdf5, own, records
from jaxshare.data.hdf5 import writing
from jaxshare.types import RefusedError

h5py = pytest.importorskip("h5py", reason="the extra hdf5")

STEPS, AGENTS, ACTIONS, OBS, STATE = (getattr(toy_data, n) for n in ("STEPS", "AGENTS", "ACTIONS", "OBS", "STATE"))
NUM = len(toy_data.LENGTHS)


@pytest.fixture(scope="module")
def good():
    return toy_data.dataset(extras=False)


@pytest.fixture(scope="module")
def stored(good, tmp_path_factory):
    return hdf5.write(good, tmp_path_factory.mktemp("hdf5") / "three.h5")


def as_told(dataset):
    """What the format can keep of a data set: a true end is no cut."""
    fields = records.flat(dataset)
    fields["truncated"] = fields["truncated"] & ~fields["terminated"]
    if dataset.episodes.avail.shape[-1]:  # nothing is asked of the slot behind a true end
        fields["avail"] = fields["avail"].copy()
        fields["avail"][:, 1:] |= fields["terminated"][..., None, None]
    return records.unflat(fields, dataset.card)


@pytest.mark.parametrize("options", [{}, {"continuous": True}, {"labels": False, "deaths": False, "card": False}])
def test_what_is_written_is_what_is_read(options, tmp_path):
    written = toy_data.dataset(extras=False, **options)
    found = hdf5.open(hdf5.write(written, tmp_path / "three.h5"))
    assert len(found) == NUM
    toy_data.assert_equal(found.read(), as_told(written))
    assert found.card["scenario"] == "three"
    assert found.card["composition"] == "rrm + rre" if "card" not in options else "composition" not in found.card
    np.testing.assert_allclose(found.card["returns"]["mean"], records.returns(written).mean(), rtol=1e-6)
    assert found.card["lengths"]["mean"] == pytest.approx(np.mean(toy_data.LENGTHS))


def test_the_columns_are_those_of_pymarl(good, stored):
    with h5py.File(stored) as file:
        columns = {name: file[name][()] for name in file}
    columns_of = {
        "obs": (OBS,), "actions": (1,), "actions_onehot": (ACTIONS,), "avail_actions": (ACTIONS,),
    }  # fmt: skip
    for name, rest in columns_of.items():
        assert columns[name].shape == (NUM, STEPS + 1, AGENTS, *rest)
    for name, size in {"state": STATE, "reward": 1, "terminated": 1, "filled": 1}.items():
        assert columns[name].shape == (NUM, STEPS + 1, size)
    np.testing.assert_array_equal(columns["filled"].sum((1, 2)), np.array(toy_data.LENGTHS) + 1)
    assert columns["filled"].dtype == np.int64
    np.testing.assert_array_equal(columns["terminated"].sum((1, 2)), toy_data.TERMINATED)
    filled = columns["filled"][..., 0] == 1
    assert (columns["actions_onehot"].sum(-1) == filled[..., None]).all()
    taken = np.take_along_axis(columns["avail_actions"], columns["actions"], axis=-1)[..., 0]
    assert (taken == filled[..., None]).all()  # an available action in every filled column, the last one too
    for name, values in columns.items():
        if name not in ("level", "policy", "component", "filled"):
            assert not values[~filled].any(), name
    np.testing.assert_array_equal(columns["obs"][2, 3], good.episodes.obs[2, 3])  # the successor of its last step


def test_a_plain_file_has_no_other_columns(tmp_path):
    plain = toy_data.dataset(labels=False, deaths=False, extras=False)
    with h5py.File(hdf5.write(plain, tmp_path / "x.h5")) as file:
        assert set(file) == {
            "obs", "state", "actions", "actions_onehot", "avail_actions", "reward", "terminated", "filled",
        }  # fmt: skip


@pytest.mark.parametrize("index", [slice(2, 5), slice(5, 1, -2), [6, 0, 0, 3], 4, [], [1], [0, 1, 2]])
def test_a_part_is_what_it_is_of_the_whole(stored, index):
    found = hdf5.open(stored)
    toy_data.assert_equal(found.read(index), found.read().take(index))


def columns_of(stored):
    with h5py.File(stored) as file:
        return {name: file[name][()] for name in file}


def handmade(path, columns):
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            file[name] = values
    return path


def test_files_of_others_are_read(good, stored, tmp_path):
    """Noise in padding, one action column of another dtype, no state, further arrays."""
    columns = columns_of(stored)
    off = columns["filled"][..., 0] == 0
    for name in ("obs", "reward", "actions", "avail_actions"):
        columns[name][off] = 3
    columns["terminated"] = columns["terminated"].astype(np.float32)
    columns["actions"] = columns["actions"].astype(np.int32)
    columns["text"] = np.bytes_("further")
    del columns["state"], columns["actions_onehot"]
    read = hdf5.open(handmade(tmp_path / "x.h5", columns)).read()
    expected = as_told(good)
    toy_data.assert_equal(read, expected, but=("state",))
    flat = expected.episodes.obs.reshape(NUM, STEPS + 1, -1)
    np.testing.assert_array_equal(read.episodes.state, flat)


def test_individual_rewards_and_other_files_are_not_written(good, stored, tmp_path):
    with pytest.raises(RefusedError, match=r"one reward per team.*common_reward=false.*Write jaxshare's own format"):
        hdf5.write(toy_data.dataset(individual=True), tmp_path / "x.h5")
    with pytest.raises(RefusedError, match="exists and is not overwritten"):
        hdf5.write(good, stored)
    assert not list(tmp_path.iterdir())


def test_a_stopped_writer_leaves_no_file(good, tmp_path, monkeypatch):
    def stop(dataset):
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "columns", stop)
    with pytest.raises(KeyboardInterrupt):
        hdf5.write(good, tmp_path / "x.h5")
    with pytest.raises(RefusedError, match="does not exist"):
        hdf5.open(tmp_path / "x.h5")


def test_without_h5py_it_is_said_how_to_get_it(stored, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments):
        if name == "h5py":
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RefusedError, match=r"pip install 'jaxshare\[hdf5\]'"):
        hdf5.open(stored)


def test_what_is_not_hdf5_is_refused(tmp_path):
    with pytest.raises(RefusedError, match="does not exist or is no file"):
        hdf5.open(tmp_path)
    for content in (b"", b"hello"):
        (tmp_path / "x.h5").write_bytes(content)
        with pytest.raises(RefusedError, match="is not an HDF5 file"):
            hdf5.open(tmp_path / "x.h5")


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])
def test_a_truncated_file_is_refused(stored, tmp_path, share):
    raw = stored.read_bytes()
    (tmp_path / "x.h5").write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(RefusedError, match="is damaged"):
        hdf5.open(tmp_path / "x.h5").read()


def test_damaged_values_are_refused(stored, tmp_path):
    """A flipped byte in the compressed observations."""
    path = shutil.copy(stored, tmp_path / "x.h5")
    with h5py.File(stored) as file:
        chunk = file["obs"].id.get_chunk_info(0)
    raw = bytearray(path.read_bytes())
    raw[chunk.byte_offset + chunk.size // 2] ^= 255
    path.write_bytes(raw)
    found = hdf5.open(path)
    with pytest.raises(RefusedError, match="is damaged: obs cannot be read"):
        found.read()


def spoil(columns, name):
    filled = columns["filled"]
    if name == "another file":
        return {"weights": np.zeros(3)}
    if name == "nothing":
        return {}
    if name == "no episode":
        return {key: values[:0] for key, values in columns.items()}
    if name == "hole":
        filled[0, 2] = 0
    elif name == "no step":
        filled[4, 1:] = 0
    elif name == "no successor":
        filled[2, 3] = 0  # its step 2 is the terminal one
    elif name == "shape":
        columns["reward"] = columns["reward"][:, :-1]
    elif name == "no avail":
        del columns["avail_actions"]
    elif name == "nan":
        columns["obs"][1, 1] = np.nan
    elif name == "not available":
        columns["avail_actions"][0, 1, 0] = np.arange(ACTIONS) != columns["actions"][0, 1, 0, 0]
    elif name == "nothing available":
        columns["avail_actions"][0, 5, 0] = 0  # from which a cut episode is bootstrapped
    return columns


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("another file", r"has no obs, actions, .* \(it has weights\)"), ("nothing", r"\(it has nothing\)"),
        ("no episode", "holds no episode"), ("hole", "filled is not a run of ones"),
        ("no step", "episode 4 has no step"), ("no successor", "episode 2 is terminated in its last filled column"),
        ("shape", r"reward has shape \(7, 5, 1\), the others ask for \(7, 6, 1\)"), ("no avail", "no avail_actions"),
        ("nan", "obs is not a finite number"), ("not available", "the action taken is not available"),
        ("nothing available", "no action is available"),
    ],
)  # fmt: skip
def test_files_of_something_else_are_refused(stored, tmp_path, name, message):
    path = handmade(tmp_path / "x.h5", spoil(columns_of(stored), name))
    with pytest.raises(RefusedError, match=message):
        hdf5.open(path).read()


def test_what_is_read_goes_into_our_own_format(stored, tmp_path):
    read = hdf5.open(stored).read()
    toy_data.assert_equal(own.load(own.save(read, tmp_path / "toy.jds", "float32")), read)

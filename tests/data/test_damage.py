"""Damage of many kinds is refused, and never read in silence; what files without checksums cannot tell is told here."""

import json
import shutil

import damage
import numpy as np
import pytest
import toy_data

from jaxshare.data import hdf5, own, vault
from jaxshare.data.formats import open_any
from jaxshare.data.own import arrays as own_arrays
from jaxshare.data.vault.arrays import spec as vault_spec
from jaxshare.types import RefusedError

h5py = pytest.importorskip("h5py", reason="the extra hdf5")
COUNT = 60  # damages of each format; 304 were tried by hand with the same function


@pytest.fixture(scope="module")
def good():
    return toy_data.dataset(extras=False)


@pytest.fixture(scope="module")
def stored(good, tmp_path_factory):
    """{format: a data set on disk}."""
    folder = tmp_path_factory.mktemp("sets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_arrays, "CHUNK_EPISODES", 4)
        mine = own.save(good, folder / "toy.jds", "float32")
    return {
        "own": mine,
        "vault": vault.write(good, folder / "toy.vlt" / "Good"),
        "hdf5": hdf5.write(good, folder / "toy.h5"),
    }


@pytest.mark.parametrize("name", ["own", "vault", "hdf5"])
def test_no_damage_is_read_in_silence(stored, tmp_path, name):
    outcomes = damage.campaign(stored[name], lambda path: open_any(path).read(), tmp_path, COUNT, seed=1)
    counted = damage.counted(outcomes)
    assert set(counted) <= {"refused", "same"}, [each for each in outcomes if each.result not in ("refused", "same")]
    assert counted["refused"] > 15


# ------------------------------------------------------------------------------------------------------------ checksums


def rewrite(folder, name, change):
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


def numbers(tree, path=()):
    """Paths of all numbers and texts in a JSON tree."""
    if isinstance(tree, dict):
        return [place for key, value in tree.items() for place in numbers(value, (*path, key))]
    if isinstance(tree, list):
        return [place for key, value in enumerate(tree) for place in numbers(value, (*path, key))]
    return [path] if isinstance(tree, int | float | str) else []


@pytest.mark.parametrize(("name", "file"), [("own", own.CARD), ("vault", "metadata.json")])
def test_whatever_is_changed_in_a_card_is_found(stored, tmp_path, name, file):
    folder = shutil.copytree(stored[name], tmp_path / "copy.jds")
    text = (folder / file).read_text()
    places = numbers(json.loads(text))
    for place in places[:: max(1, len(places) // 60)]:

        def change(content, place=place):
            for key in place[:-1]:
                content = content[key]
            value = content[place[-1]]
            content[place[-1]] = value + "x" if isinstance(value, str) else value + 1

        (folder / file).write_text(text)
        rewrite(folder, file, change)
        with pytest.raises(RefusedError):
            open_any(folder)
    (folder / file).write_text(json.dumps(json.loads(text)))  # laid out otherwise it says the same
    toy_data.assert_equal(open_any(folder).read(), open_any(stored[name]).read())


@pytest.mark.parametrize("key", ["checksums", "finished", "fields"])
def test_a_card_with_a_key_of_another_name_is_not_an_older_one(stored, tmp_path, key):
    folder = shutil.copytree(stored["own"], tmp_path / "toy.jds")
    rewrite(folder, own.CARD, lambda content: content.update({key[:-1] + "r": content.pop(key)}))
    with pytest.raises(RefusedError, match=r"is damaged|is unfinished"):
        own.open(folder)


def test_sets_without_checksums_still_open(good, stored, tmp_path):
    folder = shutil.copytree(stored["own"], tmp_path / "toy.jds")
    rewrite(folder, own.CARD, lambda content: content.pop("checksums"))
    toy_data.assert_equal(own.load(folder), good)
    older = shutil.copytree(stored["vault"], tmp_path / "old.vlt")
    rewrite(older, "metadata.json", lambda content: content.pop("jaxshare_sha256"))
    toy_data.assert_equal(vault.open(older).read(), vault.open(stored["vault"]).read())
    path = shutil.copy(stored["hdf5"], tmp_path / "old.h5")
    with h5py.File(path, "a") as file:
        del file.attrs["jaxshare_sha256"]
    toy_data.assert_equal(hdf5.open(path).read(), hdf5.open(stored["hdf5"]).read())


def test_without_checksums_what_is_read_is_checked(stored, tmp_path):
    """Chunks of masks that were exchanged: each is whole, and they do not fit the episodes."""
    folder = shutil.copytree(stored["own"], tmp_path / "toy.jds")
    rewrite(folder, own.CARD, lambda content: content.pop("checksums"))
    shutil.copy(folder / "terminated/c/1/0", folder / "terminated/c/0/0")
    with pytest.raises(RefusedError, match="terminated"):
        own.load(folder)


@pytest.mark.parametrize("field", ["obs", "mask", "reward", "component"])
def test_chunks_that_were_exchanged_are_found(stored, tmp_path, field):
    folder = shutil.copytree(stored["own"], tmp_path / "toy.jds")
    rest = ["0"] * (len(json.loads((folder / own.CARD).read_text())["fields"][field]["shape"]))
    first, second = (folder / field / "c" / "/".join([number, *rest]) for number in "01")
    shutil.copy(second, first)
    with pytest.raises(RefusedError, match=f"chunk 0 of {field} is not the one that was written"):
        own.load(folder, [1])
    assert len(own.load(folder, [5])) == 1  # of which nothing lies in that chunk


# ---------------------------------------------------------------------------------------------- files of others: ranges


def columns_of(path):
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file}


def plain(path, columns):
    """A file as others write them, without checksums."""
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            file[name] = values
    return path


def spoiled(columns, name, where, value):
    columns[name] = columns[name].astype(np.float32) if isinstance(value, float) else columns[name]
    columns[name][where] = value
    return columns


@pytest.mark.parametrize(
    ("name", "where", "value", "message"),
    [
        ("filled", (0, 1, 0), 2, "filled holds 2, which is neither 0 nor 1"),
        ("filled", (0, 1, 0), np.nan, "filled holds nan"),
        ("terminated", (1, 0, 0), 64, "terminated holds 64"),
        ("avail_actions", (0, 1, 0, 0), -1, "avail_actions holds -1"),
        ("alive", (0, 1, 0), 3, "alive holds 3"),
        ("actions", (0, 0, 0, 0), 1, "is 1, which is not a choice or not that of actions_onehot"),
        ("actions", (0, 0, 0, 0), 0.5, r"is 0\.5, which is not a choice"),
        ("reward", (0, 0, 0), np.inf, "reward is not a finite number"),
        ("state", (0, 0, 0), np.nan, "state is not a finite number"),
    ],
)
def test_values_out_of_range_are_refused_in_hdf5(stored, tmp_path, name, where, value, message):
    columns = columns_of(stored["hdf5"])
    if name == "actions" and value == 1:
        value = (columns["actions"][where] + 1) % toy_data.ACTIONS
        columns["avail_actions"][0, 0] = 1
        message = message.replace("1", str(value), 1)
    path = plain(tmp_path / "x.h5", spoiled(columns, name, where, value))
    with pytest.raises(RefusedError, match=message):
        hdf5.open(path).read()


def leaf_spec(path, name):
    return vault_spec(path, f"{name}.")


def test_values_out_of_range_are_refused_in_vaults(stored, tmp_path):
    import tensorstore

    for name in ("terminals", "infos.legals"):
        folder = shutil.copytree(stored["vault"], tmp_path / name)
        array = tensorstore.open(leaf_spec(folder, name)).result()
        metadata = json.loads((folder / "metadata.json").read_text())
        metadata = {key: value for key, value in metadata.items() if not key.startswith("jaxshare")}
        at = metadata["structure_dtype"]["infos"] if "." in name else metadata["structure_dtype"]
        at[name.split(".")[-1]] = "uint8"
        (folder / "metadata.json").write_text(json.dumps(metadata))
        values = array[0, : sum(toy_data.LENGTHS)].read().result().astype(np.uint8)
        values[1, 0] = 16
        spec = leaf_spec(folder, name)
        shape = (1, 10**13, *values.shape[1:])
        wider = tensorstore.open(spec, shape=shape, dtype="uint8", create=True, delete_existing=True).result()
        wider[0, : len(values)].write(values).result()
        with pytest.raises(RefusedError, match=f"{name} holds 16, which is neither 0 nor 1"):
            vault.open(folder).read()


def test_what_a_leaf_says_of_itself_must_fit_its_chunks(stored, tmp_path):
    """A flipped bit in a .zarray, which has no checksum: other names of chunks, or other numbers."""
    import tensorstore

    for change, message in (
        ({"dimension_separator": "/"}, "which is no chunk of it"), ({"dtype": ">f4"}, "big-endian"),
        ({"shape": [1, 10**13, 3, 4]}, r"observations has the shape \[3, 4\], metadata.json says \[3, 2\]"),
        ({"dtype": "<i4"}, "observations has the dtype int32, metadata.json says float32"),
    ):  # fmt: skip
        folder = shutil.copytree(stored["vault"], tmp_path / "Good", dirs_exist_ok=True)
        store = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{folder}"}).result()
        about = json.loads(store.read("observations./.zarray").result().value)
        store.write("observations./.zarray", json.dumps(about | change).encode()).result()
        with pytest.raises(RefusedError, match=message):
            vault.open(folder)
        shutil.rmtree(folder)

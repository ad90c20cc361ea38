"""Received data sets: what they claim is limited before it is allocated, and nothing outside of them is read."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tiny
import toy_data

from jaxshare.data import hdf5, limits, own, vault
from jaxshare.data.formats import open_any
from jaxshare.data.own import arrays as own_arrays
from jaxshare.data.vault.arrays import spec as vault_spec
from jaxshare.run import parallel
from jaxshare.types import RefusedError

MOST_GROWTH = 400e6  # bytes that a refusal may take, in a process of its own


@pytest.fixture
def stored(tmp_path):
    return own.save(toy_data.dataset(), tmp_path / "toy.jds", "float32")


def rewrite(folder, change):
    content = json.loads((folder / own.CARD).read_text())
    content.pop("checksums")  # a hostile set has those that fit it; an older one has none
    change(content)
    (folder / own.CARD).write_text(json.dumps(content))


def bomb(folder):
    """A set of some kB that becomes 6.5 GB: chunks of zeros."""
    shutil.rmtree(folder / "obs")
    episodes, shape = 7, [6, 3, 13_000_000]
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "zstd"}, {"name": "crc32c"}]
    import tensorstore

    size = [1, 6, 3, 1_300_000]
    metadata = {
        "shape": [episodes, *shape], "data_type": "float32", "codecs": codecs,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": size}},
    }  # fmt: skip
    where = own_arrays.location(folder, "obs")
    array = tensorstore.open(where | {"metadata": metadata}, create=True).result()
    array[:1, :, :, : size[-1]].write(np.zeros(size, np.float32)).result()
    first = folder / "obs/c/0/0/0/0"
    for episode in range(episodes):
        (folder / f"obs/c/{episode}/0/0").mkdir(parents=True, exist_ok=True)
        for part in range(10):
            if (episode, part) != (0, 0):
                os.link(first, folder / f"obs/c/{episode}/0/0/{part}")
    rewrite(folder, lambda content: content["fields"]["obs"].update(shape=shape))


READ = """
import resource, sys
from jaxshare.data.formats import open_any
from jaxshare.types import RefusedError
def used():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = used()
try:
    open_any(sys.argv[1]).read()
except RefusedError as error:
    print(used() - before, error)
"""


def refusal_and_growth(path):
    """(what is said, bytes that the process grew by) of reading a set in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)], cwd=tiny.REPOSITORY, env=tiny.ENVIRONMENT, text=True, check=True,
        capture_output=True,
    )  # fmt: skip
    growth, _, message = done.stdout.partition(" ")
    return message, int(growth)


def test_a_small_set_that_becomes_gigabytes_is_refused_before_anything_is_allocated(stored):
    bomb(stored)
    message, growth = refusal_and_growth(stored)
    assert "claims to be 6.55 GB in memory, more than 1000 times as much" in message
    assert growth < MOST_GROWTH


def test_a_chunk_larger_than_its_array_is_refused(stored):
    import tensorstore

    shutil.rmtree(stored / "reward")
    metadata = {
        "shape": [7, 5, 3], "data_type": "float32",
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2**30, 5, 3]}},
    }  # fmt: skip
    tensorstore.open(own_arrays.location(stored, "reward") | {"metadata": metadata}, create=True).result()
    rewrite(stored, lambda content: None)
    with pytest.raises(RefusedError, match=r"a chunk of reward claims 64\.4 GB for an array of 420 bytes"):
        own.open(stored)


def test_what_does_not_fit_into_free_memory_is_refused(stored, monkeypatch, tmp_path):
    plain = toy_data.dataset(extras=False)
    paths = [stored, vault.write(plain, tmp_path / "x.vlt" / "a")]
    if pytest.importorskip("h5py"):
        paths.append(hdf5.write(plain, tmp_path / "x.h5"))
    for path in paths:
        source = open_any(path)
        with monkeypatch.context() as patch:
            patch.setattr(parallel, "free_host_bytes", lambda: 1000)
            with pytest.raises(RefusedError, match=r"takes .*kB in memory, but 1 kB are free.*fewer episodes"):
                source.read()
        assert len(source.read()) == 7


# ---------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["/etc", "../other.jds/obs", "extras./etc", "extras.a/../../b", "..", "", "secret"])
def test_no_field_lies_outside_of_the_set(stored, name):
    """A field is a folder of its name: an absolute one, or one with '..', would be read from elsewhere."""
    about = {"shape": [5, 3], "dtype": "float32"}
    rewrite(stored, lambda content: content["fields"].update({name: about}))
    with pytest.raises(RefusedError, match=r"is damaged: card\.json is incomplete: .* is not the name of a field"):
        own.open(stored)


@pytest.mark.parametrize("inside", ["obs", "obs/c/0/0/0/0", "card.json", "extra"])
def test_links_in_a_set_are_refused(stored, tmp_path, inside):
    secret = tmp_path / "secret"
    if (stored / inside).exists():
        (stored / inside).rename(secret)
    else:
        secret.write_text("secret")
    (stored / inside).symlink_to(secret)
    with pytest.raises(RefusedError, match=r"is a link: a data set holds its own files\. .*cp -rL"):
        own.open(stored)


def test_links_in_a_vault_are_refused_and_one_to_a_set_is_not(stored, tmp_path):
    path = vault.write(toy_data.dataset(extras=False), tmp_path / "x.vlt" / "a")
    (tmp_path / "link.jds").symlink_to(stored)
    (tmp_path / "link.vlt").symlink_to(path)
    assert len(open_any(tmp_path / "link.jds")) == len(open_any(tmp_path / "link.vlt")) == 7
    (path / "d").rename(tmp_path / "d")
    (path / "d").symlink_to(tmp_path / "d")
    with pytest.raises(RefusedError, match="is a link"):
        open_any(path)


def test_a_pipe_in_a_set_is_refused(stored):
    chunk = stored / "obs/c/0/0/0/0"
    chunk.unlink()
    os.mkfifo(chunk)
    with pytest.raises(RefusedError, match="is no plain file"):
        own.open(stored)


@pytest.mark.parametrize(
    "change",
    [
        {"episodes": -1}, {"episodes": True}, {"episodes": 10**30}, {"episodes": 1e300}, {"episodes": float("nan")},
        {"card": []}, {"fields": []}, {"fields": {"obs": 5}}, {"checksums": 5}, {"checksums": {}},
        {"checksums": {"card": "", "arrays": {"/etc": ""}, "chunks": {}}},
        {"checksums": {"card": "", "arrays": {}, "chunks": {"obs": 5}}},
        {"checksums": {"card": "", "arrays": {}, "chunks": {}}},
    ],
    ids=str,
)  # fmt: skip
def test_nonsense_in_a_card_is_one_sentence(stored, change):
    rewrite(stored, lambda content: content.update(change))
    with pytest.raises(RefusedError, match=r"is damaged: card\.json"):
        own.load(stored)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "1" * 10_000, "nan", "{"], ids=lambda text: text[:5]
)
def test_nonsense_instead_of_a_card_is_one_sentence(stored, text, monkeypatch):
    (stored / own.CARD).write_text(text)
    with pytest.raises(RefusedError, match=r"card\.json"):
        own.open(stored)
    path = stored.with_name("x.vlt")
    path.mkdir()
    (path / vault.METADATA).write_text(text)
    with pytest.raises(RefusedError, match=r"metadata\.json"):
        vault.open(path)
    monkeypatch.setattr(limits, "MOST_TEXT", 0)
    with pytest.raises(RefusedError, match="at most 0 bytes are read"):
        own.open(stored)


# ---------------------------------------------------------------------------------------------------- HDF5 and vaults


@pytest.fixture
def columns(tmp_path):
    h5py = pytest.importorskip("h5py", reason="the extra hdf5")
    with h5py.File(hdf5.write(toy_data.dataset(extras=False), tmp_path / "whole.h5")) as file:
        return {name: file[name][()] for name in file}


def rewritten(path, columns, name, add):
    """A file with all columns but one, which `add(file)` makes."""
    import h5py

    with h5py.File(path, "w") as file:
        for other in columns.keys() - {name}:
            file[other] = columns[other]
        add(file)
    return path


def test_an_hdf5_file_that_claims_gigabytes_is_refused(columns, tmp_path):
    """Chunks that were never written take no bytes at all."""
    shape = (7, 6, 3, 13_000_000)

    def add(file):
        file.create_dataset("obs", shape, "f4", chunks=(1, 6, 3, 1000), compression="gzip")

    message, growth = refusal_and_growth(rewritten(tmp_path / "x.h5", columns, "obs", add))
    assert "claims to be 6.55 GB in memory, more than 1000 times as much" in message
    assert growth < MOST_GROWTH


def test_hdf5_arrays_that_lie_elsewhere_are_refused(columns, tmp_path):
    import h5py

    (tmp_path / "secret").write_bytes(bytes(columns["obs"].nbytes))
    shape = columns["obs"].shape

    def virtual(file):
        layout = h5py.VirtualLayout(shape, "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "whole.h5"), "obs", shape)
        file.create_virtual_dataset("obs", layout)

    def twice(file):
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk(shape)
        plist.set_deflate(9)
        plist.set_deflate(9)
        space = h5py.h5s.create_simple(shape)
        h5py.h5d.create(file.id, b"obs", h5py.h5t.IEEE_F32LE, space, plist).write(space, space, columns["obs"])

    cases = {
        "external": lambda file: file.create_dataset(
            "obs", shape, "f4", external=[(str(tmp_path / "secret"), 0, 2**20)]
        ),
        "link": lambda file: file.update({"obs": h5py.ExternalLink(str(tmp_path / "whole.h5"), "obs")}),
        "soft": lambda file: file.update({"obs": h5py.SoftLink("/state")}),
        "virtual": virtual,
        "twice": twice,
    }
    told = {"external": "lies in other files", "virtual": "lies in other files", "twice": "is compressed twice"}
    for name, add in cases.items():
        path = rewritten(tmp_path / f"{name}.h5", columns, "obs", add)
        with pytest.raises(RefusedError, match=told.get(name, "obs is a link")):
            hdf5.open(path)


def test_a_vault_that_claims_gigabytes_is_refused(tmp_path):
    """Rows that were never written are read as zeros."""
    import tensorstore

    path = vault.write(toy_data.dataset(extras=False), tmp_path / "x.vlt" / "a")
    tensorstore.open(vault_spec(path, "vault_index")).result().write([2**26]).result()
    message, growth = refusal_and_growth(path)
    assert "GB in memory, more than 1000 times as much" in message
    assert growth < MOST_GROWTH

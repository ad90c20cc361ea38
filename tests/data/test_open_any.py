"""The format of a data set is recognised by what it is."""

import json
import shutil

import pytest
import toy_data

from jaxshare.data import hdf5, own, vault
from jaxshare.data.formats import open_any
from jaxshare.types import RefusedError


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """The same episodes in every format, under names that say nothing."""
    pytest.importorskip("h5py", reason="the extra hdf5")
    folder, written = tmp_path_factory.mktemp("any"), toy_data.dataset(extras=False)
    own.save(written, folder / "toy.jds", "float32").rename(folder / "one")
    vault.write(written, folder / "two" / "uid")
    hdf5.write(written, folder / "three")
    return folder


@pytest.mark.parametrize(("name", "module"), [("one", own), ("two/uid", vault), ("two", vault), ("three", hdf5)])
def test_every_format_is_recognised(three, name, module):
    found = open_any(three / name)
    assert isinstance(found, module.Stored)
    assert len(found) == 7
    part, whole = found.read([3, 1]), found.read()
    toy_data.assert_equal(part, whole.take([3, 1]))
    assert found.card["composition"] == "rrm + rre"
    toy_data.assert_equal(open_any(str(three / name)).read(), whole)


def test_options_reach_the_reader(three):
    assert open_any(three / "two", last_step="keep").card["source"]["last_step"] == "keep"


def test_what_is_nothing_is_refused(three, tmp_path):
    with pytest.raises(RefusedError, match="does not exist"):
        open_any(tmp_path / "nope")
    with pytest.raises(RefusedError, match=r"is no data set: it has neither card\.json .*nor metadata\.json"):
        open_any(tmp_path)
    (tmp_path / "x.h5").write_text("text")
    with pytest.raises(RefusedError, match="is not an HDF5 file"):
        open_any(tmp_path / "x.h5")
    other = shutil.copytree(three / "two" / "uid", tmp_path / "other")
    (other / "metadata.json").write_text(json.dumps({"version": 3.0}))
    with pytest.raises(RefusedError, match="vault of version 3"):
        open_any(other)


def test_unfinished_ones_say_so(tmp_path):
    own.Writer(tmp_path / "x.jds")
    (tmp_path / "a.vlt" / f"Good{vault.UNFINISHED}").mkdir(parents=True)
    for path in (tmp_path / "x.jds", tmp_path / "a.vlt" / "Good"):
        with pytest.raises(RefusedError, match="is unfinished"):
            open_any(path)

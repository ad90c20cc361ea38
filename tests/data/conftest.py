"""Tests write many tiny files: they do not wait until the disk has each of them (as writers do by default)."""

import pytest

from jaxshare.data.own import arrays as own_arrays
from jaxshare.data.vault import arrays as vault_arrays


@pytest.fixture(autouse=True, scope="session")
def _no_fsync():
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((own_arrays, "location"), (vault_arrays, "spec")):
            patch.setattr(module, name, _relaxed(getattr(module, name)))
        yield


def _relaxed(spec):
    return lambda *arguments: spec(*arguments) | {"context": {"file_io_sync": False}}

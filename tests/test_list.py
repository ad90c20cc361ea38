"""`python -m jaxshare.list`: what there is, whether it can be used here, and how to get it if not."""

import sys
from types import SimpleNamespace

import pytest

from jaxshare import list as listing
from jaxshare import registry
from jaxshare.types import RefusedError


@pytest.fixture
def shown(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jaxshare.list"])
    listing._main()
    return capsys.readouterr().out


def test_every_entry_is_listed_with_its_state(shown):
    for kind in registry.KINDS:
        for name, module in registry.modules(kind).items():
            assert f"\n  {name:<10} " in shown
            for line in (registry.lacking(module) or "").split()[:3]:
                assert line in shown
    assert "JAX, discrete actions, installed" in shown
    assert "on the host, continuous actions" in shown
    assert all(len(line) <= 118 for line in shown.splitlines() if "which go together" not in line)


def test_what_is_missing_is_told_by_how_to_get_it():
    here = SimpleNamespace(PACKAGES=("json", "os.path"), INSTALL="pip install it")
    gone = SimpleNamespace(PACKAGES=("json", "no_such_package.part"), INSTALL="pip install it")
    part = SimpleNamespace(
        PACKAGES=("json.no_such_part",), INSTALL="pip install it"
    )  # as AutoML's smac has no smac.env
    assert registry.lacking(here) is None
    assert registry.lacking(gone) == registry.lacking(part) == "pip install it"
    assert registry.lacking(SimpleNamespace()) is None


def test_arguments_are_refused(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["jaxshare.list", "env"])
    with pytest.raises(RefusedError, match="takes no arguments"):
        listing._main()

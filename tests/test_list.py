"""`python -m jaxshare.list`: what there is, whether it can be used here, and how to get it if not."""

import re
import sys
from types import SimpleNamespace

import pytest

from jaxshare import registry
from jaxshare.commands import list as listing
from jaxshare.types import RefusedError


@pytest.fixture
def shown(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jaxshare.list"])
    listing._main()
    return capsys.readouterr().out


def test_every_entry_is_listed_with_its_state(shown):
    for kind in registry.KINDS:
        for name, module in registry.modules(kind).items():
            assert f"\n  {name:<{listing.WIDTH}} " in shown
            for line in (registry.lacking(module) or "").split()[:3]:
                assert line in shown
    assert "JAX, discrete actions, installed" in shown
    assert "on the host, continuous actions" in shown
    lines, table = shown.splitlines(), shown.index("which go together")
    assert all(len(line) <= 118 for line in lines if shown.index(line) < table or line.startswith(("  - ", "    ")))


def test_the_table_says_what_goes_with_what(shown):
    """Of both families, and one line for all algorithms that a modifier refuses for the same reason."""
    head, *rows = shown[shown.index("which go together") :].splitlines()[1:]
    cells = {
        row.split()[0]: dict(zip(head.split()[1:-2], row.split()[2:], strict=False)) for row in rows if row[2] > " "
    }
    assert cells["qmix"] | {"pp_pps": "o"} == cells["qmix"]
    assert cells["qmix"]["differ"] == cells["seac"]["a_pps"] == cells["seac"]["standardise"] == "+"
    assert cells["seac"]["differ"] == "-"
    assert cells["maa2c"]["rs_pps"] == "o"
    said = r"\[differ\]\s+(?:cannot\s+be\s+used\s+with|would\s+replace\s+the\s+loss\s+of)\s+algo=([\w|\s]+)[:,]"
    refused = re.split(r"[|\s]+", "|".join(re.findall(said, shown)))
    assert sorted(refused) == [name for name in registry.modules("algo") if cells[name]["differ"] == "-"]


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

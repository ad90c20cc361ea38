"""Names and defaults of all settings are what they were, and what runs wrote down before still loads."""

import dataclasses
import importlib
import json
import pathlib

import pytest
import yaml

from jaxshare import registry
from jaxshare.run import folder
from jaxshare.settings.plain import flatten, from_plain
from jaxshare.settings.records import RunConfig

GOLDEN = pathlib.Path(__file__).parent / "golden"
COMMANDS = ("collect", "decompose", "evaluate", "report")


def parts():
    """All classes of settings, by what owns them."""
    configs = {"run": RunConfig}
    configs |= {name: importlib.import_module(f"jaxshare.commands.{name}").Config for name in COMMANDS}
    for kind in registry.KINDS:
        configs |= {f"{kind}/{name}": module.Config for name, module in registry.modules(kind).items()}
    return configs


def listed(record, prefix=""):
    """{key: default} of a record of settings and those in it, as JSON has them."""
    defaults = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if dataclasses.is_dataclass(value):
            defaults |= listed(value, f"{prefix}{field.name}.")
        else:
            defaults[f"{prefix}{field.name}"] = list(value) if isinstance(value, tuple) else value
    return defaults


NAMES = json.loads((GOLDEN / "settings.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_names_and_defaults_are_what_they_were(name):
    defaults = listed(parts()[name]())
    assert {key: defaults.get(key, "is gone") for key in NAMES[name]} == NAMES[name]


@pytest.mark.parametrize("name", sorted(path.stem for path in (GOLDEN / "configs").glob("*.yaml")))
def test_what_a_run_wrote_down_before_still_loads(name):
    """Every setting of these files that can be another is not the default."""
    tree = yaml.safe_load((GOLDEN / "configs" / f"{name}.yaml").read_text())
    settings = from_plain(tree)
    assert settings.algo_name == name
    loaded = flatten(folder.plain(settings))
    written = flatten(tree)
    assert {key: loaded.get(key, "is gone") for key in written} == written


def test_every_algorithm_of_then_has_such_a_file():
    algorithms = {name.partition("/")[2] for name in NAMES if name.startswith("algo/")}
    assert {path.stem for path in (GOLDEN / "configs").glob("*.yaml")} == algorithms

"""Each setting says what it is and where its default comes from, and all that people read is made of that."""

import dataclasses
import importlib
import inspect
import pathlib
import re

import pytest
import tiny

from jaxshare import registry
from jaxshare.settings import fields
from jaxshare.settings.fields import (
    declared,
    default,
    file_path,
    flag,
    nested,
    size,
    static,
    swept,
)
from jaxshare.settings.help import help_text, small_help
from jaxshare.settings.page import is_departure, page
from jaxshare.settings.ranges import Range
from jaxshare.settings.records import RunConfig
from jaxshare.settings.rows import range_text, rows

COMMANDS = [
    (name, importlib.import_module(f"jaxshare.commands.{name}").Config)
    for name in ("collect", "convert", "decompose", "evaluate", "report")
]
ENTRIES = [
    (f"{kind}/{name}", module.Config) for kind in registry.KINDS for name, module in registry.modules(kind).items()
]
CONFIGS = [("run", RunConfig), *COMMANDS, *ENTRIES]


def records(config):
    """A class of settings and those in it."""
    yield config
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(field.default_factory):
            yield from records(field.default_factory)


def lacking(config):
    """What a class of settings leaves unsaid, one sentence each."""
    sentences = []
    for record in records(config):
        settings = declared(record)
        for field in dataclasses.fields(record):
            name = f"{record.__name__}.{field.name}"
            setting = settings[field.name]
            if not setting.help:
                sentences.append(f"{name} has no help")
            if re.search(r"\.$|\n|  ", setting.help) or len(setting.help) > 100:
                sentences.append(f"{name}: its help is no clause of a line")
            is_number = isinstance(field.default, int | float) and not isinstance(field.default, bool)
            if is_number and not setting.source:
                sentences.append(f"{name} has no source")
            if setting.source and not re.match(r"(paper|code): .|ours\b", setting.source):
                sentences.append(f"{name}: its source is neither a paper, nor code, nor ours")
    return sentences


@pytest.mark.parametrize(("name", "config"), CONFIGS)
def test_every_setting_says_what_it_is_and_whose_its_default_is(name, config):
    assert lacking(config) == []


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = swept(0.1, least=0, help="learning rate", source="code: PyMARL")


@dataclasses.dataclass(frozen=True)
class Base:
    width: int = size(8, help="units", source="paper: QMIX section 4")
    kind: str = static("a", choices=("a", "b"), help="which")
    bare: bool = False
    place: str = file_path("", help="a folder")
    inner: Inner = nested(Inner, help="what a sweep may vary")


@dataclasses.dataclass(frozen=True)
class Silent(Base):
    """Changes a default without its source."""

    width: int = 16


@dataclasses.dataclass(frozen=True)
class Faster(Inner):
    rate: float = default(0.5, "ours: faster")


@dataclasses.dataclass(frozen=True)
class Other(Base):
    width: int = default(16, "ours: wider", help="units of the layer")
    bare: bool = flag(True, help="without")
    inner: Faster = nested(Faster)


def test_a_setting_that_says_too_little_is_named():
    assert lacking(Base) == ["Base.bare has no help"]
    assert lacking(Silent) == ["Silent.width has no source", "Silent.bare has no help"]
    assert lacking(Other) == []


def test_a_subclass_says_only_what_is_another():
    settings = declared(Other)
    assert (settings["width"].help, settings["width"].source) == ("units of the layer", "ours: wider")
    assert settings["width"].allowed is declared(Base)["width"].allowed
    assert settings["inner"].help == "what a sweep may vary"
    assert declared(Faster)["rate"].is_swept
    assert declared(Faster)["rate"].help == "learning rate"
    assert settings["place"].is_path
    assert [(row.key, row.text) for row in rows(Other, "x.")] == [
        ("x.width", "16"), ("x.kind", "a"), ("x.bare", "true"), ("x.place", ""), ("x.inner.rate", "0.5"),
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "config"), CONFIGS)
def test_the_class_that_says_the_source_also_gives_the_default(name, config):
    for record in records(config):
        for field in dataclasses.fields(record):
            owner = next(base for base in record.__mro__ if field.name in inspect.get_annotations(base))
            if field.default is not dataclasses.MISSING:
                assert vars(owner)[field.name] == field.default, f"{record.__name__}.{field.name}"


@pytest.mark.parametrize(
    ("allowed", "text"),
    [
        (None, ""),
        (Range(choices=("a", "b")), "a|b"),
        (Range(choices=tuple("abcdefghij")), "a|b|c|d|e|f|g|h|…"),
        (Range(least=0), ">=0"),
        (Range(above=0), ">0"),
        (Range(least=1, most=fields.COUNT), ">=1"),
        (Range(least=0, most=1), "[0, 1]"),
        (Range(above=0, most=1), "(0, 1]"),
        (Range(least=0, below=1), "[0, 1)"),
        (Range(most=5), "<=5"),
    ],
)
def test_ranges_in_short(allowed, text):
    assert range_text(allowed) == text


# ---------------------------------------------------------------------------------------------------- what people read


TEMPLATE = "{algos} {envs} {modifiers} {presets} {algo} {env}\n{settings}"


@pytest.mark.parametrize(("algo", "env"), [("qmix", "smax"), ("sit", "lbf"), ("mappo", "smac")])
def test_help_shows_all_settings_of_a_choice_under_headings(algo, env):
    text = help_text(TEMPLATE, [f"algo={algo}", f"env={env}"])
    in_one_line = " ".join(text.split())
    configs = [(RunConfig, ""), (registry.get("algo", algo).Config, "algo."), (registry.get("env", env).Config, "env.")]
    configs += [(module.Config, f"{name}.") for name, module in registry.modules("modifiers").items()]
    for config, prefix in configs:
        for row in rows(config, prefix):
            assert f"\n  {row.key}=" in text
            assert row.setting.help in in_one_line
    for heading in ("run", "replay: ", "eval: ", "checkpoint: ", f"algorithm (algo={algo})", "environment (env="):
        assert f"\n{heading}" in text
    assert f"\nhyper-parameters of {algo}, which a sweep may vary" in text
    assert max(map(len, text.partition("\nrun\n")[2].splitlines())) <= 100


def test_help_has_the_defaults_of_the_choice_and_their_sources():
    text = " ".join(help_text(TEMPLATE, ["algo=mappo", "env=matrix"]).split())
    assert "algo.hparams.lr=0.002 learning rate [>=0] (code: JaxMARL's mappo_homogenous_rnn_smax)" in text
    assert "num_envs=128 episodes, or streams of them, that are played at a time [>=1] batch_size" in text
    assert "algo.clip=set over what gradients are clipped: each parameter set alone, or all of them [set|all]" in text
    assert "algo.hparams.gae_lambda=0.95 lambda of generalised advantages; only with returns=gae [0, 1]" in text


def test_small_help_has_all_settings_of_a_command():
    for _, config in COMMANDS:
        text = small_help("{settings}", config)
        assert [line.strip().partition("=")[0] for line in text.splitlines() if line[2] != " "] == [
            row.key for row in rows(config)
        ]


def test_the_page_of_all_settings_is_up_to_date():
    text = pathlib.Path(tiny.REPOSITORY / "docs" / "settings.md").read_text()
    assert text == page(), "run: python -m jaxshare.settings > docs/settings.md"


def test_the_page_has_every_setting_of_every_entry():
    text = page()
    for name, config in CONFIGS[:1] + ENTRIES:
        kind, _, entry = name.partition("/")
        prefix = {"run": "", "modifiers": f"{entry}."}.get(kind, f"{kind}.")
        for row in rows(config, prefix):
            assert f"| `{row.key}`" in text
            assert row.setting.help.replace("|", "\\|") in text


@pytest.mark.parametrize(
    ("source", "is_one"),
    [
        ("code: ICQ; paper: SIT Table 11 has 32", True),
        ("ours; paper: SIT has false", True),
        ("paper: SIT Table 11; code: ICQ has 0.75", False),
        ("code: PyMARL", False),
        ("ours: as the paper: none", False),
        ("", False),
    ],
)
def test_a_departure_names_the_paper_behind_another_default(source, is_one):
    assert is_departure(source) == is_one


def test_the_page_lists_defaults_that_are_not_the_papers():
    section = page().split("## Defaults that are not the papers'")[1]
    assert "| `algo.critic_dim` | `256` | icq | code: ICQ; paper: SIT Table 11 has 32 |" in section
    listed = [line for line in section.splitlines() if line.startswith("| `")]
    assert len(listed) > 10
    assert all("paper: " in line and "| paper: " not in line for line in listed)

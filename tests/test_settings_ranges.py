"""Every number has a range, every range is one declaration, and what a sweep varies is held to the same."""

import dataclasses
import itertools
import math

import pytest

from jaxshare import cli, registry
from jaxshare.commands import collect, convert, decompose, evaluate, report
from jaxshare.learners.value_settings import ValueConfig, ValueHParams
from jaxshare.run import build, folder
from jaxshare.settings.fields import COUNT, ranges, size, static, swept, swept_values
from jaxshare.settings.ranges import LARGEST_INTEGER, Range
from jaxshare.settings.records import RunConfig
from jaxshare.settings.validate import check_all, check_record
from jaxshare.types import RefusedError

ENTRIES = [
    (f"{kind}/{name}", module.Config) for kind in registry.KINDS for name, module in registry.modules(kind).items()
]
COMMANDS = [("train", RunConfig)] + [
    (module.__name__, module.Config) for module in (collect, convert, decompose, evaluate, report)
]
FREE = {  # texts that no list of names holds: paths, ids of other packages, and what an environment reads itself
    "data", "run_dir", "init_from", "out", "composition", "rule", "dtype", "gif", "picture", "metric", "score", "at",
    "unfinished", "checkpoint", "python", "id", "scenario", "sc2path", "implementation", "map_file", "payoff",
    "share", "networks", "coordinator",
}  # fmt: skip


def records(config):
    """A class of settings and those in it."""
    yield config
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(field.default_factory):
            yield from records(field.default_factory)


@pytest.mark.parametrize(("name", "config"), COMMANDS + ENTRIES)
def test_every_number_and_every_name_has_a_range(name, config):
    missing = [
        f"{record.__name__}.{field.name}"
        for record in records(config)
        for field in dataclasses.fields(record)
        if {"int", "float", "str", "Any"} & {*str(field.type).replace("|", " ").split()}
        and field.name not in ranges(record)
        and field.name not in FREE
    ]
    assert missing == []


@pytest.mark.parametrize(("name", "config"), COMMANDS + ENTRIES)
def test_defaults_are_in_range_and_numbers_have_ends(name, config):
    check_record(config())
    for record in records(config):
        for key, allowed in ranges(record).items():
            ends = (allowed.least, allowed.most, allowed.above, allowed.below)
            assert allowed.choices or any(end is not None for end in ends), f"{record.__name__}.{key} has no end"
            assert allowed.choices or allowed.problem(math.nan) != ""


@pytest.mark.parametrize(("name", "config"), COMMANDS + ENTRIES)
def test_no_range_is_declared_twice(name, config):
    """A subclass that only changes a default keeps the range of its base."""
    for record in records(config):
        for base in record.__mro__[1:]:
            if dataclasses.is_dataclass(base):
                names = ranges(record).keys() & ranges(base).keys()
                twice = [
                    key
                    for key in names
                    if ranges(record)[key] == ranges(base)[key] and ranges(record)[key] is not ranges(base)[key]
                ]
                assert twice == [], f"{record.__name__} and {base.__name__}"


@pytest.mark.parametrize("name", registry.modules("algo"))
def test_hyper_parameters_are_swept_and_nothing_else_is(name):
    config = registry.get("algo", name).Config()
    assert swept_values(config.hparams) == dataclasses.asdict(config.hparams)
    assert swept_values(config) == {}


def test_a_subclass_keeps_the_range_unless_it_declares_one():
    @dataclasses.dataclass(frozen=True)
    class Base:
        lr: float = swept(0.1, least=0)
        width: int = size(8)
        kind: str = static("a", choices=("a", "b"))

    @dataclasses.dataclass(frozen=True)
    class Other(Base):
        lr: float = 0.5
        kind: str = static("c", choices=("c",))

    assert Other() == Other(lr=0.5, width=8, kind="c")
    assert ranges(Other)["lr"] is ranges(Base)["lr"]
    assert ranges(Other)["kind"].choices == ("c",)
    assert swept_values(Other()) == {"lr": 0.5}


@pytest.mark.parametrize(
    ("allowed", "value", "words"),
    [
        (Range(least=0), 0.0, ""),
        (Range(least=0), -1.0, "must not be negative"),
        (Range(least=0), math.nan, "must be finite in 32 bits and must not be negative"),
        (Range(least=0), math.inf, "must be finite in 32 bits and must not be negative"),
        (Range(least=0), 1e39, "must be finite in 32 bits and must not be negative"),
        (Range(least=0), 3e38, ""),
        (Range(above=0), 0.0, "must be positive"),
        (Range(above=0), 1e-50, "is 0 in 32 bits, but must be positive"),
        (Range(above=0), 1e-30, ""),
        (Range(above=0, most=1), 0.0, "must be in (0, 1]"),
        (Range(above=0, most=1), 1.0, ""),
        (Range(least=0, below=1), 1.0, "must be in [0, 1)"),
        (Range(least=0, most=1), 7.0, "must be between 0 and 1"),
        (Range(above=0, below=1), 1.0, "must be between 0 and 1, and neither of them"),
        (Range(least=1, most=9), 0, "must be at least 1 and at most 9"),
        (Range(least=1, most=9), 99999999999, "must be at least 1 and at most 9"),
        (Range(least=1), 2**31, "must be at least 1 and at most 2147483647"),
        (Range(least=0.001, most=9), math.inf, "must be finite in 32 bits and must be at least 0.001 and at most 9"),
        (Range(above=0, infinite=True), math.inf, ""),
        (Range(above=0, infinite=True), -math.inf, "must be inf, or finite in 32 bits, and must be positive"),
        (Range(above=0, infinite=True), math.nan, "must be inf, or finite in 32 bits, and must be positive"),
        (Range(choices=(1, 2)), 3, "is not one of 1, 2"),
        (Range(choices=("a",)), "a", ""),
        (Range(least=1), None, ""),
    ],
)
def test_what_is_wrong_with_a_value(allowed, value, words):
    assert allowed.problem(value) == words


def test_records_are_checked_where_they_are_made():
    with pytest.raises(RefusedError, match=r"algo\.hidden_dim=0 must be at least 1"):
        ValueConfig(hidden_dim=0)
    with pytest.raises(RefusedError, match=r"algo\.hparams\.gamma=7\.0 must be between 0 and 1"):
        ValueConfig(hparams=ValueHParams(gamma=7.0))


# -------------------------------------------------------------------------------------------------------------- sweeps


def chosen(*arguments):
    return cli.settings(["env=matrix", "run_dir=x", *arguments])


OUTSIDE = (-1.0, 0.0, 1.0, 7.0, math.nan, math.inf, 1e39, 1e-50)


@pytest.fixture(scope="module")
def usual():
    return chosen()


def refused(make, *arguments):
    """What a call is refused with, or None."""
    try:
        make(*arguments)
    except RefusedError as refusal:
        return str(refusal)
    return None


def with_hparam(settings, key, value):
    hparams = dataclasses.replace(settings.algo.hparams, **{key: value})
    return dataclasses.replace(settings, algo=dataclasses.replace(settings.algo, hparams=hparams))


def swept_over(settings, key, value):
    owner, _, field = key.rpartition(".")
    usual = getattr(settings.modifiers[owner] if owner else settings.algo.hparams, field)
    return check_all(dataclasses.replace(settings, sweep={key: [usual, value]}))


@pytest.mark.parametrize("name", registry.modules("algo"))
def test_a_swept_value_has_the_fate_of_a_set_one(usual, name):
    settings = dataclasses.replace(usual, algo_name=name, algo=registry.get("algo", name).Config())
    for key, value in itertools.product(swept_values(settings.algo.hparams), OUTSIDE):
        when_set = refused(with_hparam, settings, key, value)
        when_swept = refused(swept_over, settings, key, value)
        assert (when_set is None) == (when_swept is None), f"{key}={value}: {when_set} | {when_swept}"
        assert when_swept is None or f"sweep.{key}={value}" in when_swept


@pytest.mark.parametrize("name", registry.modules("modifiers"))
def test_a_swept_value_of_a_modifier_has_the_fate_of_a_set_one(usual, name):
    config = registry.get("modifiers", name).Config()
    settings = dataclasses.replace(usual, modifiers={name: config})
    for key, value in itertools.product(swept_values(config), OUTSIDE):
        when_set = refused(lambda key, value: dataclasses.replace(config, **{key: value}), key, value)
        when_swept = refused(swept_over, settings, f"{name}.{key}", value)
        assert (when_set is None) == (when_swept is None), f"{key}={value}: {when_set} | {when_swept}"
        assert when_swept is None or f"sweep.{name}.{key}={value}" in when_swept
        assert when_set is None or f"{name}.{key}={value}" in when_set


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["modifiers=[differ]", "sweep.differ.eta_start=[5.0]"], "sweep.differ.eta_start=5.0 must be in (0, 1]"),
        (["sweep.lr=[0.1,-1]"], "sweep.lr=-1.0 must not be negative"),
        (["sweep.gamma=[0.9,nan]"], "sweep.gamma=nan must be finite in 32 bits and must be between 0 and 1"),
        (["sweep.zip=1", "sweep.lr=[0.1]"], "sweep.zip=1 must be true or false"),
        (["sweep.zip=true"], "sweep.zip=true has no effect alone"),
        (["sweep.zip=true", "sweep.lr=[0.1,0.2]", "sweep.gamma=[0.9]"], "sweep.gamma has 1 value(s) and sweep.lr 2"),
        (["sweep.zip=true", "sweep.lr=[0.1,0.1]", "sweep.gamma=[0.9,0.9]"], "has the point lr=0.1, gamma=0.9 twice"),
        (
            ["seeds=60000", "sweep.zip=true", "sweep.lr=[0.1,0.2]", "sweep.gamma=[0.9,0.9]"],
            "seeds=60000 with 2 point(s) of a sweep are 120000 runs",
        ),
        (
            ["seeds=60000", "sweep.lr=[0.1,0.2]"],
            "seeds=60000 with 2 point(s) of a sweep are 120000 runs",
        ),
    ],
)
def test_sweeps_are_refused_in_words(arguments, words):
    with pytest.raises(RefusedError) as refusal:
        build.prepare(chosen(*arguments))
    assert words in str(refusal.value)


def test_what_two_swept_values_must_be_together_is_checked():
    config = registry.get("algo", "sit").Config()
    settings = dataclasses.replace(chosen(), algo_name="sit", algo=config, sweep={"omega_low": [0.5, 20.0]})
    with pytest.raises(
        RefusedError, match=r"sweep\.omega_low=20\.0: algo\.hparams\.omega_low=20\.0 .*omega_high=10\.0"
    ):
        check_all(settings)


# ------------------------------------------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("algo.recurrent=-1", "algo.recurrent=-1 is neither true nor false"),
        ("progress=99999999999", "progress=99999999999 is neither true nor false"),
        ("checkpoint={replay:7}", "checkpoint.replay=7 is neither true nor false"),
        ("algo.hparams.lr=-1", "algo.hparams.lr=-1.0 must not be negative"),
        ("algo.hparams={gamma:7}", "algo.hparams.gamma=7.0 must be between 0 and 1"),
        ("algo.hparams.grad_clip=-1", "algo.hparams.grad_clip=-1.0 must be positive"),
        ("algo.hparams.epsilon_start=nan", "algo.hparams.epsilon_start=nan must be finite"),
        ("total_updates=-5", "total_updates=-5 must be at least 1"),
        ("updates_per_episode=nan", "updates_per_episode=nan must be finite"),
        ("updates_per_episode=inf", "updates_per_episode=inf must be finite"),
        ("algo.hidden_dim=99999999999", "algo.hidden_dim=99999999999 must be at least 1 and at most 65536"),
        ("total_env_steps=99999999999", f"total_env_steps=99999999999 must be at least 1 and at most {COUNT}"),
    ],
)
def test_arguments_are_refused_in_words(argument, words):
    with pytest.raises(RefusedError) as refusal:
        build.prepare(chosen(argument))
    assert words in str(refusal.value)


@pytest.mark.parametrize(("text", "meant"), [("0", False), ("1", True), ("yes", True), ("false", False)])
def test_what_means_true_or_false_still_does(text, meant):
    assert chosen(f"progress={text}").run.progress is meant


def test_the_largest_numbers_fit_in_32_bits():
    assert COUNT < LARGEST_INTEGER < 2**31


def test_a_zipped_sweep_is_a_list_of_points(tmp_path):
    """A value may come twice there, and the run directory says that it is no grid."""
    lines = ["modifiers=[differ]", "sweep.zip=true", "sweep.lr=[0.1,0.2,0.1]", "sweep.differ.alpha=[0.3,0.3,0.4]"]
    settings = chosen(*lines)
    check_all(settings)
    assert settings.points() == [{"lr": a, "differ.alpha": b} for a, b in ((0.1, 0.3), (0.2, 0.3), (0.1, 0.4))]
    folder.write_settings(settings, tmp_path)
    assert folder.read_settings(tmp_path).points() == settings.points()
    assert len(dataclasses.replace(settings, zipped=False).points()) == 9

"""What people type after `key=`: text is taken as it stands, or one sentence says what is wrong and how to write it."""

import os
import re
import shlex
from dataclasses import dataclass, field

import pytest

from jaxshare import cli, registry, spelling
from jaxshare.commands import collect, convert, decompose, evaluate, report, train
from jaxshare.settings.help import help_text
from jaxshare.settings.records import RunConfig
from jaxshare.settings.rows import rows
from jaxshare.types import RefusedError

HOME = os.path.expanduser("~")
NAMES = {  # as typed: as meant
    **{
        name: name
        for name in (
            "a=b", "a#b", "a,b", "it's", "größe_测试", "x(1)", "x)", "a$b", "$_$", "[/a]", "lr[1e-4]", "{a}", "a b",
            " a ", "1e3", "007", "true", "a;b&c", "a!^b", 'a"b', "a\nb", "a\\", "a~b", "str(1)", "choice(a,b)",
            "range(3)", "a:b", "50%_x", "<a>|`b`", "a@b", "-x", "👍", ":smile:",
        )
    },
    "~/x": f"{HOME}/x",
    "~": HOME,
    # what was quoted for hydra's grammar means what it did
    '"a,b"': "a,b",
    "'a=b'": "a=b",
    '"~/x"': "~/x",
    "a\\,b": "a,b",
    # an interpolation, and the same characters
    "x/\\${seed}": "x/${seed}",
}  # fmt: skip


def taken(command, *arguments):
    """What a command understands, without running."""
    if command == "train":
        settings = cli.settings(["env=smac", *arguments])
        return {
            "run_dir": settings.run.run_dir,
            "data": settings.run.data,
            "env.sc2path": settings.env.sc2path,
            "env.python": settings.env.python,
        }
    if command == "report":
        return {"out": report.configured(list(arguments)).out}
    config = {"evaluate": evaluate, "collect": collect, "decompose": decompose}[command].Config
    return vars(cli.small_config(config, arguments))


PATHS = {
    "train": ("run_dir", "data", "env.sc2path", "env.python"),
    "evaluate": ("run_dir", "gif", "picture"),
    "collect": ("run_dir", "out"),
    "decompose": ("run_dir", "data", "out"),
    "report": ("out",),
}


@pytest.mark.parametrize("command", [command for command in PATHS if command != "train"])
@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_what_was_typed(command, name):
    paths = PATHS[command]
    settings = taken(command, *(f"{key}={name}" for key in paths))
    assert {key: settings[key] for key in paths} == dict.fromkeys(paths, NAMES[name])


@pytest.mark.parametrize("first", range(0, len(NAMES), len(PATHS["train"])))
def test_a_path_of_a_run_is_what_was_typed(first):
    """As many at a time as there are paths: composing takes long."""
    names = [*NAMES, "x", "x", "x"][first : first + len(PATHS["train"])]
    typed = dict(zip(PATHS["train"], names, strict=True))
    settings = taken("train", *(f"{key}={name}" for key, name in typed.items()))
    assert settings == {key: NAMES.get(name, name) for key, name in typed.items()}


def test_every_path_of_the_program_is_known_as_one():
    """Whatever setting is text about a file, folder or program, by what is said of it, is declared as one."""
    configs = [RunConfig, evaluate.Config, collect.Config, convert.Config, decompose.Config, report.Config]
    configs += [module.Config for kind in registry.KINDS for module in registry.modules(kind).values()]
    words = re.compile(r"\b(folder|file|data set to|run directory|interpreter|write|JSON)\b")
    paths = set()
    for config in configs:
        kinds = spelling.kinds_of(config)
        for row in rows(config):
            if kinds[row.key].text and words.search(row.setting.help):
                assert kinds[row.key].path, row.key
                paths.add(row.key)
    assert paths == {"run_dir", "data", "out", "gif", "picture", "sc2path", "python", "map_file", "init_from"}


def test_runs_of_a_report_at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "größe [a],b"
    folder.mkdir()
    for name in ("config.yaml", "metrics.jsonl"):
        (folder / name).touch()
    config = report.configured(["A=~/gr*", "~/gr*", str(folder), "out=~/x"])
    assert config.runs == [f"A={tmp_path}/gr*", f"{tmp_path}/gr*", str(folder)]
    assert config.out == f"{tmp_path}/x"


def test_free_text_is_what_was_typed():
    assert cli.small_config(collect.Config, ["composition=rrr + r(m)"]).composition == "rrr + r(m)"
    assert cli.small_config(report.Config, ["metric=1e3"]).metric == "1e3"
    assert cli.settings(["env=smac", "env.difficulty=07"]).env.difficulty == "07"
    assert cli.small_config(evaluate.Config, ["gif=null"]).gif is None
    assert cli.settings(["env=matrix", "run_dir="]).run.run_dir == ""  # a new name is made with its folder


# ----------------------------------------------------------------------------------------- refusals


def refusal(command, *arguments):
    """One sentence; nothing of hydra's own."""
    with pytest.raises(RefusedError) as caught:
        taken(command, *arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert not re.search(r"ChoiceSweep|Override|object_type|https:|<class|lexer", message), message
    return message


@pytest.mark.parametrize("command", ["train", "evaluate"])
@pytest.mark.parametrize("value", ["${x}", "a/${x}/b", "${", "${x", "a${", "${a:}"])
def test_an_interpolation_of_nothing(command, value):
    message = refusal(command, f"run_dir={value}")
    assert "run_dir" in message
    assert "\\${" in message
    escaped = value.replace("${", "\\${")
    assert taken(command, f"run_dir={escaped}")["run_dir"] == value


@pytest.mark.parametrize("command", PATHS)
@pytest.mark.parametrize("value", ["???", "null", "\udcff"])
def test_what_no_path_can_be(command, value):
    assert PATHS[command][0] in refusal(command, f"{PATHS[command][0]}={value}")


@pytest.mark.parametrize(
    ("argument", "character"),
    [
        ("hydra.x=größe", "ö"),
        ("hydra.x=a(b", "("),
        ("hydra.x=a=b", "="),
        ("hydra.x={a: x(1)}", "("),
        ("hydra.x=[a#b,c]", "#"),
    ],
)
def test_what_cannot_stand_unquoted_is_named_and_the_remedy_works(argument, character):
    message = refusal("train", argument)
    assert f"'{character}'" in message
    (remedy,) = shlex.split(message.rsplit(": ", 1)[1].removesuffix("."))
    value = spelling.parse(remedy).value()
    meant = {"{a: x(1)}": {"a": "x(1)"}, "[a#b,c]": ["a#b", "c"]}
    typed = argument.partition("=")[2]
    assert value == meant.get(typed, typed)


@pytest.mark.parametrize("argument", ["seeds=[1", "hydra.x={a", "hydra.x=[" * 500, "a b", "@", "~seeds", "~env", ""])
def test_what_is_not_understood(argument):
    assert "is not understood" in refusal("train", argument)


@pytest.mark.parametrize(
    "argument", ["sweep=1", "sweep=null", "kwargs=1", "kwargs.a=1", "env.kwargs.a=1", "algo@x=iql"]
)
def test_what_is_no_setting(argument):
    assert argument.partition("=")[0] in refusal("train", argument, "env=matrix")


@dataclass(frozen=True)
class Small:
    count: int = 0
    layers: list[int] = field(default_factory=list)
    name: str = ""


def test_several_values_where_one_is_needed():
    """The three remedies of hydra, each of which works."""
    message = refusal("train", "num_envs=1,2")
    assert "-m num_envs=1,2" in message
    for typed in ("algo=iql,vdn", "algo=choice(iql,vdn)", "seeds=range(3)", "env.scenario=3m,8m", "preset=a,b"):
        assert f"{typed} names several values" in refusal("train", typed)
    message = refusal("evaluate", "policy=greedy,both")
    assert " -m " not in message
    with pytest.raises(RefusedError, match=re.escape("layers=[1,2]")) as caught:
        cli.small_config(Small, ["layers=1,2"])
    assert cli.small_config(Small, ["layers=[1,2]"]).layers == [1, 2]
    (text,) = shlex.split(str(caught.value).rsplit("characters ", 1)[1].removesuffix("."))
    assert text == 'layers="1,2"'


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("algo=QMIX", "Did you mean qmix?"),
        ("env=SMAX", "Did you mean smax?"),
        ("modifiers=[Differ]", "Did you mean differ?"),
        ("preset=Main_Job", "Did you mean main_job?"),
        ("Num_Envs=3", "Did you mean num_envs?"),
        ("algo.hparams.LR=3", "Did you mean algo.hparams.lr?"),
        ("learning_rate=3", "Did you mean algo.hparams.lr"),
        ("t_max=3", "Did you mean total_env_steps?"),
        ("batch_size_run=3", "Did you mean num_envs?"),
        ("test_interval=3", "Did you mean eval.every?"),
        ("test_nepisode=3", "Did you mean eval.episodes?"),
        ("buffer_size=3", "Did you mean replay.capacity?"),
        ("env_args.map_name=3m", "Did you mean env.scenario?"),
        ("n_agents=3", "Did you mean env.scenario?"),
        ("target_update_interval=3", "Did you mean algo.target_update_period?"),
        ("mixing_embed_dim=3", "Did you mean algo.embed_dim?"),
    ],
)
def test_a_name_is_suggested(argument, words):
    assert words in refusal("train", argument)


def test_capitals_of_scenarios():
    for module, name in (("smax", "3M"), ("mpe", "Spread"), ("smac", "mmm2"), ("matrix", "Climbing")):
        entry = registry.get("env", module)
        key = "game" if module == "matrix" else "scenario"
        with pytest.raises(RefusedError, match=r"Did you mean (3m|spread|MMM2|climbing)\?"):
            entry.make(entry.Config(**{key: name}))


def test_every_synonym_names_a_setting():
    known = {*spelling.training_kinds(), "env", "logger"}
    for name, meant in registry.SYNONYMS.items():
        assert name not in known
        for ending in meant:
            assert any(key == ending or key.endswith(f".{ending}") for key in known), (name, ending)


# ------------------------------------------------------------------------------------ whole numbers


def test_whole_numbers_may_have_an_exponent():
    settings = cli.settings(
        ["env=smax", "total_env_steps=1e6", "algo.hidden_dim=6.4e1", "env.max_steps=1.0", "seed=1_0"]
    )
    assert (settings.run.total_env_steps, settings.algo.hidden_dim, settings.env.max_steps) == (1_000_000, 64, 1)
    assert settings.run.seed == 10
    assert isinstance(settings.run.total_env_steps, int)
    assert cli.small_config(report.Config, ["resamples=1e2"]).resamples == 100
    assert cli.small_config(evaluate.Config, ["checkpoint=1e2"]).checkpoint == 100
    assert cli.small_config(evaluate.Config, ["checkpoint=best"]).checkpoint == "best"
    assert cli.small_config(evaluate.Config, ["seed=null"]).seed is None


@pytest.mark.parametrize(
    "value", ["1.5", "1e-1", "nan", "inf", "-inf", "1e999", "1e99999999999", "", "many", "--1", "1e"]
)
def test_other_numbers_are_none(value):
    for command, key in (("train", "total_env_steps"), ("evaluate", "episodes")):
        message = refusal(command, f"{key}={value}")
        assert key in message


# ----------------------------------------------------------------------------------------- multirun


def test_commas_of_a_multirun():
    kinds = spelling.training_kinds()

    def values(argument):
        override = spelling.parse(spelling.spelled(argument, kinds, sweeping=True))
        return (
            [v.strip("'") for v in override.sweep_string_iterator()]
            if override.is_sweep_override()
            else override.value()
        )

    assert values("run_dir=runs/a,b") == "runs/a,b"  # one folder, in which each job has its number
    assert values("data=x(1.jds,größe.jds") == "x(1.jds,größe.jds"  # no sweep that can be read: text
    assert values("data=~/a,größe") == [f"{HOME}/a", "größe"]
    assert values("data='a,b',c") == ["a,b", "c"]
    assert values("env.scenario=3m,8m") == ["3m", "8m"]
    assert values("total_env_steps=1e3,2e3") == ["1000", "2000"]
    assert values("modifiers=differ") == ["differ"]


# --------------------------------------------------------------------------------------------- help


def test_help_of_what_there_is_not(capsys):
    with pytest.raises(RefusedError, match=r"Did you mean qmix\?"):
        help_text(train.HELP, ["algo=QMIX"])
    assert "algo=vdn" in help_text(train.HELP, ["algo=vdn", "run_dir=a,b(", "total_env_steps=1e6"])
    assert "(for algo=iql" in help_text(train.HELP, ["algo=iql,vdn"])

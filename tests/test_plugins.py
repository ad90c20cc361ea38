"""Entries from outside: what they must be, how they are named, and that a broken one is told in a sentence."""

import dataclasses
import re
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import outside
import pytest
import yaml

from jaxshare import cli, registry, spelling, trust
from jaxshare.commands import evaluate
from jaxshare.commands import list as listing
from jaxshare.plugins import arguments, entries, installed, presets, references
from jaxshare.run import folder as run_folder
from jaxshare.run import loggers
from jaxshare.settings.help import help_text
from jaxshare.types import Env, RefusedError


@dataclass(frozen=True)
class Config:
    """Settings of what tests register."""

    size: int = 3  # of it


@pytest.fixture(autouse=True)
def _as_before():
    yield
    outside.forget()


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages, and another that is the current one."""
    packages = tmp_path / "site"
    here = tmp_path / "here"
    packages.mkdir()
    here.mkdir()
    monkeypatch.syspath_prepend(str(packages))
    monkeypatch.chdir(here)
    return packages


@pytest.fixture
def game(site):
    """A game and a modifier in files of the current folder."""
    (site.parent / "here" / "games").mkdir()
    (site.parent / "here" / "games" / "coin.py").write_text(outside.GAME)
    (site.parent / "here" / "shrunk.py").write_text(outside.MODIFIER)
    return site.parent / "here" / "games" / "coin.py"


# ---------------------------------------------------------------------------------------- registered


def test_what_is_registered_is_there_by_its_name():
    registry.register("algo", "mine", SimpleNamespace(Config=Config, make=lambda config, spec: None))
    settings = cli.settings(["algo=mine", "algo.size=5", "env=matrix"])
    assert (settings.algo_name, settings.algo) == ("mine", Config(5))
    assert "mine" in registry.names("algo")
    assert "mine" not in registry.modules("algo")  # which tables of tests are made of
    assert spelling.training_kinds()["algo.size"].number
    registry.register("algo", "mine", SimpleNamespace(Config=Config, make=lambda config, spec: 7))
    assert registry.get("algo", "mine").make(None, None) == 7


def test_an_environment_may_be_an_object_or_a_function():
    env = registry.get("env", "matrix").make(cli.settings(["env=matrix"]).env)
    registry.register("env", "mine", env)
    settings = cli.settings(["env=mine"])
    assert registry.get("env", "mine").make(settings.env) is env
    registry.register("env", "made", lambda: env)
    assert registry.get("env", "made").make(cli.settings(["env=made"]).env) is env
    assert registry.register_env(env) == "matrix_climbing"
    assert registry.register_env(dataclasses.replace(env, spec=dataclasses.replace(env.spec, name="smax"))) == "smax_"
    assert isinstance(registry.get("env", "smax_").make(None), Env)


BROKEN = [
    ("algo", "mine", SimpleNamespace(Config=Config), "no function make: export make(config, spec)"),
    ("algo", "mine", SimpleNamespace(make=print), "has no Config: export a frozen dataclass"),
    ("algo", "mine", SimpleNamespace(make=print, Config=dict), "has no Config"),
    ("modifiers", "not-a-key", SimpleNamespace(make=print, Config=Config), "letters, digits and _"),
    ("modifiers", "sweep", SimpleNamespace(make=print, Config=Config), "as other settings are"),
    ("algo", "qmix", SimpleNamespace(make=print, Config=Config), "jaxshare has algo=qmix itself"),
    ("logger", "wandb", print, "jaxshare has logger=wandb itself"),
    ("algos", "mine", SimpleNamespace(make=print, Config=Config), "Did you mean algo?"),
    ("preset", "mine", "no/such/folder", "no folder of presets"),
    ("env", "mine", 3, "no function make"),
]


@pytest.mark.parametrize(("kind", "name", "module", "words"), BROKEN)
def test_what_is_missing_is_told(kind, name, module, words):
    with pytest.raises(RefusedError, match=re.escape(words)) as error:
        registry.register(kind, name, module)
    assert "\n" not in str(error.value)
    assert name not in entries.imported(kind)


def test_a_config_is_frozen_and_has_defaults():
    @dataclass
    class Thawed:
        size: int = 3

    @dataclass(frozen=True)
    class Bare:
        size: int

    for config, words in ((Thawed, "not frozen"), (Bare, "give every setting a default")):
        with pytest.raises(RefusedError, match=words):
            registry.register("algo", "mine", SimpleNamespace(Config=config, make=print))


def test_a_modifier_is_not_called_as_a_setting_is():
    registry.register("modifiers", "seeds", SimpleNamespace(Config=Config, make=print))
    with pytest.raises(RefusedError, match=r"modifiers=\[seeds\] is called as the setting seeds"):
        cli.settings(["env=matrix", "modifiers=[seeds]"])


# ---------------------------------------------------------------------------- dotted paths and files


def test_files_and_dotted_paths_on_the_command_line(game, site):
    (site / "plug_algo.py").write_text((outside.PROJECT / "team_games" / "averaged.py").read_text())
    (site / "plug_all").mkdir()
    (site / "plug_all" / "__init__.py").write_text("from plug_algo import *\nimport plug_algo as renamed\n")
    settings = cli.settings([
        "algo=plug_all.renamed", "algo.weight=3", "env=games/coin.py", "env.pay=2", "modifiers=[differ,shrunk.py]",
        "shrunk.factor=0.25", "sweep.shrunk.factor=[0.1,0.2]",
    ])  # fmt: skip
    assert (settings.algo_name, settings.env_name) == ("renamed", "coin")
    assert list(settings.modifiers) == ["differ", "shrunk"]
    assert (settings.algo.weight, settings.env.pay, settings.modifiers["shrunk"].factor) == (
        3.0,
        2.0,
        0.25,
    )
    assert settings.run.num_envs == 4  # the algorithm's own default
    assert settings.sweep == {"shrunk.factor": [0.1, 0.2]}
    with pytest.raises(RefusedError, match=r"Did you mean env\.pay"):
        cli.settings(["env=games/coin.py", "env.payy=2"])
    with pytest.raises(RefusedError, match=r"env.pay.*much"):
        cli.settings(["env=games/coin.py", "env.pay=much"])
    with pytest.raises(RefusedError, match="Did you mean coin"):
        cli.settings(["env=coins"])
    # the same without the modifier: its settings are those of nothing in use
    with pytest.raises(RefusedError, match="shrunk is not in use"):
        cli.settings(["env=games/coin.py", "shrunk.factor=1"])


def test_a_multirun_names_them_by_short_names_and_tells_other_processes(game):
    line = arguments.understood(["-m", "env=matrix,games/coin.py", "modifiers=[shrunk.py],[]", "hydra.x=${a.b}"])
    assert line == ["-m", "env=matrix,coin", "modifiers=[shrunk],[]", "hydra.x=${a.b}"]
    cli.register()
    cli.check_arguments([*line[1:3], "env.pay=1,2"], sweeping=True)
    sent = arguments.to_send()
    assert [part.partition("=")[0] for part in sent.split("&")] == ["env", "modifiers"]
    entries._imported.clear()
    assert "coin" not in registry.names("env")
    arguments.receive(sent)
    assert registry.get("env", "coin").Config().pay == 1.0


WRONG = [
    ("algo=no_such_package.thing", "No module named 'no_such_package'"),
    ("algo=plug_bad.thing", "ZeroDivisionError.*line 2 of .*plug_bad.py"),
    ("algo=json.decoder", "has no function make"),
    ("algo=jaxshare.algos.qmixx", "No module named 'jaxshare.algos.qmixx'"),
    ("env=games/none.py", "cannot be read .*none.py: No such file"),
    ("env=games/broken.py", r"SyntaxError.*\(broken.py, line 1\)"),
    ("env=games/smax.py", "would be called smax, as jaxshare's own env=smax is: rename the file"),
    ("env=games/a-b.c.py", "letters, digits and _"),
    ("modifiers=[games]", "modifiers=games is not known"),
]


@pytest.mark.parametrize(("argument", "words"), WRONG)
def test_what_cannot_be_imported_is_told_in_a_sentence(game, site, argument, words):
    (site / "plug_bad.py").write_text("import json\n1 / 0\n")
    (game.parent / "broken.py").write_text("def\n")
    (game.parent / "smax.py").write_text(outside.GAME)
    (game.parent / "a-b.c.py").write_text(outside.GAME)
    with pytest.raises(RefusedError, match=words) as error:
        cli.settings(["env=matrix", argument])
    assert "\n" not in str(error.value)


def test_ours_by_its_long_name_is_ours():
    assert cli.settings(["env=matrix", "algo=jaxshare.algos.vdn"]).algo_name == "vdn"
    assert registry.entry("algo", "vdn").origin is None


# ---------------------------------------------------------------------------------- installed packages


@pytest.fixture
def packages(site):
    """Three installed packages, two of which are broken or at odds."""
    good = outside.MODIFIER.replace("shrunk", "plug_mod")
    points = {"modifiers": {"plug_mod": "plug_mod"}, "envs": {"plug_game": "plug_game"}}
    outside.distribution(site, "plug-good", points, plug_mod=good, plug_game=outside.GAME)
    points = {
        "algos": {"plug_gone": "plug_none.x", "qmix": "plug_mod"},
        "envs": {"plug_game": "plug_mod"},
    }
    outside.distribution(site, "plug-bad", points)
    outside.distribution(site, "plug-worse", {"loggers": {"plug_log": "plug_log:nothing"}}, plug_log="x = 1\n")
    return site


def test_one_broken_package_breaks_nothing_else(packages, capsys, monkeypatch):
    assert cli.settings(["env=matrix", "modifiers=[plug_mod]", "plug_mod.factor=2"]).modifiers["plug_mod"].factor == 2.0
    assert cli.settings(["algo=qmix", "env=matrix"]).algo_name == "qmix"
    for argument, words in (
        (
            "algo=plug_gone",
            r"'plug_gone = plug_none.x' \(group jaxshare.algos\) of the installed package plug-bad",
        ),
        (
            "env=plug_game",
            "several installed packages, plug-bad and plug-good: uninstall all but one",
        ),
        ("logger=[plug_log]", "package plug-worse cannot be imported"),
    ):
        with pytest.raises(RefusedError, match=words):
            cli.settings(["env=matrix", argument])
    monkeypatch.setattr(sys, "argv", ["jaxshare.list"])
    monkeypatch.setattr(listing, "_print_table", lambda: None)
    listing._main()
    out, err = capsys.readouterr()
    assert "Rewards times a factor. (package plug-good 1.0)" in " ".join(out.split())
    warnings = [line for line in err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 4
    assert any("'qmix = plug_mod'" in line and "it needs another name" in line for line in warnings)


def test_nothing_is_imported_before_it_is_asked_for(packages):
    cli.settings(["env=matrix"])
    assert "plug_mod" in registry.names("modifiers")
    assert not [name for name in sys.modules if name.startswith("plug_")]
    cli.settings(["env=matrix", "sweep.plug_mod.factor=[1,2]"])
    assert "plug_mod" in sys.modules


def test_the_module_of_an_entry_point_is_that_entry(packages):
    assert references.load("modifiers", "plug_mod").origin == registry.entry("modifiers", "plug_mod").origin
    (packages.parent / "here" / "plug_mod.py").write_text(outside.MODIFIER)
    with pytest.raises(RefusedError, match="of the installed package plug-good is: rename"):
        cli.settings(["env=matrix", "modifiers=[./plug_mod.py]"])


def test_help_shows_names_and_settings(packages, game):
    template = "{algos} {envs} {modifiers} {presets} {algo} {env}\n{settings}"
    text = help_text(template, ["env=games/coin.py"])
    assert "plug_mod" in text.splitlines()[0]
    assert "of each 1" in text


# --------------------------------------------------------------------------------------------- presets

PRESET = """
defaults:
  - override /algo: vdn
  - override /env: ../games/coin.py
modifiers: [plug_mod]
env: {pay: 3}
plug_mod: {factor: 5e-1}
"""


def test_presets_of_a_package(packages, game):
    (packages / "plug_presets").mkdir()
    (packages / "plug_presets" / "deep").mkdir()
    (packages / "plug_presets" / "deep" / "one.yaml").write_text(PRESET.replace("../games", str(game.parent)))
    outside.distribution(packages, "plug-presets", {"presets": {"their": "plug_presets", "differ": "plug_presets"}})
    settings = cli.settings(["preset=their/deep/one", "env.pay=4"])
    assert (settings.algo_name, settings.env_name, settings.env.pay) == ("vdn", "coin", 4.0)
    assert settings.modifiers["plug_mod"].factor == 0.5
    assert presets.names() == ["their/deep/one"]
    assert cli.settings(["preset=differ/fig3_divide"]).algo_name == "qmix"  # ours
    for wrong in ("their/deep/two", "their/../plug_presets/deep/one", "their"):
        with pytest.raises(RefusedError, match=f"preset={wrong} is not known.*their/deep/one"):
            cli.settings([f"preset={wrong}"])
    with pytest.raises(RefusedError, match="differ"):
        raise RefusedError(" ".join(installed.problems({"preset": presets.of_ours()})))


def test_a_folder_or_file_of_presets_can_be_registered(tmp_path, game):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "one.yaml").write_text("seeds: 3\n")
    registry.register("preset", "mine", tmp_path / "mine")
    registry.register("preset", "three", str(tmp_path / "mine" / "one.yaml"))
    assert cli.settings(["preset=mine/one", "env=matrix"]).run.seeds == 3
    assert cli.settings(["preset=three", "env=matrix"]).run.seeds == 3


def test_a_file_of_settings_names_no_code_by_itself(packages, game, site):
    file = site.parent / "here" / "presets" / "own.yaml"
    file.parent.mkdir()
    file.write_text(PRESET)
    with pytest.raises(RefusedError, match=f"names code that would run here.*env={game}") as error:
        cli.settings(["preset=presets/own.yaml"])
    assert "coin" not in entries.imported("env")
    repeated = str(error.value).rpartition(": ")[2].rstrip(".")
    assert cli.settings(["preset=presets/own.yaml", repeated]).env.pay == 3.0
    # the same file under another spelling; the installed modifier needs no word
    assert cli.settings(["preset=presets/own.yaml", "env=./games/../games/coin.py"]).env.pay == 3.0


HARMFUL = {
    "hydra: {launcher: {_target_: os.system}}": "sets hydra's own settings",
    "defaults: [override /hydra/launcher: joblib]": "among its defaults",
    "defaults: [override /env: pettingzoo]\nenv: {id: 'os:system'}": r"on the command line: env\.id=os:system",
    "modifiers: [evil.thing]": r"modifiers=\[evil.thing\]",
    "logger: evil.thing": r"logger=\[evil.thing\]",
    "- 1": "holds no settings",
    "a: [": "cannot be read",
}


@pytest.mark.parametrize("text", HARMFUL)
def test_a_file_of_settings_is_no_way_around(site, text):
    (site.parent / "here" / "own.yaml").write_text(text)
    with pytest.raises(RefusedError, match=HARMFUL[text]):
        cli.settings(["preset=own.yaml"])


# -------------------------------------------------------------------------------------- run directories


def written(run_dir, *line):
    """A run directory as training begins it."""
    settings = cli.settings([*line, f"run_dir={run_dir}"])
    run_folder.open_run_dir(settings)
    return settings


def test_a_run_directory_says_where_entries_came_from(packages, game, tmp_path):
    registry.register("algo", "mine", SimpleNamespace(Config=Config, make=print))
    written(
        tmp_path / "run",
        "algo=mine",
        "env=games/coin.py",
        "modifiers=[plug_mod]",
        "logger=[tensorboard]",
    )
    tree = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert tree["origins"]["modifiers"] == {
        "plug_mod": {
            "how": "installed",
            "module": "plug_mod",
            "package": "plug-good",
            "version": "1.0",
        }
    }
    assert tree["origins"]["algo"]["mine"]["how"] == "python"
    file = tree["origins"]["env"]["coin"]
    assert (file["how"], file["file"], len(file["sha256"])) == ("file", str(game), 64)
    assert "logger" not in tree["origins"]
    written(tmp_path / "ours", "algo=vdn", "env=matrix", "modifiers=[differ]")
    assert "origins" not in yaml.safe_load((tmp_path / "ours" / "config.yaml").read_text())


def test_going_on_needs_the_same_code(game, tmp_path):
    line = ["algo=vdn", "env=games/coin.py", f"run_dir={tmp_path / 'run'}", "resume=auto"]
    written(tmp_path / "run", *line[:2])
    (tmp_path / "run" / "metrics.jsonl").write_text("{}\n")

    # it may lie elsewhere
    moved = game.rename(game.parent.parent / "coin.py")
    assert run_folder.open_run_dir(cli.settings([line[0], "env=coin.py", *line[2:]]))[1]

    moved.write_text(outside.GAME + "\n")
    with pytest.raises(RefusedError, match=r"env=coin was .*coin.py with sha256 .*, now .*coin.py with sha256"):
        run_folder.open_run_dir(cli.settings([line[0], "env=coin.py", *line[2:]]))
    config = tmp_path / "run" / "config.yaml"
    config.write_text("\n".join(x for x in config.read_text().splitlines() if "sha256" not in x))
    assert run_folder.open_run_dir(cli.settings([line[0], "env=coin.py", *line[2:]]))[1]


def test_going_on_imports_nothing_that_the_folder_names(game, tmp_path):
    written(tmp_path / "run", "algo=vdn", "env=games/coin.py")
    (tmp_path / "run" / "metrics.jsonl").write_text("{}\n")
    game.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    entries._imported.clear()
    with pytest.raises(RefusedError, match="env was coin, now matrix"):
        run_folder.open_run_dir(cli.settings(["algo=vdn", "env=matrix", f"run_dir={tmp_path / 'run'}", "resume=auto"]))
    assert not (tmp_path / "ran").exists()


def test_the_command_for_later_names_them(game, tmp_path):
    settings = written(tmp_path / "run", "algo=vdn", "env=games/coin.py", "modifiers=[./shrunk.py]")
    text = trust.arguments(settings)
    assert text == f" 'plugins=[{game},{game.parent.parent / 'shrunk.py'}]'"
    entries._imported.clear()
    named = cli.small_config(evaluate.Config, [f"run_dir={tmp_path / 'run'}", text.strip(" '")])
    permission = trust.Permission(named.trust, named.env, plugins=named.plugins)
    assert trust.run_settings(tmp_path / "run", permission).env.pay == 1.0


def test_a_logger_is_a_function_of_folder_names_and_settings(tmp_path):
    calls = []

    class Log:
        def __init__(self, run_dir, names, settings):
            calls.append((run_dir, names, settings))

        def write(self, run, record): ...

        def close(self): ...

    registry.register("logger", "log", Log)
    loggers.require(("log",))
    with pytest.raises(RefusedError, match=r"logger=logg is not known\. Did you mean log"):
        loggers.require(("logg",))
    assert isinstance(registry.get("logger", "log").make(tmp_path, ["seed_0"], {"run": {}}), Log)
    assert calls == [(tmp_path, ["seed_0"], {"run": {}})]
    assert registry.summary(registry.get("logger", "wandb")).startswith("Weights & Biases")

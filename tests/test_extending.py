"""docs/extending.md: its files work, and its commands do what it says."""

import json
import pathlib
import re
import shlex
import tomllib

import outside
import pytest
import tiny
import yaml

from jaxshare import cli, registry, trust
from jaxshare.api.training import arguments
from jaxshare.commands import evaluate
from jaxshare.plugins import entries

TEXT = (tiny.REPOSITORY / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.M | re.S)
COMMANDS = [line for language, block in BLOCKS if language == "sh" for line in block.splitlines()]


@pytest.fixture(autouse=True)
def page(tmp_path, monkeypatch):
    """A folder with the files of the page, as the current one."""
    for language, block in BLOCKS:
        name = block.partition("\n")[0].removeprefix("# ")
        if language != "sh" and name != "session":
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(block)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    outside.forget("my_pkg", "games")


def test_every_file_of_the_page_is_used(page):
    files = [str(path.relative_to(page)) for path in sorted(page.rglob("*.*")) if path.is_file()]
    assert files == [
        "games/matching.py", "my_pkg/best.py", "my_pkg/clipped.py", "my_pkg/weighted.py", "presets/quick.yaml",
        "pyproject.toml",
    ]  # fmt: skip
    assert len(COMMANDS) == 6
    for name in files[:-1]:
        dotted = name.removesuffix(".py").replace("/", ".")
        assert any(name in command or dotted in command for command in COMMANDS), name


def test_its_commands_are_understood():
    for command in COMMANDS:
        python, flag, module, *arguments = shlex.split(command)
        assert (python, flag) == ("python", "-m")
        if module == "jaxshare.train":
            settings = cli.settings(arguments)
            env = registry.get("env", settings.env_name).make(settings.env)
            parts = registry.get("algo", settings.algo_name).make(settings.algo, env.spec)
            for name, config in settings.modifiers.items():
                parts = registry.get("modifiers", name).make(config, parts)
            assert parts.assemble().name == settings.algo_name
        else:
            assert module == "jaxshare.evaluate"
            assert cli.small_config(evaluate.Config, arguments).plugins == ["games/matching.py"]


def test_its_logger_writes(tmp_path):
    (name,) = cli.settings(shlex.split(COMMANDS[4])[3:]).run.logger
    log = registry.get("logger", name).make(tmp_path, ["seed_0", "seed_1"], {})
    for run, score in ((0, 1.0), (1, 3.0), (0, 2.0), (0, 1.5)):
        log.write(run, {"eval/return": score})
    log.write(0, {"loss/td": 9.0})
    assert json.loads((tmp_path / "best.json").read_text()) == {"seed_0": 2.0, "seed_1": 3.0}


def test_it_tells_entries_from_trusted_imports():
    assert f"`{trust.GROUP}`" in TEXT
    assert f"`{entries.GROUPS['env']}`" in TEXT
    assert trust.GROUP not in entries.GROUPS.values()


def test_its_session_registers():
    session = next(block for language, block in BLOCKS if block.startswith("# session"))
    exec(compile(session, "session", "exec"), {})
    assert {*entries.imported("env")} == {"matching", "five"}
    lines = arguments("my_pkg.weighted", "games/matching.py", ["my_pkg.clipped"], {"limit": 2.0, "rounds": 3})
    assert lines == [
        "algo=weighted", "env=matching", "modifiers=[clipped]", "clipped.limit=2.0", "env.rounds=3",
    ]  # fmt: skip
    assert cli.settings(["algo=weighted", "env=matching", "env.choices=4"]).env.choices == 4
    assert registry.get("env", "five").make(cli.settings(["env=five"]).env).spec.action.num_actions == 5


def test_its_package_offers_what_it_says(page):
    project = tomllib.loads((page / "pyproject.toml").read_text())["project"]
    points = {group.removeprefix("jaxshare."): offers for group, offers in project["entry-points"].items()}
    assert {f"jaxshare.{group}" for group in points} < {*entries.GROUPS.values()}
    (page / "my_pkg" / "presets").mkdir()
    tree = yaml.safe_load((page / "presets" / "quick.yaml").read_text())
    tree["defaults"] = [{"override /env": "matrix"}]
    (page / "my_pkg" / "presets" / "quick.yaml").write_text(yaml.safe_dump({**tree, "env": {}}))
    outside.distribution(page, project["name"], points, project["version"])
    line = [
        "preset=mine/quick",
        "algo=weighted",
        "modifiers=[clipped]",
        "clipped.limit=2",
        "logger=[best]",
    ]
    settings = cli.settings(line)
    assert (settings.algo_name, settings.modifiers["clipped"].limit, settings.run.batch_size) == (
        "weighted",
        2.0,
        4,
    )
    assert registry.entry("logger", "best").origin.package == "my-pkg"


def test_its_rules():
    pathlib.Path("qmix.py").write_text("")
    with pytest.raises(Exception, match="rename the file"):
        cli.settings(["algo=./qmix.py"])


@pytest.mark.slow
def test_its_commands_run(page):
    for line in COMMANDS:
        _, _, module, *arguments = shlex.split(line)
        done = outside.command(module.removeprefix("jaxshare."), *arguments, cwd=page)
        assert done.returncode == 0, done.stderr
    assert "seed_0" in json.loads((page / "runs" / "fourth" / "best.json").read_text())

"""Entries that a run directory names by dotted path or file are imported by nobody's word but the user's."""

import re
import shlex
import sys

import outside
import pytest
import yaml

from jaxshare import cli, trust
from jaxshare.commands import collect, decompose, evaluate
from jaxshare.plugins import entries
from jaxshare.run import folder as run_folder
from jaxshare.types import RefusedError

KINDS = ("algo", "env", "modifiers")
HOW = ("module", "file")


@pytest.fixture(autouse=True)
def _as_before():
    yield
    outside.forget()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of modules that somebody made, and that can be imported here."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def received(folder, kind, how, algo="vdn"):
    """A run directory with one entry that leaves a file where it is imported."""
    name = f"touching_{kind}_{how}"
    (folder / f"{name}.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    where = {"module": name} if how == "module" else {"file": str(folder / f"{name}.py"), "sha256": "0" * 64}
    if how == "module":
        (folder / "theirs").mkdir(exist_ok=True)
        (folder / f"{name}.py").rename(folder / "theirs" / f"{name}.py")
        where = {"module": f"theirs.{name}"}
    tree = run_folder.plain(cli.settings([f"algo={algo}", "env=matrix"]))
    if kind == "modifiers":
        tree["modifiers"] = {name: {}}
    elif kind == "logger":
        tree["run"]["logger"] = [name]
    else:
        tree[f"{kind}_name"] = name
        tree[kind] = {}
    tree["origins"] = {kind: {name: {"how": how, **where}}}
    path = folder / "run"
    path.mkdir(exist_ok=True)
    (path / "config.yaml").write_text(yaml.safe_dump(tree))
    return path, next(iter(where.values()))


COMMANDS = {
    "evaluate": lambda path, **more: evaluate.evaluate(evaluate.Config(run_dir=str(path), **more)),
    "collect": lambda path, **more: collect.collect(collect.Config(run_dir=str(path), out=f"{path}.jds", **more)),
    "decompose": lambda path, **more: decompose.decompose(decompose.Config(run_dir=str(path), **more)),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", KINDS)
def test_a_received_run_directory_imports_nothing(folder, kind, how, command):
    path, value = received(folder, kind, how)
    with pytest.raises(RefusedError) as error:
        COMMANDS[command](path)
    for part in (str(path / "config.yaml"), value, f"plugins=[{value}]", "trust=true"):
        assert part in str(error.value)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", KINDS)
def test_at_the_users_word_it_is_imported(folder, kind, how):
    """The check is what held it back."""
    for word in ("trust=true", "plugins"):
        path, value = received(folder, kind, how)
        arguments = [word if word == "trust=true" else f"plugins=[{value}]"]
        named = cli.small_config(evaluate.Config, [f"run_dir={path}", *arguments])
        with pytest.raises(RefusedError, match="has no function make"):
            evaluate.evaluate(named)
        assert (folder / "ran").exists()
        (folder / "ran").unlink()
        for name in [name for name in sys.modules if name.startswith("theirs")]:
            del sys.modules[name]


def test_what_the_message_tells_to_repeat_is_understood(folder):
    path, value = received(folder, "env", "file")
    with pytest.raises(RefusedError) as error:
        trust.run_settings(path, trust.Permission())
    listed = str(error.value).split("command line (")[1].split(") or say")[0]
    for config in (evaluate.Config, collect.Config, decompose.Config):
        assert cli.small_config(config, [f"run_dir={path}", *shlex.split(listed)]).plugins == [value]


def test_the_loggers_of_a_run_are_not_imported_to_look_at_it(folder):
    path, _ = received(folder, "logger", "module")
    trust.run_settings(path, trust.Permission())
    assert not (folder / "ran").exists()


def test_an_installed_entry_needs_no_word(folder):
    outside.distribution(folder, "plug-offer", {"envs": {"plug_offer": "plug_offer"}}, plug_offer=outside.GAME)
    tree = run_folder.plain(cli.settings(["algo=vdn", "env=matrix"]))
    origins = (
        {"how": "installed", "module": "plug_offer", "package": "plug-offer", "version": "0.9"},
        {"how": "module", "module": "plug_offer"},
        {},
    )
    for origin in origins:
        entries._imported.clear()
        tree |= {
            "env_name": "plug_offer",
            "env": {"pay": 2.0},
            "origins": {"env": {"plug_offer": origin}},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(tree))
        assert trust.run_settings(folder, trust.Permission()).env.pay == 2.0


PACKAGE = {"how": "installed", "package": "gone-pkg", "version": "3.1"}
FILE = {"how": "file", "file": "/no/such/x.py", "sha256": "a1" * 32}
GONE = {
    "uninstalled": (PACKAGE, "package gone-pkg 3.1, which is not installed here"),
    "another's": (PACKAGE, "of the package gone-pkg, and here plug-a offers it"),
    "moved": (
        FILE,
        "/no/such/x.py (sha256 a1a1a1a1a1a1…), which is not there: name where it is now",
    ),
    "module": ({"how": "module", "module": "no_such.x"}, "No module named 'no_such'"),
    "python": (
        {"how": "python", "module": "__main__"},
        "registered in Python, by jaxshare.register: do the same",
    ),
    "unknown": ({}, "does not say where it came from"),
}


@pytest.mark.parametrize("case", GONE)
def test_what_is_not_found_again_is_told_with_what_was_used_then(folder, case):
    origin, words = GONE[case]
    name = "plug_a" if case == "another's" else "x"
    if case == "another's":
        outside.distribution(folder, "plug-a", {"envs": {"plug_a": "plug_a"}}, plug_a=outside.GAME)
    tree = run_folder.plain(cli.settings(["algo=vdn", "env=matrix"]))
    tree |= {"env_name": name, "env": {}, "origins": {"env": {name: origin}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(RefusedError, match=re.escape(words)) as error:
        trust.run_settings(folder, trust.Permission(trust=True))
    assert "\n" not in str(error.value)


def test_a_file_that_moved_or_changed(folder):
    file = folder / "coin.py"
    file.write_text(outside.GAME)
    settings = cli.settings(["algo=vdn", f"env={file}", f"run_dir={folder / 'run'}"])
    run_folder.open_run_dir(settings)
    moved = file.rename(folder / "run" / "coin.py")
    named = trust.Permission(plugins=[str(moved)])
    entries._imported.clear()
    assert trust.run_settings(folder / "run", named).env.pay == settings.env.pay

    moved.write_text(outside.GAME + "# changed\n")
    with pytest.raises(RefusedError, match=r"env=coin: .*coin.py has changed since .* say trust=true"):
        trust.run_settings(folder / "run", named)
    assert trust.run_settings(folder / "run", trust.Permission(trust=True, plugins=[str(moved)]))
    with pytest.raises(RefusedError, match=r"plugins=\[other.thing\] is nothing that .* needs: coin"):
        trust.run_settings(folder / "run", trust.Permission(plugins=["other.thing"]))


def test_texts_of_a_received_file_are_shown_with_care(folder):
    tree = run_folder.plain(cli.settings(["algo=vdn", "env=matrix"]))
    for text in ("a\x1b[2Jb.c", "x" * 1000, "a,b.c d"):
        tree |= {
            "env_name": "x",
            "env": {},
            "origins": {"env": {"x": {"how": "module", "module": text}}},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(tree))
        with pytest.raises(RefusedError) as error:
            trust.run_settings(folder, trust.Permission())
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 1000
        assert "command line" not in str(error.value)

"""Code that a run directory names is run by nobody's word but the user's."""

import ast
import dataclasses
import functools
import importlib.metadata
import shlex
import sys

import pytest
import tiny
import yaml

from jaxshare import cli, registry, trust
from jaxshare.commands import collect, decompose, evaluate
from jaxshare.run import folder as run_folder
from jaxshare.settings.help import small_help
from jaxshare.types import RefusedError

# settings of environments on the host that hold text but choose no code: names that a table of ours knows, or data
DATA = {"scenario", "reward", "state", "map_file", "representation", "ends", "difficulty", "time_limit"}


def touching(folder, name):
    """Source of a module that leaves a file when it is imported."""
    (folder / f"{name}.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    return name


def program(folder):
    """A program that leaves a file."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\necho ran > {folder / 'ran'}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder for modules."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("touching_")]:
        del sys.modules[name]


@functools.cache
def defaults(env_name, algo="vdn"):
    return cli.settings([f"algo={algo}", f"env={env_name}"])


def run_dir(folder, env_name, algo="vdn", **env):
    """A run directory as somebody else may send it."""
    chosen = defaults(env_name, algo)
    chosen = dataclasses.replace(chosen, env=dataclasses.replace(chosen.env, **env))
    path = folder / "run"
    path.mkdir(exist_ok=True)
    (path / "config.yaml").write_text(yaml.safe_dump(run_folder.plain(chosen)))
    return path


def hostile(kind, folder):
    """(environment, settings) that run code of the sender's choice."""
    touch = {"args": ["touch", str(folder / "ran")]}
    if kind == "pettingzoo":
        return "pettingzoo", {"id": "subprocess:check_output", "kwargs": touch}
    if kind == "through a module of ours":
        return "pettingzoo", {"id": "mpe2.simple_spread_v3:parallel_env.__globals__.os.system"}
    if kind == "id":
        return "gymnasium", {"id": f"{touching(folder, 'touching_id')}:Unregistered-v0"}
    if kind == "imports":
        return "gymnasium", {"imports": [touching(folder, "touching_imports")], "id": "Unregistered-v0"}
    if kind == "implementation":
        return "smac", {"implementation": f"{touching(folder, 'touching_smac')}:Game", "workers": 0}
    if kind == "sc2path":
        return "smac", {"sc2path": str(folder)}
    return "lbforaging", {"python": program(folder), "workers": 1}


KINDS = ("pettingzoo", "through a module of ours", "id", "imports", "implementation", "sc2path", "python")


@pytest.mark.parametrize("kind", KINDS)
def test_a_received_run_directory_runs_nothing(folder, kind):
    name, env = hostile(kind, folder)
    path = run_dir(folder, name, **env)
    with pytest.raises(RefusedError) as error:
        evaluate.evaluate(evaluate.Config(run_dir=str(path)))
    key, value = next(iter(env.items()))
    for part in (str(path / "config.yaml"), f"env.{key}=", "trust=true", "on the command line"):
        assert part in str(error.value)
    assert str(value).strip("[]'") in str(error.value)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("kind", ["pettingzoo", "python"])
def test_decompose_runs_nothing_either(folder, kind):
    name, env = hostile(kind, folder)
    path = run_dir(folder, name, algo="sit", **env)
    with pytest.raises(RefusedError, match="trust=true"):
        decompose.decompose(decompose.Config(run_dir=str(path), data=str(folder)))
    assert not (folder / "ran").exists()


def test_collect_asks_before_it_plays_on_the_host(folder):
    name, env = hostile("pettingzoo", folder)
    path = run_dir(folder, name, **env)
    with pytest.raises(RefusedError, match=r"names code that would run here.*trust=true"):
        collect.collect(collect.Config(run_dir=str(path), out=str(folder / "set.jds")))
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("kind", ["pettingzoo", "id", "imports", "implementation", "python"])
def test_with_trust_it_is_run(folder, kind):
    """The check is what held it back: the same directories do run code where the user says so."""
    name, env = hostile(kind, folder)
    with pytest.raises(RefusedError, match="cannot be made"):
        evaluate.evaluate(evaluate.Config(run_dir=str(run_dir(folder, name, **env)), trust=True))
    assert (folder / "ran").exists()


TEXTS = ("a b", "null", "it's", 'say "x"', "tail\\", "50%", "größe", "a,b", "{}", "", "1e3", "a=b", "#", 'a\\"')


@pytest.mark.parametrize("text", TEXTS)
def test_what_the_message_tells_to_repeat_is_understood(folder, text):
    env = {"id": "somewhere.else:Env", "kwargs": {"name": text, "sizes": [1, 2.5, True, None], "more": {"x": text}}}
    path = run_dir(folder, "pettingzoo", **env)
    with pytest.raises(RefusedError) as error:
        trust.run_settings(path, trust.Permission())
    if not text:  # still text
        assert "kwargs" in str(error.value)
    listed = str(error.value).split("command line (")[1].split(") or say trust=true")[0]
    arguments = [f"run_dir={path}", *shlex.split(listed)]
    for config in (evaluate.Config, decompose.Config):
        named = cli.small_config(config, arguments)
        assert named.env == env
        chosen = trust.run_settings(path, trust.Permission(named.trust, named.env))
        assert chosen.env.kwargs == env["kwargs"]


def test_what_cannot_be_shown_in_full_is_not_offered_for_repeating(folder):
    for text in ("a\x1b[2Jb", "x" * 1000):
        path = run_dir(folder, "pettingzoo", id="somewhere:Env", kwargs={"name": text})
        with pytest.raises(RefusedError) as error:
            trust.run_settings(path, trust.Permission())
        assert "env.kwargs (not shown)" in str(error.value)
        assert "command line" not in str(error.value)
        assert str(error.value).isprintable()
        assert trust.run_settings(path, trust.Permission(trust=True)).env.kwargs == {"name": text}


def test_the_command_line_names_what_the_file_names(folder):
    path = run_dir(folder, "pettingzoo", id="my.module:Env", kwargs={"n": 3})  # numbers name no code
    assert trust.run_settings(path, trust.Permission(env={"id": "my.module:Env"})).env.kwargs == {"n": 3}
    with pytest.raises(RefusedError, match=r"env.id=other:Env is not what .* says \(my.module:Env\)"):
        trust.run_settings(path, trust.Permission(env={"id": "other:Env"}))
    with pytest.raises(RefusedError, match=r"env.idd=x is not a setting of env=pettingzoo.*Did you mean id"):
        trust.run_settings(path, trust.Permission(env={"idd": "x"}))


@pytest.mark.parametrize(
    ("name", "env", "expected"),
    [
        ("matrix", {}, ""),
        ("pettingzoo", {}, ""),
        ("pettingzoo", {"id": "my.team:Env", "kwargs": {"size": 3}}, " env.id=my.team:Env"),
        ("pettingzoo", {"id": "my.team:Env", "kwargs": {"n": "a b"}}, """ env.id=my.team:Env 'env.kwargs={n:"a b"}'"""),
        ("gymnasium", {"imports": ["my.team"]}, " 'env.imports=[my.team]'"),
        ("pettingzoo", {"id": "my.team:Env", "kwargs": {"n": "x" * 1000}}, " trust=true"),
    ],
)
def test_the_command_that_training_ends_with_is_allowed(folder, name, env, expected):
    path = run_dir(folder, name, **env)
    chosen = trust.run_settings(path, trust.Permission(trust=True))
    assert trust.arguments(chosen) == expected
    named = cli.small_config(evaluate.Config, shlex.split(f"run_dir={path}{expected}"))
    assert trust.run_settings(path, trust.Permission(named.trust, named.env)) == chosen


def test_programs_may_lie_elsewhere_here(folder):
    path = run_dir(folder, "lbforaging", python="/home/other/bin/python", workers=1)
    chosen = trust.run_settings(path, trust.Permission(env={"python": sys.executable}))
    assert chosen.env.python == sys.executable


def test_an_installed_package_may_name_environments(folder, monkeypatch):
    offered = importlib.metadata.EntryPoint("carts", "carts.team:Env", trust.GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [offered] if group == trust.GROUP else [])
    assert trust.run_settings(run_dir(folder, "pettingzoo", id="carts.team:Env"), trust.Permission())
    assert trust.run_settings(run_dir(folder, "gymnasium", imports=["carts.team"]), trust.Permission())
    with pytest.raises(RefusedError):
        trust.run_settings(run_dir(folder, "pettingzoo", id="carts.team:Env.os.system"), trust.Permission())


@pytest.mark.parametrize(
    ("name", "env"),
    [
        ("matrix", {}),
        ("pettingzoo", {}),
        ("pettingzoo", {"id": "mpe2.simple_speaker_listener_v4:parallel_env", "kwargs": {"render_mode": "rgb_array"}}),
        ("gymnasium", {}),
        ("gymnasium", {"id": "Foraging-8x8-2p-2f-coop-v3", "imports": ["lbforaging"], "kwargs": {"render_mode": "x"}}),
        ("lbforaging", {"scenario": "10x10-3p-3f", "kwargs": {"sight": 2}}),
        ("rware_host", {"kwargs": {"layout": "x.g"}}),
        ("smac", {"kwargs": {"difficulty": "3"}}),
        ("jaxmarl", {"id": "overcooked", "kwargs": {"layout": "cramped_room"}}),
    ],
)
def test_what_jaxshare_names_itself_needs_no_word(folder, name, env):
    chosen = trust.run_settings(run_dir(folder, name, **env), trust.Permission())
    assert chosen.env == dataclasses.replace(chosen.env, **env)


HOSTS = [name for name, module in registry.modules("env").items() if getattr(module, "HOST", False)]


@pytest.mark.parametrize("name", HOSTS)
def test_every_text_of_an_environment_on_the_host_is_data_or_asked_for(folder, name):
    config = registry.get("env", name).Config
    for field in dataclasses.fields(config):
        value = getattr(config(), field.name)
        if isinstance(value, bool | int | float) or value is None or field.name in DATA:
            continue
        other = {"strange": "text"} if isinstance(value, dict) else ["strange"] if isinstance(value, list) else "a:b"
        if field.name == "kwargs":
            others = [f for f in ("id", "implementation") if hasattr(config, f)]
            strange = config(**dict.fromkeys(others, "strange:thing"), kwargs=other)
            known = name in ("lbforaging", "rware_host")  # packages of ours, which import none of their arguments
        else:
            strange, known = config(**{field.name: other}), False
        settings = dataclasses.replace(defaults(name), env=strange)
        assert (field.name in trust.foreign_settings(settings)) != known, field.name


# ------------------------------------------------------------------------------------------------------------- readers


@functools.cache
def sources(*folders):
    paths = [path for folder in folders for path in sorted((tiny.REPOSITORY / folder).rglob("*.py"))]
    return {str(path.relative_to(tiny.REPOSITORY)): ast.parse(path.read_text()) for path in paths}


def names(tree):
    """Every name and attribute of a file."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Attribute | ast.alias)]
    return {getattr(node, "id", None) or getattr(node, "attr", None) or node.name for node in nodes}


def test_settings_of_a_file_are_read_in_one_place():
    files = sources("jaxshare", "benchmarks")
    assert {name for name, tree in files.items() if "from_plain" in names(tree)} == {"jaxshare/run/folder.py"}
    readers = {name for name, tree in files.items() if "read_settings" in names(tree)}
    # the one that asks for permission; that which compares them with the command line's; and reports
    assert readers == {"jaxshare/trust.py", "jaxshare/run/folder.py", "jaxshare/run/saved.py"}
    for name, tree in sources("jaxshare/results").items():
        assert not names(tree) & {"prepare", "make_env", "make_algorithm", "Program"}, name  # which only compares them


# compiled programs, which are code in any case: those of the same user, whom tests/run/test_programs.py asks for
OWN_PROGRAMS = "jaxshare/run/programs.py"


def test_nothing_is_unpickled():
    for name, tree in sources("jaxshare").items():
        if name == OWN_PROGRAMS:
            continue
        imports = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not imports & {"pickle", "marshal", "shelve", "dill", "cloudpickle"}, name
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "allow_pickle"
                    and not (isinstance(node.value, ast.Constant) and node.value.value is False)], name  # fmt: skip


def test_the_help_explains_both_ways():
    for module in (evaluate, decompose):
        text = small_help(module.HELP, module.Config)
        assert "trust=false" in text
        assert "env.id=mymodule:Env" in text

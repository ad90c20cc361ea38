"""What people's machines and shells do to a command: it works, or one sentence says what is wrong."""

import ast
import io
import pathlib
import subprocess
import sys

import jax
import pytest
import tiny
from rich.table import Table

from jaxshare import cli, registry, surroundings, terminal
from jaxshare.run import build
from jaxshare.run.console import Console
from jaxshare.types import RefusedError

PACKAGE = tiny.REPOSITORY / "jaxshare"
COMMANDS = ("train", "evaluate", "collect", "decompose", "report", "list")
MARKUP = "runs/[/a] [bold] [red]größe[/red] :smile: \\[x]"


# ------------------------------------------------------------------------------------------ streams


def stream(encoding, errors="strict"):
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors)


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", "a ... -> - \\xdf \\u6d4b \\udcff"),
        ("latin-1", "a ... -> - \xdf \\u6d4b \\udcff"),
        ("utf-8", "a … → − ß 测 \\udcff"),
    ],
)
@pytest.mark.parametrize("errors", ["strict", "surrogateescape", "backslashreplace"])
def test_what_a_stream_cannot_show_is_shown_otherwise(encoding, shown, errors):
    out = stream(encoding, errors)
    surroundings.make_tolerant(out)
    out.write("a … → − ß 测 \udcff")
    out.flush()
    assert out.buffer.getvalue().decode(encoding) == shown


def test_what_a_user_chose_for_a_stream_stays():
    out = stream("ascii", "replace")
    surroundings.make_tolerant(out)
    assert out.errors == "replace"
    for other in (None, io.StringIO(), object()):
        surroundings.make_tolerant(other)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_makes_its_streams_tolerant(command, monkeypatch):
    module = __import__(f"jaxshare.{command}", fromlist=["main"])
    out, err = stream("ascii"), stream("ascii")
    for name, value in (("stdout", out), ("stderr", err), ("argv", [command, "größe…"])):
        monkeypatch.setattr(sys, name, value)
    if command == "report":
        monkeypatch.setattr(sys, "argv", [command, "größe…=1"])
    with pytest.raises(SystemExit):
        module.main()
    err.flush()
    assert b"gr\\xf6\\xdfe..." in err.buffer.getvalue()
    monkeypatch.setattr(sys, "argv", [command, "--help"])
    module.main()
    out.flush()
    assert b"usage: python -m jaxshare." in out.buffer.getvalue()


# ------------------------------------------------------------------------------------------- markup


def test_consoles_are_opened_in_one_place():
    """So no text of people is markup anywhere: not in lines, tables, titles or progress bars."""
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        if path.name != "terminal.py":
            names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
            modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
            assert not modules & {"rich.console", "rich.markup"}, path
            assert not names & {"from_markup"}, path
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "TextColumn":
                assert any(keyword.arg == "markup" for keyword in node.keywords), path


def test_text_is_shown_as_it_stands(capsys):
    console = terminal.open_console()
    console.print(MARKUP)
    table = Table(MARKUP, title=MARKUP)
    table.add_row(MARKUP)
    console.print(table)
    assert capsys.readouterr().out.count(MARKUP) == 4


def test_the_console_of_a_run_shows_any_path(capsys, tmp_path):
    settings = tiny.settings(MARKUP, *tiny.PLAIN)
    program, layout = build.lay_out(settings)
    console = Console(settings.run, program)
    console.start(settings, program, layout, 10**9, pathlib.Path(MARKUP), resuming=False)
    console.warn(MARKUP)
    record = {"seed": 0, "env_steps": 4, "updates": 1, "wall_s": 1.0, "eval/return": 1.0, "eval/length": 2.0}
    folder = tmp_path / "[/a]"
    folder.mkdir(parents=True)
    console.finish([record], folder)
    out = capsys.readouterr().out
    assert f"Writing to {MARKUP}" in out
    assert f"note: {MARKUP}" in out
    assert f"run_dir={folder}'" in out  # quoted for a shell


# ------------------------------------------------------------------------------------------ modules


def test_the_current_folder_is_seen_unless_python_is_told_not_to(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["/usr/lib"])
    surroundings.see_current_folder()
    surroundings.see_current_folder()
    assert sys.path == ["/usr/lib", str(tmp_path)]
    for before in ([""], [str(tmp_path), "/usr/lib"]):
        monkeypatch.setattr(sys, "path", [*before])
        surroundings.see_current_folder()
        assert sys.path == before
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(sys, "path", [])
    surroundings.see_current_folder()
    assert sys.path == []


def run(code, *flags, cwd=tiny.REPOSITORY, **variables):
    environment = {**tiny.ENVIRONMENT, "PYTHONPATH": str(tiny.REPOSITORY), **variables}
    command = [sys.executable, *flags, "-c", code]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, timeout=300)


# as a console script does: the folder of the script is the first of sys.path
SCRIPT = """
import sys
sys.path = [p for p in sys.path if p != ""]
sys.argv = ["jaxshare-{command}", *{arguments}]
from jaxshare.{command} import main
main()
"""


@pytest.mark.parametrize(("flags", "found"), [((), True), (("-P",), False)])
def test_a_console_script_finds_modules_of_the_current_folder(tmp_path, flags, found):
    (tmp_path / "own_team.py").write_text("def parallel_env(**options):\n    raise KeyError('own team was called')\n")
    arguments = ["env=pettingzoo", "env.id=own_team", "algo=iql"]
    done = run(SCRIPT.format(command="train", arguments=arguments), *flags, cwd=tmp_path)
    assert done.returncode == 1
    assert (b"own team was called" in done.stderr) == found
    assert (b"No module named" in done.stderr) != found
    assert b"Traceback" not in done.stderr


# -------------------------------------------------------------------------------------------- files


def test_the_limit_of_open_files_is_raised_or_refused(monkeypatch):
    resource = pytest.importorskip("resource")
    limits = {"now": (32, 256)}
    monkeypatch.setattr(resource, "getrlimit", lambda what: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda what, new: limits.update(now=new))
    assert surroundings.allow_files() == 256
    assert limits["now"] == (256, 256)
    limits["now"] = (2**16, 2**17)
    assert surroundings.allow_files() == 2**16  # never lowered
    for unlimited in (resource.RLIM_INFINITY,):
        limits["now"] = (64, unlimited)
        assert surroundings.allow_files() == surroundings.WANTED_FILES
    limits["now"] = (32, 32)
    with pytest.raises(RefusedError, match=r"only 32 files .* ulimit -n 4096"):
        surroundings.check_machine()


# ---------------------------------------------------------------------------------------------- JAX


def test_64_bits_are_refused_in_one_sentence():
    jax.config.update("jax_enable_x64", True)
    try:
        with pytest.raises(RefusedError, match="jax_enable_x64 is on"):
            build.prepare(tiny.settings("unused", *tiny.PLAIN))
    finally:
        jax.config.update("jax_enable_x64", False)


def test_a_command_turns_64_bits_off(capsys):
    jax.config.update("jax_enable_x64", True)
    try:
        cli.run_command(lambda: print("x64 is", jax.config.jax_enable_x64))
    finally:
        jax.config.update("jax_enable_x64", False)
    out, err = capsys.readouterr()
    assert out == "x64 is False\n"
    assert err.count("\n") == 1
    assert "JAX_ENABLE_X64" in err


@pytest.mark.parametrize(
    "error", [AssertionError(), RuntimeError("Unable to initialize backend 'tpu': no libtpu.so (set JAX_PLATFORMS='')")]
)
def test_devices_that_are_not_there(monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setattr(jax, "devices", fail)
    with pytest.raises(RefusedError, match=r"JAX_PLATFORMS=cpu: JAX cannot start on it \(.*\)\. Unset JAX_PLATFORMS"):
        surroundings.check_machine()


# -------------------------------------------------------------------------------- python -O and -OO


def test_summaries_do_not_need_docstrings(monkeypatch):
    for kind in registry.KINDS:
        for module in registry.modules(kind).values():
            first = module.__doc__.strip().splitlines()[0]
            monkeypatch.setattr(module, "__doc__", None)
            assert registry.summary(module) == first


def test_nobody_reads_docstrings_or_guards_by_assert():
    """`python -OO` has neither: an assert may tell types to readers and to mypy, not refuse what a person said."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            assert getattr(node, "attr", "") != "__doc__", path
            if isinstance(node, ast.Assert):
                test = ast.unparse(node.test)
                assert test.startswith("isinstance(") or test.endswith(" is not None"), (path, test)


def test_hydra_reads_the_same_without_asserts():
    """It steps over marks of its grammar within asserts."""
    code = "from jaxshare.spelling import parse; print([parse(f'k={x}').value() for x in %r])"
    values = ["{a:[0,8],b:{c:1}}", "int(3)", "[1,{x:2}]", "float(2)", "{}"]
    done = run(code % (values,), "-OO")
    assert done.stdout.strip() == str([{"a": [0, 8], "b": {"c": 1}}, 3, [1, {"x": 2}], 2.0, {}]).encode()


EVERYTHING = """
import sys, pathlib
from jaxshare.commands import collect, convert, decompose, evaluate, list, report, train
sizes = {sizes}
for command, *arguments in (
    ["list"],
    ["train", "run_dir=runs/größe [/a]", *sizes],
    ["evaluate", "run_dir=runs/größe [/a]", "episodes=4"],
    ["report", "runs/größe [/a]", "out=re,port", "resamples=1e2", "ranges={{matrix/two_step:[0,8]}}"],
    *([name, "--help"] for name in ("train", "evaluate", "collect", "decompose", "report", "list", "convert")),
):
    sys.argv = [command, *arguments]
    globals()[command].main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "variables"),
    [
        (("-OO",), {}),
        ((), {"PYTHONIOENCODING": "latin-1"}),
        ((), {"PYTHONIOENCODING": "ascii"}),
        (("-P",), {"JAX_ENABLE_X64": "1"}),
        ((), {"HOME": "/nonexistent", "LC_ALL": "C", "PYTHONSAFEPATH": "1", "TERM": "dumb"}),
    ],
)
def test_every_command_works(flags, variables, tmp_path):
    done = run(EVERYTHING.format(sizes=list(tiny.PLAIN)), *flags, cwd=tmp_path, **variables)
    assert done.returncode == 0, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert (tmp_path / "runs" / "größe [" / "a]" / "evaluation.json").exists()
    assert (tmp_path / "re,port" / "report.html").exists()


@pytest.mark.slow
def test_64_bits_change_no_result(tmp_path):
    for name, variables in (("plain", {}), ("wide", {"JAX_ENABLE_X64": "1"})):
        arguments = [f"run_dir={tmp_path / name}", *tiny.PLAIN]
        assert run(SCRIPT.format(command="train", arguments=arguments), **variables).returncode == 0
    assert tiny.records(tmp_path / "plain") == tiny.records(tmp_path / "wide")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "variables", "words"),
    [
        ("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))", {}, b"only 32 files may be open"),
        ("", {"JAX_PLATFORMS": "tpu"}, b"JAX_PLATFORMS=tpu: JAX cannot start on it"),
    ],
)
def test_a_machine_that_cannot(start, variables, words, tmp_path):
    arguments = [f"run_dir={tmp_path / 'run'}", *tiny.PLAIN]
    done = run(f"{start}\n{SCRIPT.format(command='train', arguments=arguments)}", **variables)
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.count(b"\n") == 1, done.stderr.decode()
    assert not (tmp_path / "run").exists()

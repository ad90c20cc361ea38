"""Compiled programs that are kept: what they depend on, and who may have written them."""

import dataclasses
import importlib
import os
import subprocess
import sys

import jax
import pytest
import tiny

from jaxshare.run import programs
from jaxshare.run.train import train
from jaxshare.surroundings import processor
from jaxshare.training.program import Program

RUN = ("algo=vdn", "env=matrix", "env.game=climbing", *tiny.SIZES, "total_env_steps=48")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where JAX keeps what it compiles, which nobody else has."""
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "cache"))
    yield tmp_path / "cache" / programs.FOLDER
    jax.config.update("jax_compilation_cache_dir", before)


def command(run_dir, *arguments):
    """As the command trains, in this process."""
    return train(tiny.settings(run_dir, *RUN, *arguments), at_once=True)


def store(*arguments):
    return programs.kept_by(tiny.settings("run", *RUN, *arguments), tuple(jax.devices()[:1]))


def traced(*args):
    raise AssertionError("it was traced")


@pytest.fixture
def same_files(monkeypatch):
    """As in a process of its own: here more is imported from start to start."""
    monkeypatch.setattr(programs, "_files", list)


def test_a_second_start_traces_nothing_and_computes_the_same(folder, same_files, tmp_path, monkeypatch):
    first = command(tmp_path / "first")
    for name in ("chunk", "prefill", "evaluate"):
        monkeypatch.setattr(Program, name, traced)
    assert tiny.records(command(tmp_path / "second")) == tiny.records(first)
    with pytest.raises(AssertionError, match="it was traced"):
        command(tmp_path / "third", "batch_size=2")  # another program


def test_a_run_that_goes_on_takes_them_too(folder, same_files, tmp_path, monkeypatch):
    whole = command(tmp_path / "whole")
    train(tiny.settings(tmp_path / "half", *RUN), max_chunks=1, at_once=True)
    monkeypatch.setattr(Program, "chunk", traced)
    command(tmp_path / "half", "resume=auto")
    assert tiny.records(tmp_path / "half") == tiny.records(whole)


def test_a_script_keeps_none(folder, tmp_path):
    tiny.train(tmp_path / "run", *RUN)
    assert not folder.exists()


def test_what_they_depend_on(folder, tmp_path, monkeypatch):
    name = store().name
    assert store("seed=5", "run_dir=elsewhere", "progress=true").name == name
    for other in ("seeds=2", "algo.hidden_dim=16", "env.game=penalty", "eval.every=8", "algo.hparams.lr=0.1"):
        assert store(other).name != name
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    assert store().name != name
    monkeypatch.undo()

    # any file that was imported by then, such as one of an environment's package
    (tmp_path / "of_some_package.py").write_text("x = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("of_some_package")
    with_it = store().name
    (tmp_path / "of_some_package.py").write_text("x = 12")
    assert len({name, with_it, store().name}) == 3
    del sys.modules["of_some_package"]


def test_where_none_are_kept(folder, monkeypatch):
    settings = tiny.settings("run", *RUN)
    devices = tuple(jax.devices()[:1])
    assert programs.kept_by(settings, devices)
    assert programs.kept_by(dataclasses.replace(settings, algo_name="somebodys"), devices) is None
    jax.config.update("jax_compilation_cache_dir", None)
    assert programs.kept_by(settings, devices) is None


@pytest.fixture
def written(folder):
    """A program in its file."""
    ours = store()
    compiled = jax.jit(lambda x: x + 1).lower(jax.ShapeDtypeStruct((3,), "float32")).compile()
    ours.write("plus", compiled)
    assert ours.read("plus")(jax.numpy.zeros(3)).tolist() == [1, 1, 1]
    (path,) = folder.iterdir()
    return ours, path


def test_one_that_jax_has_read_from_its_own_folder_is_not_kept(folder, monkeypatch):
    """XLA writes it without some of its code, and it fails when it is called."""
    names = ("jax_persistent_cache_min_compile_time_secs", "jax_persistent_cache_min_entry_size_bytes")
    before = {name: jax.config.values[name] for name in names}
    for name in names:
        jax.config.update(name, 0)
    try:
        for _ in range(2):
            jax.clear_caches()
            lowered = jax.jit(lambda x: jax.numpy.sin(x) @ x).lower(jax.ShapeDtypeStruct((50, 50), "float32"))
            found = store().made("plus", lowered)
            assert found(jax.numpy.zeros((50, 50))).sum() == 0
            again = store().read("plus")
            for path in folder.glob("*"):
                path.unlink()
        assert again is None
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def test_nobody_else_may_write_them(folder):
    before = os.umask(0o002)  # files of a group, as some systems have it
    try:
        ours = store()
        ours.write("plus", jax.jit(lambda x: x + 1).lower(jax.ShapeDtypeStruct((3,), "float32")).compile())
    finally:
        os.umask(before)
    assert ours.read("plus")
    assert all(path.stat().st_mode & 0o077 == 0 for path in (folder, *folder.iterdir()))


def test_a_damaged_one_is_passed_over(written):
    ours, path = written
    content = path.read_bytes()
    for damaged in (b"", content[:40], content[:-1], content[:-1] + bytes([content[-1] ^ 1])):
        path.write_bytes(damaged)
        assert ours.read("plus") is None
    assert ours.read("another") is None


@pytest.mark.parametrize("at", ["file", "folder"])
def test_one_that_somebody_else_may_have_written_is_not_run(written, at):
    ours, path = written
    (path if at == "file" else path.parent).chmod(0o770)
    assert ours.read("plus") is None


def test_the_oldest_make_room(written, monkeypatch):
    ours, path = written
    monkeypatch.setattr(programs, "MOST_KEPT", int(2.5 * path.stat().st_size))
    compiled = ours.read("plus")
    for number, name in enumerate("ab"):
        os.utime(path, (1, 1))
        ours.write(name, compiled) if number else path.touch()
    os.utime(path, (1, 1))
    ours.write("c", compiled)
    assert not path.exists()
    assert ours.read("c")


def test_commands_keep_what_they_compile_without_being_asked(tmp_path):
    code = "import jax; from jaxshare import surroundings; surroundings.prepare_process(); "
    code += "print(jax.config.values['jax_compilation_cache_dir'])"
    surroundings = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}
    for variables, expected in (
        ({"XDG_CACHE_HOME": str(tmp_path)}, str(tmp_path / "jaxshare")),
        ({"XDG_CACHE_HOME": str(tmp_path), "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "own")}, str(tmp_path / "own")),
    ):
        told = subprocess.run(
            [sys.executable, "-c", code], env={**surroundings, **variables}, capture_output=True, text=True, check=True
        )
        assert told.stdout.startswith(expected)


def test_a_processor_has_a_name():
    assert len(processor()) > 3

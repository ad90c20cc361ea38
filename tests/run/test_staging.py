"""Runs in an object store: fetched, sent at checkpoints, and whole whatever a kill leaves there."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny

pytest.importorskip("fsspec")
from jaxshare.run import staging
from jaxshare.run.staging import LIST, Staged
from jaxshare.types import RefusedError

URL = "memory://runs/one"


@pytest.fixture
def url(tmp_path, monkeypatch):
    """A store in memory, which this process alone sees, emptied afterwards."""
    import fsspec

    monkeypatch.setenv(staging.SCRATCH, str(tmp_path / "scratch"))
    yield URL
    fsspec.filesystem("memory").store.clear()


def begun(url, folder, **files):
    """A run in the store with these files."""
    staged = Staged(url, folder)
    staged.fetch()
    staged.claim()
    for name, text in files.items():
        (folder / name).write_text(text)
    staged.send()
    return staged


def test_what_is_sent_is_fetched_elsewhere(url, tmp_path):
    first = begun(url, tmp_path / "here", log="one\n", old="x")
    (tmp_path / "here" / "deep").mkdir()
    (tmp_path / "here" / "deep" / "file").write_bytes(b"\0\1")
    (tmp_path / "here" / "log").write_text("one\ntwo\n")
    (tmp_path / "here" / "old").unlink()
    (tmp_path / "here" / staging.LOCK).write_text("who trains here is nobody's business there")
    first.send()
    there = tmp_path / "there"
    Staged(url, there).fetch()
    names = sorted(path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file())
    assert names == ["deep/file", "log"]
    assert (there / "log").read_text() == "one\ntwo\n"
    assert (there / "deep" / "file").read_bytes() == b"\0\1"


class Killed(BaseException):
    """What ends a process in the middle of a write."""


@pytest.mark.parametrize("kind", ["memory", "file"])
@pytest.mark.parametrize("fatal", range(4))
def test_a_kill_at_any_file_leaves_what_goes_on(url, tmp_path, monkeypatch, kind, fatal):
    """The file itself is cut off where a store lets it grow under its name."""
    import fsspec

    url = url if kind == "memory" else (tmp_path / "store").as_uri()
    files = {"metrics.jsonl": "one\n", "settings": "a long text", "versions": "1"}
    staged = begun(url, tmp_path / "here", **files)
    for name, text in {"metrics.jsonl": "one\ntwo\n", "settings": "short", "versions": "12345"}.items():
        (tmp_path / "here" / name).write_text(text)
    store = type(fsspec.core.url_to_fs(url)[0])
    whole = store.put_file
    sent = []

    def put(self, here, there, **options):
        sent.append(there)
        if len(sent) <= fatal:
            return whole(self, here, there, **options)
        if kind == "file":
            with open(here, "rb") as source, open(there, "wb") as target:
                target.write(source.read()[:1])
        raise Killed

    monkeypatch.setattr(store, "put_file", put)
    with pytest.raises(Killed):
        staged.send()
    monkeypatch.undo()
    monkeypatch.setenv(staging.SCRATCH, str(tmp_path / "scratch"))
    Staged(url, tmp_path / "there").fetch()
    assert (tmp_path / "there" / "metrics.jsonl").read_text() == "one\n"
    assert (tmp_path / "there" / "settings").read_text() in ("a long text", "short")
    assert (tmp_path / "there" / "versions").read_text() in ("1", "12345")


def test_a_part_of_a_checkpoint_that_is_not_what_was_sent_is_refused(url, tmp_path):
    import fsspec

    begun(url, tmp_path / "here", log="one\n")
    part = tmp_path / "here" / "checkpoints" / "1" / "data"
    part.parent.mkdir(parents=True)
    part.write_text("weights")
    staged = begun(url, tmp_path / "here2")
    staged.folder.joinpath("checkpoints", "1").mkdir(parents=True)
    staged.folder.joinpath("checkpoints", "1", "data").write_text("weights")
    staged.send()
    fsspec.filesystem("memory").pipe_file("/runs/one/checkpoints/1/data", b"weights and more")
    with pytest.raises(RefusedError, match="data has 16 bytes, and had 7"):
        Staged(url, tmp_path / "there").fetch()


def test_only_what_has_changed_is_sent(url, tmp_path, monkeypatch):
    staged = begun(url, tmp_path / "here", log="one\n", other="x")
    sent = []
    monkeypatch.setattr(Staged, "_put", lambda self, path, name: sent.append(name))
    (tmp_path / "here" / "log").write_text("one\ntwo\n")
    staged.send()
    assert sent == ["log", LIST]


def test_what_a_kill_left_unfinished_does_not_count(url, tmp_path, monkeypatch):
    staged = begun(url, tmp_path / "here", **{"metrics.jsonl": "one\n"})
    monkeypatch.setattr(Staged, "_write_list", lambda self, sizes: None)  # the kill comes before
    (tmp_path / "here" / "metrics.jsonl").write_text("one\ntwo\n")
    (tmp_path / "here" / "new").write_text("x")
    staged.send()
    monkeypatch.undo()
    monkeypatch.setenv(staging.SCRATCH, str(tmp_path / "scratch"))
    Staged(url, tmp_path / "there").fetch()
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["metrics.jsonl"]
    assert (tmp_path / "there" / "metrics.jsonl").read_text() == "one\n"


def test_who_was_taken_over_sends_nothing_more(url, tmp_path):
    first = begun(url, tmp_path / "here", log="one\n")
    begun(url, tmp_path / "there", log="one\ntwo\n")
    (tmp_path / "here" / "log").write_text("mine")
    with pytest.raises(RefusedError, match=f"run_dir={URL} was taken over"):
        first.send()
    first.send_if_claimed()
    Staged(url, tmp_path / "third").fetch()
    assert (tmp_path / "third" / "log").read_text() == "one\ntwo\n"


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside"])
def test_a_list_that_leads_elsewhere_is_refused(url, tmp_path, name):
    import fsspec

    text = json.dumps({"token": "", "files": {name: 1}})
    fsspec.filesystem("memory").pipe_file(f"/runs/one/{LIST}", text.encode())
    with pytest.raises(RefusedError, match="no file of a run"):
        Staged(url, tmp_path / "here").fetch()


def test_an_unknown_store_is_refused(tmp_path):
    with pytest.raises(RefusedError, match="run_dir=nowhere://x"):
        Staged("nowhere://x", tmp_path)


def arguments(url, total=64, **others):
    more = [f"{name}={value}" for name, value in others.items()]
    fixed = ["algo=vdn", "env=matrix", "env.game=climbing", "eval.every=32", "progress=false", "checkpoint.every=16"]
    return [*fixed, f"total_env_steps={total}", f"run_dir={url}", *more]


def records(text):
    rows = [json.loads(line) for line in text.splitlines()]
    return [{key: value for key, value in row.items() if key != "wall_s"} for row in rows]


def test_a_run_in_memory_has_the_bits_of_one_here(url, tmp_path):
    """And goes on there, from a machine that has nothing of it."""
    tiny.train(tmp_path / "plain", *tiny.PLAIN)
    half = tiny.train(url, *tiny.PLAIN, "resume=auto", max_chunks=1)
    assert half.is_relative_to(tmp_path / "scratch")
    os.rename(tmp_path / "scratch", tmp_path / "lost")
    whole = tiny.train(url, *tiny.PLAIN, "resume=auto")
    assert tiny.records(whole) == tiny.records(tmp_path / "plain")
    with pytest.raises(RefusedError, match="resume=auto"):
        tiny.train(url, *tiny.PLAIN)


def wait_for_checkpoints(path):
    """Until the list in the store names the second one."""
    until = time.monotonic() + 240
    while time.monotonic() < until:
        if path.is_file():
            names = json.loads(path.read_text())["files"]
            if len({name.split("/")[1] for name in names if name.startswith("checkpoints/")}) > 1:
                return
        time.sleep(0.1)
    raise AssertionError("no checkpoint was sent")


@pytest.mark.slow
def test_a_killed_run_goes_on_from_what_was_sent(tmp_path):
    """kill -9 of the whole command, and the scratch folder is lost with its machine."""
    store = (tmp_path / "store").as_uri()
    reference = tmp_path / "plain"
    environment = {**os.environ, staging.SCRATCH: str(tmp_path / "scratch")}
    command = [sys.executable, "-m", "jaxshare.train"]
    total = 20_000
    for run_dir in (reference, f"{store}/run"):
        process = subprocess.Popen(
            [*command, *arguments(run_dir, total, resume="auto", **{"checkpoint.every": 1000})], env=environment
        )
        if run_dir == reference:
            assert process.wait(300) == 0
            continue
        path = tmp_path / "store" / "run" / LIST
        wait_for_checkpoints(path)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len((tmp_path / "store" / "run" / "metrics.jsonl").read_text()) > 0
    environment[staging.SCRATCH] = str(tmp_path / "another")
    again = [*command, *arguments(f"{store}/run", total, resume="auto", **{"checkpoint.every": 1000})]
    subprocess.run(again, env=environment, check=True, timeout=300)
    whole = (tmp_path / "store" / "run" / "metrics.jsonl").read_text()
    assert records(whole) == records((reference / "metrics.jsonl").read_text())
    assert np.isfinite([row["wall_s"] for row in map(json.loads, whole.splitlines())]).all()

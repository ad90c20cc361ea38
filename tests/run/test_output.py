"""Commands show what they found even if it cannot be written, and try a place that was named before the work."""

import errno
import json
import sys

import pytest
import tiny

from jaxshare import durable
from jaxshare.commands import collect, decompose, evaluate, report
from jaxshare.evaluation import scores
from jaxshare.run import folder, output, saved
from jaxshare.run.checkpoint.contents import Restored
from jaxshare.types import RefusedError

RUNS = [{"seed": 0, "env_steps": 64, "return": 7.125, "return_std": 0.5, "length": 2.0}]
MEAN = {"env_steps": 64.0, "return": 7.125, "length": 2.0}


@pytest.fixture
def evaluated(tmp_path, monkeypatch, capsys):
    """The command on a run whose episodes are not played: (exit status, stdout, stderr, whether it played)."""
    run_dir = tmp_path / "run"
    folder.open_run_dir(tiny.settings(run_dir, *tiny.PLAIN))
    played = []

    def play(*_):
        played.append(True)
        return {"runs": RUNS, "mean": MEAN}

    monkeypatch.setattr(saved.SavedRun, "restored", Restored(3, {}, None, [None]))
    monkeypatch.setattr(scores, "play", play)

    def run(*arguments):
        played.clear()
        monkeypatch.setattr(sys, "argv", ["evaluate", f"run_dir={run_dir}", *arguments])
        code = 0
        try:
            evaluate.main()
        except SystemExit as stopped:
            code = stopped.code
        return code, *capsys.readouterr(), bool(played)

    run.run_dir = run_dir
    return run


def read_only(monkeypatch):
    def refuse(path, content):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(durable, "write_bytes", refuse)


def test_evaluate_shows_first_and_goes_on_without_its_file(evaluated, monkeypatch):
    read_only(monkeypatch)
    code, shown, errors, _ = evaluated()
    assert (code, errors) == (0, "")
    note = f"note: {evaluated.run_dir / 'evaluation.json'} could not be written (Read-only file system); out=…"
    assert shown.index("7.125") < shown.index(note)
    assert not (evaluated.run_dir / "evaluation.json").exists()


def test_another_place(evaluated, tmp_path):
    before = tiny.files(evaluated.run_dir)
    out = tmp_path / "new" / "found.json"
    code, shown, _, _ = evaluated(f"out={out}")
    assert code == 0
    assert f"written: {out}" in shown
    assert json.loads(out.read_text())["runs"] == RUNS
    assert tiny.files(evaluated.run_dir) == before


@pytest.mark.parametrize("key", ["out", "gif", "picture"])
def test_a_named_place_is_tried_before_anything_is_played(evaluated, tmp_path, key):
    (tmp_path / "file").touch()
    for where in (tmp_path / "file" / "x", tmp_path):
        code, _, errors, played = evaluated(f"{key}={where}")
        assert (code, played) == (1, False)
        assert errors.startswith(f"error: {key}={where} cannot be written (")
        assert errors.count("\n") == 1


def test_a_named_place_that_fails_later_is_an_error_after_the_table(evaluated, monkeypatch, tmp_path):
    read_only(monkeypatch)
    code, shown, errors, _ = evaluated(f"out={tmp_path / 'found.json'}")
    assert code == 1
    assert "7.125" in shown
    assert errors.startswith(f"error: out={tmp_path / 'found.json'} cannot be written (Read-only file system)")


def test_a_link_is_replaced_and_not_followed(evaluated, tmp_path):
    (tmp_path / "precious").write_text("precious")
    (evaluated.run_dir / "evaluation.json").symlink_to(tmp_path / "precious")
    assert evaluated()[0] == 0
    assert (tmp_path / "precious").read_text() == "precious"
    assert json.loads((evaluated.run_dir / "evaluation.json").read_text())["runs"] == RUNS


def test_a_run_that_is_locked_can_be_evaluated(evaluated):
    lock = folder.Lock(evaluated.run_dir)
    assert evaluated()[0] == 0
    lock.release()


def fail(*_):
    pytest.fail("the work was begun")


def test_collect_tries_its_place_before_it_measures(evaluated, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(collect, "_collect", fail)
    with pytest.raises(RefusedError, match=r"^out=.*x\.jds cannot be written"):
        collect.collect(collect.Config(run_dir=str(evaluated.run_dir), out=str(tmp_path / "file" / "x.jds")))


def test_report_tries_its_place_before_it_computes(evaluated, monkeypatch, tmp_path):
    from jaxshare.results import numbers

    rows = [{"seed": 0, "env_steps": 32 * i, "updates": i, "wall_s": 1.0, "eval/return": float(i)} for i in (1, 2)]
    (evaluated.run_dir / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    monkeypatch.setattr(numbers, "make", fail)
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "report"):
        with pytest.raises(RefusedError, match=r"^out=.* cannot be written"):
            report.report(report.Config(runs=[str(evaluated.run_dir)], out=str(out)))


def test_decompose_tries_its_place_before_it_restores(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(saved.SavedRun, "restored", property(fail))
    config = decompose.Config(run_dir=str(tmp_path), out=str(tmp_path / "file" / "x.json"))
    with pytest.raises(RefusedError, match=r"^out=.* cannot be written"):
        decompose._out(config)


def test_every_file_that_a_command_adds_to_a_run_directory_replaces_links():
    """They are written by jaxshare.durable: nothing else there opens a file of a given name for writing."""
    users = {}
    run = tuple(f"run/{part}" for part in ("training", "saver", "folder", "metrics", "loggers", "console"))
    commands = ("commands/evaluate", "commands/decompose", "decomposition/result")
    for name in (*run, *commands, "results/learning_curve"):
        source = (tiny.REPOSITORY / "jaxshare" / f"{name}.py").read_text()
        found = [call for call in (".write_text(", ".write_bytes(", "savefig(run_dir", '"w"', "'w'") if call in source]
        users[name] = [call for call in found if source.count(call) > source.count(f"durable{call}")]
    assert {name: calls for name, calls in users.items() if calls} == {}


def test_no_probe_is_left(tmp_path):
    output.check_writable(tmp_path / "a" / "b" / "x.json", "out")
    output.check_writable(tmp_path / "b", "out", folder=True)
    assert list(tmp_path.rglob("*")) == []
    assert "written" in output.write_if_possible(tmp_path / "a" / "b" / "x.json", b"{}", "out", chosen=True)

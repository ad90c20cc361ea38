"""metrics.jsonl read back, whatever happened to it, and what a run that goes on keeps of it."""

import errno
import json
import os
import shutil

import pytest
import tiny

from jaxshare.results import curves, directories, learning_curve
from jaxshare.run import console, loggers, metrics
from jaxshare.run.loggers import JsonLines
from jaxshare.run.metrics import Reached
from jaxshare.types import RefusedError

LABELS = [{"seed": 0, "sweep.lr": 0.1}, {"seed": 1, "sweep.lr": 0.1}]


def record(seed, env_steps, updates, **more):
    return {"seed": seed, "sweep.lr": 0.1, "env_steps": env_steps, "updates": updates, "wall_s": 1.0, **more}


def line(*args, **more):
    return json.dumps(record(*args, **more)).encode() + b"\n"


BEFORE = b"".join(
    [
        line(0, 8, 0, **{"eval/return": 1.0}), line(1, 8, 0, **{"eval/return": 1.5}),
        line(0, 24, 8, **{"loss/td": 0.5}), line(1, 24, 8, **{"loss/td": 0.25}),
        line(0, 24, 8, **{"eval/return": 2.0}), line(1, 24, 8, **{"eval/return": 2.5}),
        line(0, 32, 12, **{"loss/td": 0.1}), line(1, 24, 8, **{"loss/td": float("nan")}),
    ]
)  # fmt: skip
AFTER = line(0, 40, 16, **{"loss/td": 0.5}) + line(1, 40, 16, **{"eval/return": 3.0})
REACHED = Reached(LABELS, [32, 24], [12, 8], [24, 24], offline=False, num_bytes=len(BEFORE))


def cut(tmp_path, content, reached=REACHED):
    """(what is left, {side file: content}, remarks)."""
    if content is not None:
        (tmp_path / "metrics.jsonl").write_bytes(content)
    remarks = metrics.cut_back(tmp_path, reached)
    path = tmp_path / "metrics.jsonl"
    sides = {p.name: p.read_bytes() for p in sorted(tmp_path.glob("metrics.jsonl.cut-*"))}
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*sides, *(["metrics.jsonl"] if path.exists() else [])])
    return path.read_bytes() if path.exists() else None, sides, remarks


def test_nothing_to_cut(tmp_path):
    assert cut(tmp_path, BEFORE) == (BEFORE, {}, [])


def test_rows_of_a_killed_run_are_moved_and_said(tmp_path):
    """Whole lines, a row at the very step of the checkpoint but after it, and half a line."""
    evaluated_after = line(0, 32, 12, **{"eval/return": 9.0})
    tail = evaluated_after + AFTER + AFTER[:30]
    left, sides, remarks = cut(tmp_path, BEFORE + tail)
    assert left == BEFORE
    assert sides == {"metrics.jsonl.cut-1": tail}
    (remark,) = remarks
    assert "4 line(s)" in remark
    assert "from line 9 on" in remark
    assert "metrics.jsonl.cut-1" in remark
    left, sides, _ = cut(tmp_path, BEFORE + AFTER)  # a second kill
    assert left == BEFORE
    assert sides == {"metrics.jsonl.cut-1": tail, "metrics.jsonl.cut-2": AFTER}


def test_windows_line_ends(tmp_path):
    left, sides, remarks = cut(tmp_path, (BEFORE + AFTER).replace(b"\n", b"\r\n"))
    assert left == BEFORE
    assert sides == {"metrics.jsonl.cut-1": AFTER.replace(b"\n", b"\r\n")}
    assert len(remarks) == 1
    assert cut(tmp_path, BEFORE.replace(b"\n", b"\r\n"))[0] == BEFORE


@pytest.mark.parametrize("content", [None, b"", BEFORE[:200], BEFORE[: BEFORE.index(b"\n") + 1]])
def test_a_log_that_lacks_rows_is_said_to(tmp_path, content):
    left, sides, remarks = cut(tmp_path, content)
    lost = len(BEFORE) - len(left or b"")
    assert f"lacks {lost:,} bytes" in remarks[-1]
    assert b"".join([left or b"", *sides.values()]) == (content or b"")


BAD = {
    "not JSON": b"{]\n",
    "no object": b"5\n",
    "bad bytes": b'{"seed": 0, "\xff\xfe": 1}\n',
    "null": line(0, 24, 8).replace(b'"wall_s": 1.0', b'"wall_s": null'),
    "text": line(0, 24, 8, **{"loss/td": "high"}),
    "list for a seed": line([0], 24, 8),
    "no counter": b'{"seed": 0, "sweep.lr": 0.1, "env_steps": 24, "wall_s": 1.0}\n',
    "deep": b"[" * 10000 + b"\n",
    "long": b'{"seed": 0, "x": 1' + b" " * 2**20 + b"}\n",
    "a truth": line(0, 24, 8, **{"loss/td": True}),
    "two glued": line(0, 24, 8).rstrip(b"\n") + line(1, 24, 8),
    "beyond a number": line(0, 24, 8).replace(b'"updates": 8', b'"updates": 1' + b"0" * 400),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_lines_that_cannot_be_read_are_moved_and_named(tmp_path, bad):
    """In the middle: what stands behind them is kept."""
    first = BEFORE.index(b"\n") + 1
    left, sides, remarks = cut(tmp_path, BEFORE[:first] + bad + BEFORE[first:])
    assert left == BEFORE
    assert sides == {"metrics.jsonl.cut-1": bad}
    assert "line 2:" in remarks[0]
    assert str(tmp_path / "metrics.jsonl") in remarks[0]
    assert len(remarks[0]) < 500 + len(str(tmp_path))


def test_rows_of_other_runs_are_not_kept(tmp_path):
    other = line(5, 8, 0)
    assert cut(tmp_path, other + BEFORE)[:2] == (BEFORE, {"metrics.jsonl.cut-1": other})


class Compared(dict):
    """A label that counts how often it is compared."""

    times = 0

    def __eq__(self, other):
        Compared.times += 1
        return super().__eq__(other)


def test_rows_of_thousands_of_runs_find_theirs_without_a_search(tmp_path):
    labels = [Compared({"seed": seed, "sweep.lr": 0.1}) for seed in range(3000)]
    reached = Reached(labels, [8] * 3000, [0] * 3000, [8] * 3000, offline=False, num_bytes=0)
    rows = b"".join(line(seed, 8, 0, **{"eval/return": 1.0}) for seed in range(3000))
    assert cut(tmp_path, rows + AFTER, reached)[:2] == (rows, {"metrics.jsonl.cut-1": AFTER})
    assert Compared.times == 0


def test_a_flipped_bit_in_the_number_of_bytes_loses_nothing(tmp_path):
    for num_bytes in (0, 1, len(BEFORE) - 64, len(BEFORE) + 2**20):
        reached = Reached(**{**vars(REACHED), "num_bytes": num_bytes})
        assert cut(tmp_path, BEFORE, reached)[:2] == (BEFORE, {})


def test_learners_from_data_count_updates(tmp_path):
    rows = b"".join([line(0, 0, 8, **{"eval/return": 1.0}), line(0, 0, 12, **{"loss/td": 1.0})])
    reached = Reached(LABELS[:1], [0], [12], [8], offline=True, num_bytes=len(rows))
    after = line(0, 0, 12, **{"eval/return": 1.0}) + line(0, 0, 16, **{"loss/td": 1.0})
    assert cut(tmp_path, rows + after, reached)[:2] == (rows, {"metrics.jsonl.cut-1": after})


def test_blank_lines_and_zeros_after_a_power_loss_are_no_rows(tmp_path):
    assert cut(tmp_path, BEFORE + b"\n \r\n" + b"\x00" * 4096) == (BEFORE, {}, [])


# --------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_every_reader_says_file_and_line(tmp_path, bad):
    (tmp_path / "metrics.jsonl").write_bytes(BEFORE + bad + AFTER)
    found, problems = metrics.read(tmp_path)
    assert found[-2:] == [record(0, 40, 16, **{"loss/td": 0.5}), record(1, 40, 16, **{"eval/return": 3.0})]
    (problem,) = problems
    assert problem.startswith(f"{tmp_path / 'metrics.jsonl'} cannot be read: line 9: ")
    assert "\n" not in problem
    with pytest.raises(RefusedError) as refused:
        metrics.records(tmp_path, metrics.COUNTERS)
    assert str(refused.value) == problem
    (tmp_path / "config.yaml").write_text(json.dumps({"run": {}, "algo": {}, "algo_name": "vdn", "env_name": "matrix"}))
    with pytest.raises(RefusedError) as refused:
        directories.Reading().runs(tmp_path)
    assert str(refused.value) == f"{problem} {directories.SKIP}"


def test_half_a_last_line_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(BEFORE + AFTER[:30])
    assert len(metrics.records(tmp_path)) == 8


def test_a_log_that_is_not_there(tmp_path):
    with pytest.raises(RefusedError, match="does not exist"):
        metrics.records(tmp_path)


@pytest.mark.parametrize("content", [b"", line(0, 24, 8, **{"loss/td": 0.5}), BEFORE])
def test_the_end_of_a_run_shows_what_there_is(tmp_path, capsys, content):
    """Training is over and saved by then."""
    (tmp_path / "metrics.jsonl").write_bytes(content)

    class Program:
        total, offline = 40, False

    screen = console.Console(tiny.settings(tmp_path, *tiny.PLAIN).run, Program())
    screen.finish(metrics.read(tmp_path)[0], tmp_path)
    shown = capsys.readouterr().out
    assert ("last evaluation" in shown) == (content == BEFORE)
    assert ("has no evaluation" in shown) == (content != BEFORE)
    assert (tmp_path / "learning_curve.png").exists() == (content == BEFORE)


def test_a_metric_that_came_later_is_left_out(tmp_path):
    rows = [record(0, 8, 0, **{"eval/return": 1.0}), record(0, 24, 8, **{"eval/return": 2.0, "eval/win_rate": 0.5})]
    first, mean = curves.first_and_last(rows)
    assert (first["return last"], mean["return first"]) == (2.0, 1.0)
    assert "win_rate last" not in mean
    assert learning_curve.draw(rows, tmp_path).exists()


# --------------------------------------------------------------------------------------------------------- writing


def test_links_are_not_followed(tmp_path):
    """A run directory that was received may hold links to files of the person who goes on with it."""
    target = tmp_path / "precious"
    target.write_bytes(b"precious\n")
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "metrics.jsonl").symlink_to(target)
    for act in (lambda: metrics.cut_back(run_dir, REACHED), lambda: JsonLines(run_dir)):
        with pytest.raises(RefusedError, match=r"metrics\.jsonl"):
            act()
    with pytest.raises(RefusedError, match="is a symbolic link"):
        metrics.cut_back(run_dir, REACHED)
    (run_dir / "learning_curve.png").symlink_to(target)
    learning_curve.draw([record(0, 8, 0, **{"eval/return": 1.0})], run_dir)
    assert target.read_bytes() == b"precious\n"
    assert not (run_dir / "learning_curve.png").is_symlink()


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    log = JsonLines(tmp_path)
    log.write(0, record(0, 8, 0))
    monkeypatch.setattr(loggers.os, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(RefusedError) as refused:
        log.write(0, record(0, 24, 8))
    message = str(refused.value)
    assert message.startswith(f"{tmp_path / 'metrics.jsonl'} cannot be written (No space left)")
    assert f"resume=auto run_dir={tmp_path}" in message
    log.close()
    log.close()


def test_rows_go_behind_those_that_are_there(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(BEFORE)
    log = JsonLines(tmp_path)
    log.write(0, record(0, 40, 16))
    assert log.sync() == len(BEFORE) + len(line(0, 40, 16))
    log.close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == BEFORE + line(0, 40, 16)


# ------------------------------------------------------------------------------------------------------- going on


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """The first two of four chunks of a run, and the whole of it."""
    folder = tmp_path_factory.mktemp("runs")
    arguments = (*tiny.PLAIN, "algo.recurrent=false")
    tiny.train(folder / "whole", *arguments)
    tiny.train(folder / "half", *arguments, max_chunks=2)
    return folder


def damaged(path, damage):
    content = path.read_bytes()
    if damage == "windows":
        path.write_bytes(content.replace(b"\n", b"\r\n"))
    elif damage == "glued":
        path.write_bytes(content + b'{"seed": 0, "env')
    elif damage == "a bad byte":
        end = content.index(b"\n") + 1
        path.write_bytes(content[:end] + b"\xff\n" + content[end:])


@pytest.mark.parametrize("damage", ["windows", "glued", "a bad byte"])
def test_a_damaged_log_does_not_stop_a_run_and_nothing_is_lost(half, tmp_path, capsys, damage):
    run_dir = shutil.copytree(half / "half", tmp_path / "run")
    damaged(run_dir / "metrics.jsonl", damage)
    tiny.train(run_dir, *tiny.PLAIN, "algo.recurrent=false", "resume=auto")
    assert tiny.records(run_dir) == tiny.records(half / "whole")
    assert b"\r" not in (run_dir / "metrics.jsonl").read_bytes()
    assert ("metrics.jsonl.cut-1" in capsys.readouterr().out) == (damage != "windows")


@pytest.mark.parametrize("damage", ["deleted", "emptied", "shorter"])
def test_a_log_that_is_gone_costs_a_warning_only(half, tmp_path, capsys, damage):
    run_dir = shutil.copytree(half / "half", tmp_path / "run")
    path = run_dir / "metrics.jsonl"
    if damage == "deleted":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size // 2 if damage == "shorter" else 0)
    tiny.train(run_dir, *tiny.PLAIN, "algo.recurrent=false", "resume=auto")
    assert "bytes of the rows that were there" in capsys.readouterr().out
    whole = tiny.records(half / "whole")
    assert tiny.records(run_dir)[-4:] == whole[-4:]

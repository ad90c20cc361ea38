"""metrics.jsonl read back: one reader for everybody, and what a run that goes on keeps of it.

A line is whole when it ends with a newline (CR LF after a copy through Windows), and is a JSON
object of numbers with the counters of its run. What is not is named with file and line, and nothing
is dropped: rows that a resumed run does not keep are moved to a file beside it.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jaxshare import durable
from jaxshare.run.loggers import METRICS
from jaxshare.run.reader import NUMBER, WHOLE, Record, fault, first_line
from jaxshare.types import RefusedError

COUNTERS = ("seed", "env_steps", "updates", "wall_s")
EVALUATED = "eval/"  # how metrics of evaluations begin
MOST_LINE_BYTES = 2**20  # ours: a row of 30 agents has 10 kB
Label = frozenset[tuple[str, Any]]  # seed and point of a sweep
TOO_LONG = f"it is longer than {MOST_LINE_BYTES // 1024:,} KiB"


@dataclass(frozen=True)
class Row:
    """One line of the log."""

    number: int  # from 1
    line: bytes  # with its end
    record: dict[str, Any] | None  # None if it cannot be read
    problem: str  # why, or "" (also for a further piece of a line that is too long)
    whole: bool  # false for a last line without an end, as a kill leaves it


@dataclass(frozen=True)
class Reached:
    """How far the runs of a checkpoint are. R runs."""

    labels: list[dict[str, Any]]  # [R]: what rows name each run by
    env_steps: list[int]  # [R]
    updates: list[int]  # [R]
    evaluated: list[int]  # [R]: progress at the last evaluation, -1: none
    offline: bool  # whether progress counts updates, not environment steps
    num_bytes: int  # of the log when the checkpoint was written

    def runs(self) -> dict[Label, int]:
        """The number of each run, by what rows name it by."""
        return {frozenset(label.items()): run for run, label in enumerate(self.labels)}

    def has(self, record: dict[str, Any], runs: dict[Label, int]) -> bool:
        """Whether a record was written before the checkpoint. runs: as `runs()` numbers them."""
        names = [name for name in record if name == "seed" or name.startswith("sweep.")]
        run = runs.get(frozenset((name, record[name]) for name in names))
        if run is None:
            return False
        if record["env_steps"] > self.env_steps[run] or record["updates"] > self.updates[run]:
            return False
        if any(name.startswith(EVALUATED) for name in record):
            return record["updates" if self.offline else "env_steps"] <= self.evaluated[run]
        return True


def rows(path: pathlib.Path, counters: tuple[str, ...] = COUNTERS) -> Iterator[Row]:
    """All lines of a log but blank ones; a last one without an end is given as it is.

    Raises OSError.
    """
    kind = Record({name: NUMBER if name == "wall_s" else WHOLE for name in counters}, others=NUMBER)
    with open(path, "rb") as file:
        number = 1
        inside = False  # a line that is too long, and comes in pieces
        while True:
            line = file.readline(MOST_LINE_BYTES)
            if not line:
                return
            ended = line.endswith(b"\n")
            if inside or (len(line) == MOST_LINE_BYTES and not ended):
                yield Row(number, line, None, "" if inside else TOO_LONG, whole=True)
                inside = not ended
            elif line.strip(b" \t\r\n\x00"):
                record, problem = _parsed(line, kind)
                yield Row(number, line, record, problem, whole=ended)
            number += ended


def _parsed(line: bytes, kind: Record) -> tuple[dict[str, Any] | None, str]:
    """The record of a line, or what is wrong with it."""
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return None, f"byte {error.start + 1} is not UTF-8"
    except (ValueError, RecursionError) as error:
        return None, f"it is no JSON ({first_line(error)})"
    problem = fault(value, kind)
    return (None, problem) if problem else (value, "")


def read(
    run_dir: pathlib.Path, counters: tuple[str, ...] = COUNTERS
) -> tuple[list[dict[str, Any]], list[str]]:
    """(records, what cannot be read: one sentence each, with file and line).

    A last line without an end is left out. Raises RefusedError if there is no log, OSError if it
    cannot be read.
    """
    path = run_dir / METRICS
    if not path.is_file():
        raise RefusedError(
            f"{path} does not exist: there is nothing to show. Name a run directory that has one."
        )
    records = []
    problems = []
    for row in rows(path, counters):
        if row.record is not None and row.whole:
            records.append(row.record)
        elif row.whole and row.problem:
            problems.append(f"{path} cannot be read: line {row.number}: {row.problem}.")
    return records, problems


def records(run_dir: pathlib.Path, counters: tuple[str, ...] = ("seed",)) -> list[dict[str, Any]]:
    """All records of a run directory. A last line cut off by a kill is left out.

    counters: what every record must have. Raises RefusedError naming file and line for what cannot
    be read, OSError.
    """
    rows_read, problems = read(run_dir, counters)
    if problems:
        raise RefusedError(problems[0])
    return rows_read


# ----------------------------------------------------------------------------------------- going on


def cut_back(run_dir: pathlib.Path, reached: Reached) -> list[str]:
    """Leave in the log what was written before the checkpoint, and move the rest to another file.

    Returns sentences for the person: what was moved, and whether rows are missing. Raises
    RefusedError, before anything is changed, if the log is a link, or cannot be read or written.
    """
    path = run_dir / METRICS
    refuse_link(path)
    try:
        return _cut_back(path, reached)
    except OSError as error:
        why = error.strerror or error
        raise RefusedError(
            f"{path} cannot be cut back to the checkpoint ({why}); the run is unchanged."
        ) from error


def _cut_back(path: pathlib.Path, reached: Reached) -> list[str]:
    # sort the lines
    runs = reached.runs()
    before: list[bytes] = []
    cut: list[Row] = []
    for row in rows(path) if path.exists() else ():
        if row.whole and row.record is not None and reached.has(row.record, runs):
            before.append(row.line.rstrip(b"\r\n") + b"\n")
        else:
            cut.append(row)
    content = b"".join(before)

    # move what is cut off
    remarks = []
    if cut:
        side = _write_side(path, b"".join(row.line for row in cut))
        remarks.append(_moved(path, side, cut))
    if path.exists() and (cut or path.stat().st_size != len(content)):
        durable.write_bytes(path, content)

    # say what is missing
    missing = reached.num_bytes - len(content)
    if missing > 0:
        remarks.append(
            f"{path} lacks {missing:,} bytes of the rows that were there when the checkpoint was "
            "written: curves and tables will have a gap, the training is not concerned."
        )
    return remarks


def _write_side(path: pathlib.Path, content: bytes) -> pathlib.Path:
    """Write to the first name that is free of metrics.jsonl.cut-1, -2, …"""
    number = 1
    while True:
        side = path.with_name(f"{path.name}.cut-{number}")
        try:
            with open(side, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            return side
        except FileExistsError:
            number += 1


def _moved(path: pathlib.Path, side: pathlib.Path, cut: list[Row]) -> str:
    unreadable = [row for row in cut if row.problem and row.whole]
    lines = len({row.number for row in cut})
    text = (
        f"{lines} line(s) of {path} from line {cut[0].number} on were not there when the "
        "checkpoint was written"
    )
    if unreadable:
        text += f", or cannot be read (line {unreadable[0].number}: {unreadable[0].problem})"
    return f"{text}: they are moved to {side.name}, and the run logs anew from the checkpoint on."


def refuse_link(path: pathlib.Path) -> None:
    """Raise RefusedError for a symbolic link, through which a file elsewhere would be changed.

    For no file, too.
    """
    if path.is_symlink():
        raise RefusedError(
            f"{path} is a symbolic link, and a run would write through it into "
            f"{os.readlink(path)}: replace it by a copy, or choose another run_dir."
        )
    if path.exists() and not path.is_file():
        raise RefusedError(f"{path} is no file: remove it, or choose another run_dir.")

"""Damage as disks and copying do it, and what a reader makes of it: refused, the same, or read in silence."""

import pathlib
import shutil
from collections import Counter
from dataclasses import dataclass

import numpy as np
import toy_data

from jaxshare.types import RefusedError

IN_PLACE = ("bit", "byte", "zeros", "cut", "longer")
OF_FILES = ("removed", "swapped", "copied")


@dataclass(frozen=True)
class Outcome:
    """What came of one damage."""

    kind: str
    file: str
    place: int  # byte
    result: str  # refused, same, silent, or a traceback's exception
    detail: str = ""


def campaign(source, read, folder, count, seed=0):
    """Damage a copy of `source` (a file or a folder) `count` times, each time anew; an Outcome of each.

    read: from a path to a data set. folder: where the copy lies, under the name of `source`.
    """
    rng = np.random.default_rng(seed)
    path = pathlib.Path(folder) / source.name
    if source.is_dir():
        shutil.copytree(source, path)
    else:
        shutil.copy(source, path)
    whole = read(path)
    return [attempt(path, read, whole, rng) for _ in range(count)]


def attempt(path, read, whole, rng):
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    weight = np.array([file.stat().st_size for file in files], float)
    # half of them wherever a byte is, half wherever a file is
    share = weight / weight.sum() if rng.random() < 0.5 else np.full(len(files), 1 / len(files))
    file, other = files[rng.choice(len(files), p=share)], files[rng.integers(len(files))]
    kind = str(rng.choice(IN_PLACE + (OF_FILES if len(files) > 1 else ())))
    place = int(rng.integers(max(file.stat().st_size, 1)))
    before = {touched: touched.read_bytes() for touched in (file, other)}
    spoil(file, kind, place, other, rng)
    where = str(file.relative_to(path)) if path.is_dir() else file.name
    try:
        found = read(path)
        different = differs(found, whole)
        return Outcome(kind, where, place, "silent" if different else "same", different)
    except RefusedError as error:
        return Outcome(kind, where, place, "refused", str(error))
    except Exception as error:  # a traceback is what is looked for
        return Outcome(kind, where, place, type(error).__name__, str(error))
    finally:
        for touched, content in before.items():
            touched.write_bytes(content)


def spoil(file, kind, place, other, rng):
    """Damage one file; `other` is one that may take its place."""
    raw = bytearray(file.read_bytes())
    if kind == "bit":
        raw[place : place + 1] = bytes(byte ^ (1 << int(rng.integers(8))) for byte in raw[place : place + 1])
    elif kind == "byte":
        raw[place : place + 1] = bytes([int(rng.integers(256))])
    elif kind == "zeros":
        raw[place : place + 16] = bytes(len(raw[place : place + 16]))
    elif kind == "cut":
        raw = raw[:place]
    elif kind == "longer":
        raw += rng.bytes(16)
    elif kind == "removed":
        file.unlink()
        return
    elif kind == "swapped":
        content = other.read_bytes()
        other.write_bytes(raw)
        raw = content
    else:
        raw = other.read_bytes()
    file.write_bytes(raw)


def differs(found, whole):
    """What of a data set is not what was written, or ""."""
    if found.card != whole.card:
        return "card: " + ", ".join(k for k in {**found.card, **whole.card} if found.card.get(k) != whole.card.get(k))
    try:
        toy_data.assert_equal(found, whole)
    except (AssertionError, ValueError) as error:
        return str(error)
    return ""


def counted(outcomes):
    """{result: how many}."""
    return dict(Counter(outcome.result for outcome in outcomes))

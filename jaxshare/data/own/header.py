"""`card.json` of jaxshare's own format: what it must hold, and the checksums in it.

{"format", "version", "finished", "episodes", "fields": {name: {"shape", "dtype"}}, "card": {...},
"checksums": {...}}.
checksums: "card", the SHA-256 of everything else in this file; "arrays", {field: SHA-256 of its
zarr.json}; "chunks", {field: the CRC-32C of each of its chunks}, which also stands in the last four
bytes of the chunk's file, where the codec compares it with the content. So every byte that is read
is known to be the one that was written, and chunks that were taken from elsewhere, or exchanged,
are found as well. Sets from before there were checksums have none.
"""

from __future__ import annotations

import hashlib
import json
import math
import pathlib
import re
from collections.abc import Iterable
from typing import Any

from jaxshare.data import limits
from jaxshare.data.records import LABELS, SLOTS, STEPS, damaged
from jaxshare.types import RefusedError

FORMAT = "jaxshare-data"
VERSION = 1
UNFINISHED = ".unfinished"  # behind the suffix
CARD = "card.json"
KEYS = ("format", "version", "finished", "episodes", "fields", "card")  # and CHECKSUMS
CHECKSUMS = "checksums"
PARTS = ("card", "arrays", "chunks")  # of the checksums
EXTRAS = "extras."
DTYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "bfloat16", "float32", "float64",
)  # fmt: skip
MOST = 2**31  # of any size in a shape
TRAILER = 4  # bytes of a chunk's checksum


def read(path: pathlib.Path) -> dict[str, Any]:
    """card.json, once it is known to be of a finished data set that this version can read.

    Raises RefusedError.
    """
    unfinished = path.with_name(path.name + UNFINISHED)
    if not path.exists():
        if unfinished.exists():
            raise RefusedError(
                f"{path} is unfinished: its writer was stopped ({unfinished.name}). Collect it "
                "again."
            )
        raise RefusedError(f"{path} does not exist. Check the path.")
    if not (path / CARD).is_file():
        raise RefusedError(
            f"{path} is not a data set of jaxshare: it has no {CARD}. Check the path, or the "
            "format."
        )

    # of this format and version, finished, and complete
    header = limits.json_object(path, CARD)
    if header.get("format") != FORMAT:
        raise RefusedError(
            f"{path} is not a data set of jaxshare: {CARD} does not say so. Check the path."
        )
    if header.get("version") != VERSION:
        raise RefusedError(
            f"{path} has version {header.get('version')} of the format, this jaxshare reads "
            f"{VERSION}. Use the jaxshare that wrote it (its card names it), or collect the data "
            "again."
        )
    if not header.get("finished"):
        raise RefusedError(f"{path} is unfinished: its writer was stopped. Collect it again.")
    for problem in _problems(header):
        raise damaged(path, f"{CARD} is incomplete: {problem}")
    return header


def _problems(header: dict[str, Any]) -> Iterable[str]:
    """What is wrong with the structure of a header."""
    # what every header has, and nothing else
    unknown = [key for key in header if key not in (*KEYS, CHECKSUMS)]
    if unknown:
        yield f"it has {unknown[0]!r}, which no version wrote"
    if not (_is_count(header.get("episodes")) and header["episodes"]):
        yield f"episodes is {header.get('episodes')!r}"
    if not isinstance(header.get("card"), dict):
        yield "it has no card"

    # fields and their checksums
    fields = header.get("fields")
    if not isinstance(fields, dict):
        yield "it has no fields"
        return
    yield from (
        f"it has no field {name}" for name in (*SLOTS, *STEPS, *LABELS) if name not in fields
    )
    for name, about in fields.items():
        yield from _field_problems(name, about)
    if CHECKSUMS in header:
        yield from _checksum_problems(header[CHECKSUMS], fields)


def _field_problems(name: str, about: object) -> Iterable[str]:
    """What is wrong with one field of a header; its name becomes that of a folder."""
    if name not in (*SLOTS, *STEPS, *LABELS) and not (name.startswith(EXTRAS) and is_name(name)):
        yield f"{name!r} is not the name of a field"
    shape = about.get("shape") if isinstance(about, dict) else None
    if not isinstance(shape, list) or len(shape) > 8 or not all(_is_count(size) for size in shape):
        yield f"the shape of {name!r} is {shape!r}"
    elif name == "mask" and math.prod(shape) == 0:
        yield "its mask has no step"
    dtype = about.get("dtype") if isinstance(about, dict) else None
    if dtype not in DTYPES:
        yield f"the dtype of {name!r} is {dtype!r}"


def _checksum_problems(sums: object, fields: dict[str, Any]) -> Iterable[str]:
    """What is wrong with the checksums of a header."""
    if not isinstance(sums, dict) or set(sums) != set(PARTS):
        yield f"its {CHECKSUMS} are not those of {', '.join(PARTS)}"
        return
    for part in ("arrays", "chunks"):
        if not isinstance(sums[part], dict) or not set(sums[part]) <= set(fields):
            yield f"its {CHECKSUMS} of {part} are not those of its fields"
        elif part == "chunks" and not all(
            isinstance(chunks, list) for chunks in sums[part].values()
        ):
            yield f"its {CHECKSUMS} of {part} are no lists"


def is_name(name: str) -> bool:
    """Whether a field may have this name: letters, digits, '_', '.' and '-'."""
    return re.fullmatch(r"[A-Za-z0-9_.\-]+", name) is not None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST


def digest(header: dict[str, Any]) -> str:
    """SHA-256 of what a header says, without its own; however its JSON is laid out."""
    sums = {name: value for name, value in header[CHECKSUMS].items() if name != "card"}
    plain = json.dumps(header | {CHECKSUMS: sums}, sort_keys=True)
    # once more: keys that are no text become text in the file
    return hashlib.sha256(json.dumps(json.loads(plain), sort_keys=True).encode()).hexdigest()


def digest_of_array(folder: pathlib.Path) -> str:
    """SHA-256 of what a field's array says of itself. Raises OSError."""
    return hashlib.sha256((folder / "zarr.json").read_bytes()).hexdigest()


def chunk_checksum(folder: pathlib.Path, number: int, rank: int) -> str:
    """The CRC-32C at the end of the file of a field's chunk; rank: of its array. Raises OSError."""
    file = folder / "c" / "/".join([str(number), *["0"] * (rank - 1)])
    with file.open("rb") as raw:
        raw.seek(-TRAILER, 2)
        return raw.read(TRAILER).hex()


def check_arrays(path: pathlib.Path, header: dict[str, Any]) -> None:
    """Raise RefusedError unless header and descriptions of arrays are those that were written.

    Nothing is checked of a set without checksums.
    """
    sums = header.get(CHECKSUMS)
    if sums is None:
        return
    for name, expected in sums["arrays"].items():
        try:
            actual = digest_of_array(path / name)
        except OSError as error:
            raise damaged(path, f"{name} cannot be read", error) from error
        if actual != expected:
            raise damaged(path, f"the description of {name} is not the one that was written")
    if digest(header) != sums["card"]:
        raise damaged(path, f"{CARD} is not what was written: its checksum differs")


def check_chunks(
    path: pathlib.Path, name: str, numbers: Iterable[int], header: dict[str, Any]
) -> None:
    """Raise RefusedError unless chunks of a field are those that were written.

    The codec checks their content.
    """
    sums = header.get(CHECKSUMS)
    if sums is None:
        return
    rank = 1 + len(header["fields"][name]["shape"])
    chunks = dict(enumerate(sums["chunks"].get(name, [])))
    for number in numbers:
        try:
            actual = chunk_checksum(path / name, int(number), rank)
        except OSError as error:
            raise damaged(path, f"{name} cannot be read", error) from error
        if actual != chunks.get(int(number)):
            raise damaged(path, f"chunk {number} of {name} is not the one that was written")

"""jaxshare's own format: a folder `<name>.jds` of zarr arrays in chunks of episodes, and `card.json`.

card.json (see `header`) names the fields. Each is a Zarr v3 array of its name, episode first, as `records.flat` names
them; a field without elements is not stored. Chunks are compressed by zstd and carry a checksum (crc32c); a chunk that
is missing is an error, not zeros. What a set claims is held to `limits` before anything is allocated.

While a `Writer` works, the folder is called `<name>.jds.unfinished` and its card says so; the last thing that `close`
does is to rename it. So `<name>.jds` is whole whenever it exists. obs and state are rounded to the dtype on disk:
float16 (relative error 2^-11 between 6e-5 and 65504, below that absolute 2^-25), bfloat16 (2^-8) or float32 (none).
"""

from __future__ import annotations

import json
import math
import pathlib
import shutil
from types import TracebackType
from typing import Any

import numpy as np

from jaxshare import durable
from jaxshare.data import header as headers
from jaxshare.data import limits, records
from jaxshare.data.card import summary
from jaxshare.data.checks import check, check_shapes, check_spec
from jaxshare.data.header import CARD, CHECKSUMS, FORMAT, UNFINISHED, VERSION
from jaxshare.data.records import FAILURES, Array, Card, Dataset, Index, damaged
from jaxshare.training.replay import DTYPES, LOSSY
from jaxshare.types import EnvSpec, RefusedError

SUFFIX = ".jds"
CHUNK_BYTES = (
    2**20
)  # of a chunk before compression, about: small enough to read single batches from disk
CHUNK_EPISODES = 1024  # at most
CODECS = (
    {"name": "bytes", "configuration": {"endian": "little"}},
    {
        "name": "zstd",
        "configuration": {"level": 1},
    },  # measured: level 3, and blosc's shuffles, are no smaller on SMAX
    {"name": "crc32c"},
)


class Stored:
    """A finished data set on disk: its card in memory, its arrays where they are."""

    def __init__(self, path: pathlib.Path, header: dict[str, Any]) -> None:
        self.path = path
        self.card: Card = header["card"]
        self._header = header
        self._episodes = int(header["episodes"])
        self._fields: dict[str, dict[str, Any]] = header["fields"]
        # compare sizes before anything is opened
        limits.check_size(path, self._episodes * self._episode_bytes(), limits.bytes_on_disk(path))
        self._arrays = {
            name: self._open(name)
            for name, about in self._fields.items()
            if not _empty(about["shape"])
        }
        headers.check_arrays(path, header)

    def __len__(self) -> int:
        return self._episodes

    def _episode_bytes(self, dtype: str | None = None) -> int:
        """Bytes of an episode in memory, with its place in an index; dtype: of obs and state, by default as on disk."""
        return 8 + sum(
            math.prod(about["shape"])
            * _numpy(dtype if dtype and name in LOSSY else about["dtype"]).itemsize
            for name, about in self._fields.items()
        )

    def _open(self, name: str) -> Any:
        import tensorstore

        about = self._fields[name]
        try:
            array: Any = tensorstore.open(_location(self.path, name), read=True).result()
        except FAILURES as error:
            raise damaged(self.path, f"{name} cannot be opened", error) from error
        if (list(array.shape), array.dtype.name) != (
            [self._episodes, *about["shape"]],
            about["dtype"],
        ):
            raise damaged(
                self.path,
                f"{name} is {array.dtype.name}{list(array.shape)}, {CARD} says something else",
            )
        item = _numpy(about["dtype"]).itemsize
        chunk = math.prod(array.chunk_layout.read_chunk.shape) * item
        limits.check_chunk(self.path, name, chunk, math.prod(array.shape) * item)
        return array

    def field(self, name: str, episodes: Index = None) -> Array:
        """One array by its name in `records.flat`, of the episodes at an index, in the dtype on disk."""
        if name not in self._fields:
            raise RefusedError(
                f"{self.path} has no field {name}. It has {', '.join(self._fields)}."
            )
        chosen = records.indices(episodes, len(self))
        about = self._fields[name]
        if name not in self._arrays:
            return np.zeros((len(chosen), *about["shape"]), about["dtype"])
        episodes_of_chunk = self._arrays[name].chunk_layout.read_chunk.shape[0]
        headers.check_chunks(self.path, name, np.unique(chosen // episodes_of_chunk), self._header)
        contiguous = len(chosen) and (np.diff(chosen) == 1).all()
        part = slice(int(chosen[0]), int(chosen[-1]) + 1) if contiguous else chosen
        try:
            return np.asarray(self._arrays[name].oindex[part].read().result())
        except FAILURES as error:
            raise damaged(self.path, f"{name} cannot be read", error) from error

    def read(self, episodes: Index = None, dtype: str | None = None) -> Dataset:
        """The episodes at an index (all by default) in memory; obs and state in `dtype`, by default as on disk."""
        if dtype is not None:
            _known_dtype(dtype)
        count = len(records.indices(episodes, len(self)))
        limits.check_memory(self.path, count * self._episode_bytes(dtype))
        fields = {name: self.field(name, episodes) for name in self._fields}
        if dtype is not None:
            fields |= {name: rounded(name, fields[name], dtype) for name in LOSSY}
        dataset = records.unflat(fields, self.card)
        if count:
            # what has checksums is what the writer checked
            checked = check_shapes if CHECKSUMS in self._header else check
            checked(dataset, f"{self.path}, of the episodes read")
        return dataset


def open(path: str | pathlib.Path) -> Stored:
    """A data set whose arrays stay on disk until they are read. Raises RefusedError for anything else at `path`."""
    path = pathlib.Path(path)
    return Stored(path, headers.read(path))


def load(path: str | pathlib.Path, episodes: Index = None, dtype: str | None = None) -> Dataset:
    """The episodes at an index (all by default) in memory; obs and state in `dtype`, by default as on disk."""
    return open(path).read(episodes, dtype)


def save(
    dataset: Dataset, path: str | pathlib.Path, dtype: str = "float16", overwrite: bool = False
) -> pathlib.Path:
    """Write a data set that is in memory."""
    with Writer(path, dataset.card, dtype, overwrite=overwrite) as writer:
        writer.append(dataset)
    return writer.path


class Writer:
    """Appends batches of episodes; `close`, or leaving its `with` block without an error, finishes the data set.

    card: from `card.card_of`; what counts the episodes is added at the end. dtype: of obs and state on disk. spec: the
    environment; every batch is checked against it. Raises RefusedError if `path` exists, unless `overwrite`: then the
    old one stays until the new one is whole.
    """

    def __init__(
        self,
        path: str | pathlib.Path,
        card: Card | None = None,
        dtype: str = "float16",
        spec: EnvSpec | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path, self.card, self.dtype, self.spec = (
            pathlib.Path(path),
            dict(card or {}),
            _known_dtype(dtype),
            spec,
        )
        self.folder = self.path.with_name(self.path.name + UNFINISHED)
        self._num, self._arrays = 0, dict[str, Any]()
        self._fields: dict[str, dict[str, Any]] = {}
        self._waiting: list[dict[str, Array]] = []  # episodes that do not fill a chunk yet
        self._chunk = 1
        self._seen: list[tuple[Array, ...]] = []  # returns, lengths, level, component of each batch
        _make_room(self.path, self.folder, overwrite)
        self.folder.mkdir(parents=True)
        self._write_header(finished=False)

    def __len__(self) -> int:
        return self._num + sum(len(batch["mask"]) for batch in self._waiting)

    def append(self, dataset: Dataset) -> None:
        """Add episodes. Raises RefusedError for those that fail a check, leaving the earlier ones as they are."""
        self.card.setdefault("common_reward", dataset.common_reward)
        dataset = Dataset(
            dataset.episodes, dataset.level, dataset.policy, dataset.component, self.card
        )
        check(dataset, f"{self.path} after {len(self)} episodes")
        if self.spec is not None:
            check_spec(dataset, self.spec, str(self.path))
        fields = {
            name: rounded(name, values, self.dtype) if name in LOSSY else values
            for name, values in records.flat(dataset).items()
        }
        about = {
            name: {"shape": list(x.shape[1:]), "dtype": x.dtype.name} for name, x in fields.items()
        }
        if not self._fields:
            self._create(about)
        elif about != self._fields:
            differing = [
                name
                for name in {**about, **self._fields}
                if about.get(name) != self._fields.get(name)
            ]
            raise RefusedError(
                f"{self.path}: {', '.join(differing)} differ in shape or dtype from the batches before."
            )
        self._seen.append(
            (
                records.returns(dataset),
                records.lengths(dataset),
                dataset.level.copy(),
                dataset.component.copy(),
            )
        )
        self._waiting.append(fields)
        self._flush(len(self) - len(self) % self._chunk)

    def _create(self, about: dict[str, dict[str, Any]]) -> None:
        import tensorstore

        for name, field in about.items():
            if not headers.is_name(name):
                raise RefusedError(
                    f"{name} cannot be the name of a field: use letters, digits, '_', '.' and '-'."
                )
            if _empty(field["shape"]):
                continue
            chunk = _chunk(field)
            self._chunk = chunk if name == "obs" else self._chunk
            metadata = {
                "shape": [0, *field["shape"]],
                "data_type": field["dtype"],
                "chunk_grid": {
                    "name": "regular",
                    "configuration": {"chunk_shape": [chunk, *field["shape"]]},
                },
                "codecs": list(CODECS),
            }
            where = _location(self.folder, name) | {"metadata": metadata}
            self._arrays[name] = tensorstore.open(where, create=True).result()
        self._fields = about
        self._write_header(finished=False)

    def _flush(self, until: int) -> None:
        """Write waiting episodes up to number `until`."""
        if until <= self._num:
            return
        joined = {
            name: np.concatenate([batch[name] for batch in self._waiting]) for name in self._fields
        }
        count = until - self._num
        writes = []
        for name, array in self._arrays.items():
            longer = array.resize(exclusive_max=[until, *self._fields[name]["shape"]]).result()
            writes.append(longer[self._num : until].write(joined[name][:count]))
            self._arrays[name] = longer
        for write in writes:
            write.result()
        self._num = until
        rest = {name: values[count:].copy() for name, values in joined.items()}
        self._waiting = [rest] if len(rest["mask"]) else []

    def close(self) -> pathlib.Path:
        """Finish the data set; its path. Raises RefusedError if nothing was appended."""
        if not self._seen:
            raise RefusedError(f"{self.path}: no episode was written. Append some before closing.")
        self._flush(len(self))
        seen = [np.concatenate(parts) for parts in zip(*self._seen, strict=True)]
        self.card |= summary(*seen)
        self._write_header(finished=True)
        durable.sync_tree(self.folder)
        durable.replace_folder(self.folder, self.path)
        return self.path

    def _write_header(self, finished: bool) -> None:
        header: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "finished": finished,
            "episodes": self._num,
            "fields": self._fields,
            "card": self.card,
        }
        if finished:
            header[CHECKSUMS] = self._checksums()
            header[CHECKSUMS]["card"] = headers.digest(header)
        durable.write_text(self.folder / CARD, json.dumps(header, indent=1, allow_nan=False) + "\n")

    def _checksums(self) -> dict[str, Any]:
        """Those of all files but the card, which has to be added."""
        arrays = {name: headers.digest_of_array(self.folder / name) for name in self._arrays}
        chunks = {}
        for name, array in self._arrays.items():
            count = math.ceil(self._num / array.chunk_layout.write_chunk.shape[0])
            chunks[name] = [
                headers.chunk_checksum(self.folder / name, number, array.rank)
                for number in range(count)
            ]
        return {"arrays": arrays, "chunks": chunks}

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()


def _make_room(path: pathlib.Path, folder: pathlib.Path, overwrite: bool) -> None:
    """Clear what an earlier writer left at `folder`; refuse unless nothing, or something of ours, is in the way."""
    if path.suffix != SUFFIX:
        raise RefusedError(
            f"{path}: the name of a data set ends with {SUFFIX}, as in {path.name}{SUFFIX}."
        )
    for there in (path, folder):
        if not there.exists():
            continue
        if not overwrite:
            state = "exists" if there is path else "was left unfinished"
            raise RefusedError(
                f"{there} {state}. Choose another name, remove it, or say overwrite=true."
            )
        if not (there / CARD).is_file():
            raise RefusedError(
                f"{there} is not a data set of jaxshare and is not overwritten. Choose another name."
            )
    if folder.exists():
        shutil.rmtree(folder)


def rounded(name: str, values: Array, dtype: str) -> Array:
    """obs or state in a dtype of storage. Raises RefusedError for numbers beyond its range."""
    with np.errstate(over="ignore"):
        narrow = values.astype(_numpy(dtype), copy=False)
    if narrow is not values and not np.isfinite(narrow.astype(np.float32, copy=False)).all():
        most = float(np.abs(values).max())
        raise RefusedError(
            f"dtype={dtype} cannot hold {name}, which reaches {most:.3g}. Use dtype=float32."
        )
    return narrow


def _location(folder: pathlib.Path, name: str) -> dict[str, Any]:
    return {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{folder.absolute() / name}/"},
        "fill_missing_data_reads": False,  # a chunk that is not there is an error
        "store_data_equal_to_fill_value": True,  # so chunks of zeros must be there
    }


def _chunk(field: dict[str, Any]) -> int:
    """Episodes of a chunk: a power of two, so that the chunks of fields end together."""
    size = math.prod(field["shape"]) * _numpy(field["dtype"]).itemsize
    return 2 ** int(math.log2(min(max(CHUNK_BYTES // size, 1), CHUNK_EPISODES)))


def _empty(shape: list[int]) -> bool:
    return math.prod(shape) == 0


def _known_dtype(dtype: str) -> str:
    if dtype not in DTYPES:
        raise RefusedError(f"dtype={dtype} is not one of {', '.join(DTYPES)}.")
    return dtype


def _numpy(dtype: str) -> np.dtype[Any]:
    import jax.numpy as jnp

    return np.dtype(jnp.dtype(dtype))

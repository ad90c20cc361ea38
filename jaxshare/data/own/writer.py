"""A data set written in the own format, batch after batch."""

from __future__ import annotations

import json
import math
import pathlib
import shutil
from types import TracebackType
from typing import Any

import numpy as np
import tensorstore

from jaxshare import durable
from jaxshare.data import limits, records
from jaxshare.data.card import summary
from jaxshare.data.checks import check
from jaxshare.data.environment import check_spec
from jaxshare.data.own import arrays
from jaxshare.data.own import header as headers
from jaxshare.data.own.arrays import Field
from jaxshare.data.own.header import CARD, CHECKSUMS, FORMAT, UNFINISHED, VERSION
from jaxshare.data.records import Array, Card, Dataset
from jaxshare.training.replay import LOSSY
from jaxshare.types import EnvSpec, RefusedError

SUFFIX = ".jds"


def save(
    dataset: Dataset, path: str | pathlib.Path, dtype: str = "float16", overwrite: bool = False
) -> pathlib.Path:
    """Write a data set that is in memory."""
    with Writer(path, dataset.card, dtype, overwrite=overwrite) as writer:
        writer.append(dataset)
    return writer.path


class Writer:
    """Appends batches of episodes.

    `close`, or leaving its `with` block without an error, finishes the data set.

    card: from `card.card_of`; what counts the episodes is added at the end.
    dtype: of obs and state on disk.
    spec: the environment; every batch is checked against it.
    Raises RefusedError if `path` exists, unless `overwrite`: then the old one stays until the new
    one is whole.
    """

    def __init__(
        self,
        path: str | pathlib.Path,
        card: Card | None = None,
        dtype: str = "float16",
        spec: EnvSpec | None = None,
        overwrite: bool = False,
    ) -> None:
        arrays.check_dtype(dtype)
        self.path = pathlib.Path(path)
        self.card = dict(card or {})
        self.dtype = dtype
        self.spec = spec
        self.folder = self.path.with_name(self.path.name + UNFINISHED)

        # what is on disk, and what waits for a chunk to be full
        self._num = 0
        self._arrays: dict[str, tensorstore.TensorStore] = {}
        self._fields: dict[str, Field] = {}
        self._waiting: list[dict[str, Array]] = []
        self._chunk = 1  # episodes
        self._summed: list[tuple[Array, ...]] = []  # arguments of `summary`, of each batch

        _make_room(self.path, self.folder, overwrite)
        self.folder.mkdir(parents=True)
        self._write_header(finished=False)

    def __len__(self) -> int:
        return self._num + sum(len(batch["mask"]) for batch in self._waiting)

    def append(self, dataset: Dataset) -> None:
        """Add episodes.

        Raises RefusedError for those that fail a check, leaving the earlier ones as they are.
        """
        self.card.setdefault("common_reward", dataset.common_reward)
        labels = (dataset.level, dataset.policy, dataset.component)
        dataset = Dataset(dataset.episodes, *labels, self.card)
        check(dataset, f"{self.path} after {len(self)} episodes")
        if self.spec is not None:
            check_spec(dataset, self.spec, str(self.path))

        # in the dtypes on disk, and with the shapes of the batches before
        values = records.flat(dataset)
        values |= {name: arrays.rounded(name, values[name], self.dtype) for name in LOSSY}
        self._check_fields({name: Field.of(array) for name, array in values.items()})

        sizes = (records.returns(dataset), records.lengths(dataset))
        self._summed.append((*sizes, dataset.level.copy(), dataset.component.copy()))
        self._waiting.append(values)
        self._flush(len(self) - len(self) % self._chunk)

    def _check_fields(self, fields: dict[str, Field]) -> None:
        """Make the arrays, or raise RefusedError unless they are of these fields."""
        if not self._fields:
            self._create(fields)
            return
        names = {**fields, **self._fields}
        differing = [name for name in names if fields.get(name) != self._fields.get(name)]
        if differing:
            raise RefusedError(
                f"{self.path}: {', '.join(differing)} differ in shape or dtype from the batches "
                "before."
            )

    def _create(self, fields: dict[str, Field]) -> None:
        for name, field in fields.items():
            if not headers.is_name(name):
                raise RefusedError(
                    f"{name} cannot be the name of a field: use letters, digits, '_', '.' and '-'."
                )
            if field.is_empty:
                continue
            if name == "obs":
                self._chunk = field.chunk_episodes()
            where = arrays.location(self.folder, name) | {"metadata": field.metadata()}
            self._arrays[name] = tensorstore.open(where, create=True).result()
        self._fields = fields
        self._write_header(finished=False)

    def _flush(self, until: int) -> None:
        """Write waiting episodes up to number `until`."""
        if until <= self._num:
            return
        joined = {}
        for name in self._fields:
            joined[name] = np.concatenate([batch[name] for batch in self._waiting])

        # all arrays at once
        count = until - self._num
        writes = []
        for name, array in self._arrays.items():
            longer = array.resize(exclusive_max=[until, *self._fields[name].shape]).result()
            writes.append(longer[self._num : until].write(joined[name][:count]))
            self._arrays[name] = longer
        for write in writes:
            write.result()
        self._num = until

        # what does not fill a chunk waits
        rest = {name: values[count:].copy() for name, values in joined.items()}
        self._waiting = [rest] if len(rest["mask"]) else []

    def close(self) -> pathlib.Path:
        """Finish the data set; its path. Raises RefusedError if nothing was appended."""
        if not self._summed:
            raise RefusedError(f"{self.path}: no episode was written. Append some before closing.")
        self._flush(len(self))
        of_all = [np.concatenate(parts) for parts in zip(*self._summed, strict=True)]
        self.card |= summary(*of_all)
        self._write_header(finished=True)
        durable.sync_tree(self.folder)
        durable.replace_folder(self.folder, self.path)
        return self.path

    def _write_header(self, finished: bool) -> None:
        fields = {name: field.plain() for name, field in self._fields.items()}
        header: Card = {
            "format": FORMAT,
            "version": VERSION,
            "finished": finished,
            "episodes": self._num,
            "fields": fields,
            "card": self.card,
        }
        if finished:
            header[CHECKSUMS] = self._checksums()
            header[CHECKSUMS]["card"] = headers.digest(header)
        durable.write_text(self.folder / CARD, json.dumps(header, indent=1, allow_nan=False) + "\n")

    def _checksums(self) -> dict[str, Any]:
        """Those of all files but the card, which has to be added."""
        of_arrays = {name: headers.digest_of_array(self.folder / name) for name in self._arrays}
        of_chunks = {}
        for name, array in self._arrays.items():
            episodes = limits.sizes_of_chunk(array.chunk_layout.write_chunk.shape)[0]
            folder = self.folder / name
            numbers = range(math.ceil(self._num / episodes))
            of_chunks[name] = [headers.chunk_checksum(folder, n, array.rank) for n in numbers]
        return {"arrays": of_arrays, "chunks": of_chunks}

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
    """Clear what an earlier writer left at `folder`.

    Raises RefusedError unless nothing, or something of ours, is in the way.
    """
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
                f"{there} is not a data set of jaxshare and is not overwritten. Choose another "
                "name."
            )

    # ours, or not there
    if folder.exists():
        shutil.rmtree(folder)

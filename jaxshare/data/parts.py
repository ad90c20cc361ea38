"""A data set in parts: a folder of numbered HDF5 files, as OffPyMARL and ODIS collect them.

They are called part_0.h5, part_1.h5, ...

Source: Zhang et al. 2023 (ODIS), whose collector starts a new file every 2000 episodes. The parts
are read one after the other in the order of their numbers, and must agree in everything but their
episodes.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import re

import numpy as np

from jaxshare.data import hdf5, records
from jaxshare.data.card import summary
from jaxshare.data.records import Card, Dataset, Index
from jaxshare.types import RefusedError

PATTERN = re.compile(r"(.*?)(\d+)\.(h5|hdf5)")


def numbered(folder: pathlib.Path) -> dict[int, pathlib.Path]:
    """The parts in a folder by their numbers, in order; {} if there are none.

    Raises RefusedError if files of several names, or two of one number, are there.
    """
    parts: dict[int, pathlib.Path] = {}
    names = set()
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        # files of one name, each number once
        matched = PATTERN.fullmatch(path.name)
        if matched is None or not path.is_file():
            continue
        names.add(matched[1])
        if len(names) > 1 or int(matched[2]) in parts:
            raise RefusedError(
                f"{folder} holds HDF5 files that are not the parts of one data set, such as "
                f"{path.name}. Name one of them, or put the parts of one set into a folder of "
                "their own."
            )
        parts[int(matched[2])] = path
    return dict(sorted(parts.items()))


class Stored:
    """The parts of a data set on disk, as one. rewards: see `hdf5.open`."""

    def __init__(self, path: str | pathlib.Path, rewards: str = "team") -> None:
        self.path = pathlib.Path(path)
        self._numbers = numbered(self.path)
        self.parts = [hdf5.open(part, rewards) for part in self._numbers.values()]
        self._check_fit()
        self._until = np.cumsum([len(part) for part in self.parts])
        first = self.parts[0]

        # one card of all
        joined = {}
        for name in first.numbers:
            joined[name] = np.concatenate([part.numbers[name] for part in self.parts])
        source: Card = {
            "format": "PyMARL HDF5 in parts",
            "name": self.path.name,
            "parts": [part.path.name for part in self.parts],
            "notes": [],
        }
        self.card: Card = {**first.card, **summary(**joined), "source": source}
        if not first.own_card:
            self.card["scenario"] = self.path.name

    def __len__(self) -> int:
        return int(self._until[-1])

    def _notes(self) -> list[str]:
        """What to tell of the parts that were read so far, and of those that are not there."""
        notes = []
        for before, after in itertools.pairwise(self._numbers):
            if after != before + 1:
                gap = f"no parts are there between {before} and {after}"
                notes.append(f"{gap}: the others are read without them.")
        for part in self.parts:
            notes += [f"{part.path.name}: {note}" for note in part.card["source"]["notes"]]
        return notes

    def _check_fit(self) -> None:
        first = self.parts[0]
        for part in self.parts[1:]:
            differing = []
            for name in sorted({*first.layout, *part.layout}):
                expected = first.layout.get(name)
                actual = part.layout.get(name)
                if actual != expected:
                    differing.append(f"{name}: {expected} and {actual}")
            if differing:
                raise RefusedError(
                    f"{self.path}: {first.path.name} and {part.path.name} are not parts of one "
                    f"data set ({'; '.join(differing)}). Name one of them, or take the other away."
                )

    def read(self, episodes: Index = None) -> Dataset:
        """The episodes at an index (all by default) in memory."""
        chosen = records.indices(episodes, len(self))
        if not len(chosen):
            return dataclasses.replace(self.parts[0].read([]), card=self.card)

        # each part is read once, whatever the order
        part = np.searchsorted(self._until, chosen, side="right")
        starts = self._until - [len(each) for each in self.parts]
        read = []
        for number in np.unique(part):
            places = chosen[part == number] - starts[number]
            read.append(self.parts[number].read(places))
        self.card["source"]["notes"] = self._notes()
        whole = dataclasses.replace(records.concatenate(read), card=self.card)

        order = np.argsort(part, kind="stable")
        return whole if (np.diff(order) == 1).all() else whole.take(np.argsort(order))

"""A run's data set: whether its algorithm can learn from it, and its episodes.

They are handed on in the layout of a replay.
"""

from __future__ import annotations

import dataclasses
import sys

import jax
import numpy as np

from jaxshare import registry
from jaxshare.data.environment import check_spec
from jaxshare.data.formats import open_any
from jaxshare.data.records import SLOTS, Source
from jaxshare.settings.records import Settings
from jaxshare.settings.run_parts import DatasetConfig
from jaxshare.training import replay
from jaxshare.training.program import Program
from jaxshare.types import Algorithm, Episode, RefusedError


def learning_from(settings: Settings, algorithm: Algorithm) -> Algorithm:
    """The algorithm as it learns from `data`, if that is set.

    Raises RefusedError if it cannot, or needs it.
    """
    used = f"algo={settings.algo_name}"
    data = settings.run.data
    if not data:
        if algorithm.experience == "dataset":
            raise RefusedError(
                f"{used} learns from a data set: name one, as in data=sets/2s3z_low.jds."
            )
        _refuse_options(settings)
        return algorithm

    # whatever plays or watches by itself cannot do without an environment
    plays = algorithm.experience not in ("replay", "dataset")
    if plays or algorithm.before_update or algorithm.observe:
        raise RefusedError(
            f"data={data}: {used} with these modifiers must play to learn. Use an algorithm that "
            "learns from stored episodes, such as qmix, without modifiers that play or watch."
        )
    return dataclasses.replace(algorithm, experience="dataset")


def _refuse_options(settings: Settings) -> None:
    """Raise RefusedError for settings of how a data set is read, where none is."""
    for name, value in dataclasses.asdict(settings.run.dataset).items():
        if value != getattr(DatasetConfig(), name):
            raise RefusedError(
                f"dataset.{name}={value} has no effect without data=SET: name one, or leave it out."
            )


def open_set(settings: Settings) -> Source:
    """The data set of a run on disk, read as the settings say.

    Raises RefusedError if it is none.
    """
    return open_any(settings.run.data, **dataclasses.asdict(settings.run.dataset))


def load(settings: Settings, program: Program) -> Episode | None:
    """The data set of a run, in the layout of a replay, or None.

    Raises RefusedError if it does not fit.
    """
    if not program.offline:
        return None
    source = open_set(settings)
    batch_size = settings.run.batch_size
    if len(source) < batch_size and not program.algorithm.window:
        raise RefusedError(
            f"batch_size={batch_size}: data={settings.run.data} holds {len(source)} episodes, and "
            f"a batch is drawn without replacement. Use batch_size={len(source)} at most."
        )

    # read, check, and tell what its reader had to remark
    dataset = source.read()
    check_spec(dataset, program.env.spec, f"data={settings.run.data}")
    for note in dataset.card.get("source", {}).get("notes", []):
        print(f"note: data={settings.run.data}: {note}", file=sys.stderr)
    return cropped(dataset.episodes)


def cropped(episodes: Episode) -> Episode:
    """Episodes in the layout of a replay, [E, T(+1), ...], T cut to the steps of the longest."""
    limit = episodes.mask.shape[1]
    longest = int(np.asarray(episodes.mask).sum(1).max())
    if longest == limit:
        return episodes

    # copies, so that what is cut off can be freed
    shorter = jax.tree.map(lambda x: np.ascontiguousarray(x[:, :longest]), episodes)
    slots = {}
    for name in SLOTS:
        slots[name] = np.ascontiguousarray(getattr(episodes, name)[:, : longest + 1])
    return dataclasses.replace(shorter, **slots)


def fitted(settings: Settings) -> Settings:
    """The settings with what the algorithm takes from the data set, if it has a function `fitted`.

    They are what a run directory keeps, so that a run is evaluated without its data set.
    Raises RefusedError.
    """
    fit = getattr(registry.get("algo", settings.algo_name), "fitted", None)
    if fit is None or not settings.run.data:
        return settings
    episodes = len(open_set(settings))
    return dataclasses.replace(
        settings, algo=fit(settings.algo, episodes, settings.run.total_updates)
    )


def num_bytes(settings: Settings, program: Program) -> int:
    """Bytes of one copy of the data set before it is cut, or 0 without one.

    Only an episode of it is read.
    """
    if not program.offline:
        return 0
    source = open_set(settings)
    return len(source) * replay.num_bytes(source.read(slice(0, 1)).episodes)

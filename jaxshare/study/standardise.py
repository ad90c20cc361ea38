"""python -m jaxshare.study.standardise SET.jds: a copy with rewards of mean 0 and deviation 1."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from typing import Any

import numpy as np

from jaxshare import cli
from jaxshare.data import own
from jaxshare.types import RefusedError

SUFFIX = "_standardised"


def main() -> None:
    """Entry point."""
    cli.run_command(lambda: _main(sys.argv[1:]))


def _main(arguments: list[str]) -> None:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise RefusedError("name a data set: python -m jaxshare.study.standardise SET.jds.")
    print(f"written: {standardise(pathlib.Path(arguments[0]))}")


def standardise(path: pathlib.Path) -> pathlib.Path:
    """Write the copy beside the data set, unless it is there: its place.

    Team rewards have mean 0 and standard deviation 1 over all steps. Raises RefusedError for what
    is no data set.
    """
    copy = path.with_name(f"{path.stem}{SUFFIX}.jds")
    if copy.exists():
        return copy
    dataset = own.open(path).read()
    episodes = dataset.episodes

    # only steps that were played count
    valid = np.asarray(episodes.mask)[..., None] > 0
    rewards = np.asarray(episodes.reward)[np.broadcast_to(valid, episodes.reward.shape)]
    scaled = (episodes.reward - rewards.mean()) / rewards.std()
    changes: dict[str, Any] = {"reward": np.where(valid, scaled, 0).astype(np.float32)}

    card = {
        **dataset.card,
        "standardised": {"mean": float(rewards.mean()), "std": float(rewards.std())},
    }
    replaced = dataclasses.replace(episodes, **changes)
    changed = dataclasses.replace(dataset, episodes=replaced, card=card)
    own.save(changed, copy)
    return copy


if __name__ == "__main__":
    main()

"""How data sets of other formats are read: the settings `dataset.*`, and which format has which.

Every message that names such a setting names it as the command line has it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxshare.data.records import Array
from jaxshare.settings.fields import ranges
from jaxshare.settings.run_parts import DatasetConfig
from jaxshare.settings.validate import check_value
from jaxshare.types import RefusedError

DEFAULTS: dict[str, Any] = dataclasses.asdict(DatasetConfig())
OF_OWN: tuple[str, ...] = ()
OF_HDF5 = ("rewards",)
OF_VAULT = tuple(DEFAULTS)


def check(
    options: Mapping[str, object], known: tuple[str, ...] = OF_VAULT, what: str = "a vault"
) -> None:
    """Raise RefusedError for a value that does not exist, or is no default and has no effect.

    known: names of the options that the format has; what: its name.
    """
    limits = ranges(DatasetConfig)
    for name, value in options.items():
        if name in limits and value is not None:
            check_value(f"dataset.{name}", value, limits[name])
        if name not in known and value != DEFAULTS.get(name):
            text = str(value).lower() if isinstance(value, bool) else value
            raise RefusedError(f"dataset.{name}={text} has no effect on {what}. Leave it out.")


def rewards_as_asked(reward: Array, rewards: str, where: str) -> Array:
    """Rewards of rows [M, N] by the setting dataset.rewards, [M, N].

    "team" raises RefusedError for agents with unequal rewards, "mean" gives each of them the mean,
    "individual" leaves them.
    """
    if rewards == "individual":
        return reward
    if rewards == "mean":
        return np.broadcast_to(reward.mean(1, keepdims=True), reward.shape)
    unequal = (reward != reward[:, :1]).any(1)
    if unequal.any():
        raise RefusedError(
            f"{where}: the agents' rewards differ in {int(unequal.sum())} of {len(reward)} rows, "
            "so they are no team reward. Use dataset.rewards=individual to keep them, or "
            "dataset.rewards=mean to give all their mean."
        )
    return reward

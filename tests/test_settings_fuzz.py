"""Nonsense for every single setting: each is accepted or refused in words, before anything is compiled or allocated.

Settings are put together without hydra's composing, which takes a hundred times as long; values are parsed as on the
command line. `tests/test_refusals.py` goes through hydra.
"""

import dataclasses
import random
import tracemalloc

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jaxshare import cli, parallel, registry, session
from jaxshare.config import RunConfig, Settings
from jaxshare.settings.fields import ranges
from jaxshare.types import RefusedError

NONSENSE = ("-1", "nan", "inf", "99999999999", "", "text", "[]", "[1,2]")
FURTHER = ("0", "1", "-inf", "1e39", "1e-50", "2147483648", "1000000", "null", "true", "{a:1}", "0.5", "''", "-0.0")
MOST_BYTES = 200_000_000  # of one case on the Python side; nothing is kept, so this is the size of an accident

TASKS = {"comix": ("mpe", {"scenario": "pred_prey_3a"})}  # of algorithms that cannot learn the matrix game
LEARNERS = {"mpe": "iql"}
HOSTS = {"differ": "qmix", "cql": "maddpg", "standardise": "qmix", "a_pps": "vdn", "rs_pps": "vdn", "pp_pps": "vdn"}


def plain(kind, name):
    """The default settings of an entry, of which some need a value to be of use at all."""
    config = registry.get(kind, name).Config()
    if kind == "algo" and hasattr(config, "capacity"):
        return dataclasses.replace(config, capacity=64)
    return config

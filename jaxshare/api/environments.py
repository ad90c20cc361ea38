"""Environments by name, and entries that a program adds."""

from __future__ import annotations

import dataclasses

from jaxshare import registry
from jaxshare.api import keywords
from jaxshare.registry import register
from jaxshare.settings.validate import check_record
from jaxshare.types import Env

__all__ = ["make_env", "register"]


def make_env(name: str, **settings: object) -> Env:
    """An environment of `python -m jaxshare.list`: make_env("lbf", scenario="8x8-2p-2f-coop").

    settings: those of `env.*` on the command line.
    Its `reset(key)` and `step(state, action, key)` are pure functions of one environment, to be
    vmapped and jitted; `spec` tells its sizes.
    Raises RefusedError for a name or a setting that there is not, or a package that is missing.
    """
    entry = registry.get("env", name)
    known = [field.name for field in dataclasses.fields(entry.Config)]
    keywords.check_known(f"make_env({name!r}", settings, known)
    config = entry.Config(**settings)
    check_record(config, "env.")
    return entry.make(config)

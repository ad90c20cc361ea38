"""A search as it was asked for, checked; and the settings of its trials."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from jaxshare import cli, durable
from jaxshare.run import reader
from jaxshare.run.folder import FREE_TO_CHANGE, plain
from jaxshare.run.output import check_writable
from jaxshare.settings.plain import flatten
from jaxshare.settings.records import Settings
from jaxshare.settings.validate import RUNS, check_all
from jaxshare.tune.arguments import Asked
from jaxshare.tune.keys import with_value
from jaxshare.tune.settings import Config
from jaxshare.tune.space import Parameter, Value, parameter
from jaxshare.types import RefusedError

IDENTITY = "search.json"
WHAT_IT_IS = reader.Record(others=reader.ANY)
Params = Mapping[str, Value]  # of a trial: {"lr": 0.001, "algo.hidden_dim": 64}


@dataclass(frozen=True)
class Plan:
    """A search."""

    settings: Settings  # of its runs, without what is searched
    space: tuple[Parameter, ...]
    config: Config
    out: pathlib.Path

    def settings_of(self, params: Params, statics_only: bool = False) -> Settings:
        """Those of a trial. Raises RefusedError for values that do not go together.

        statics_only: without the values that a sweep varies.
        """
        settings = self.settings
        for searched in self.space:
            if not (statics_only and searched.place.is_swept):
                settings = with_value(settings, searched.place.full_key, params[searched.key])
        return settings

    def point_of(self, params: Params) -> dict[str, float]:
        """The point of a sweep that a trial is."""
        swept = [searched.key for searched in self.space if searched.place.is_swept]
        return {key: float(params[key]) for key in swept}

    def statics_of(self, params: Params) -> tuple[Value, ...]:
        """The values that trials must share to be runs of one program."""
        keys = [searched.key for searched in self.space if not searched.place.is_swept]
        return tuple(params[key] for key in keys)


def make(asked: Asked) -> Plan:
    """The search that is asked for. Nothing is written. Raises RefusedError."""
    config = asked.config
    if not asked.search:
        raise RefusedError(
            "search.… is missing: say what is searched, as in 'search.lr=log(1e-4,1e-2)'."
        )
    if not config.out:
        raise RefusedError("out is missing: name the search's folder, as in out=runs/tune/climb.")

    # the runs, and what is searched
    settings = cli.settings(asked.training)
    check_all(settings)
    space = tuple(parameter(key, text, settings) for key, text in asked.search.items())
    keys = [searched.key for searched in space]
    for key in keys:
        if keys.count(key) > 1:
            raise RefusedError(f"search.{key} is there twice, perhaps by its longer name: say one.")
    _check_size(settings, config)

    out = pathlib.Path(config.out)
    check_writable(out / IDENTITY, "out")
    return Plan(settings, space, config, out)


def _check_size(settings: Settings, config: Config) -> None:
    """Raise RefusedError for more runs or evaluations than there can be."""
    seeds = settings.run.seeds
    if config.batch * seeds > RUNS:
        raise RefusedError(
            f"batch={config.batch} with seeds={seeds} are {config.batch * seeds} runs: {RUNS} at "
            f"most. Use batch={RUNS // seeds}."
        )

    # how often a run is evaluated at least
    run = settings.run
    total = run.total_updates if run.data else run.total_env_steps
    evaluations = max(1, total // run.eval.every)
    if config.last > evaluations:
        raise RefusedError(
            f"last={config.last}: runs of {total:,} with eval.every={run.eval.every:,} have "
            f"{evaluations} evaluations. Use last={evaluations} at most, or a smaller eval.every."
        )


# ----------------------------------------------------------------------------------- going on


def check_same(plan: Plan) -> None:
    """Write what the search is, or compare it with what is written. Raises RefusedError."""
    path = plan.out / IDENTITY
    now = _identity(plan)
    if not path.exists():
        durable.write_text(path, json.dumps(now, indent=1) + "\n")
        return
    tree = reader.read_json(path, WHAT_IT_IS, "Choose another out.")
    before = {key: str(value) for key, value in tree.items()}

    # compare
    changed = []
    for key in sorted(now.keys() | before.keys()):
        if before.get(key) != now.get(key):
            absent = "not there"
            changed.append(f"{key} was {before.get(key, absent)}, now {now.get(key, absent)}")
    if changed:
        raise RefusedError(
            f"out={plan.out} holds another search ({'; '.join(changed[:5])}). Use those settings, "
            "or choose another out. Nothing was changed."
        )


def _identity(plan: Plan) -> dict[str, str]:
    """What all trials of a search have in common, as texts."""
    tree: dict[str, Any] = flatten(plain(replace(plan.settings, sweep={})))
    same = {key: value for key, value in tree.items() if not key.startswith(FREE_TO_CHANGE)}
    same |= {f"search.{searched.key}": searched.text for searched in plan.space}
    for name in ("metric", "last", "sampler", "sampler_seed"):
        same[name] = getattr(plan.config, name)
    return {key.removeprefix("run."): str(value) for key, value in same.items()}

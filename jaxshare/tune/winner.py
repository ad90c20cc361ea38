"""The best trial as a preset: what differs from the defaults of its algorithm and environment."""

from __future__ import annotations

from typing import Any

import yaml

from jaxshare import cli, registry
from jaxshare.plugins.entries import FILE, MODULE
from jaxshare.results.directories import IRRELEVANT
from jaxshare.run.folder import plain
from jaxshare.settings.records import Settings
from jaxshare.tune.outcome import Trial
from jaxshare.tune.plan import Plan

Tree = dict[str, Any]
HEADER = """\
# @package _global_
# Trial {number} of a search in {out}: {metric} {value:.6g}, the highest of {count}.
# The highest of several noisy scores is too high: judge these settings on seeds that the search has
# not seen.
"""


def preset(plan: Plan, trial: Trial, metric: str, count: int) -> str:
    """The text of a YAML file that `preset=` takes. count: trials that have a value."""
    settings = plan.settings_of(trial.params)
    tree = _tree(settings)
    now = plain(settings)
    for searched in plan.space:  # what was searched is there even where it is the default
        _set(tree, searched.place.full_key.split("."), _sections(now))
    value = trial.outcome.value if trial.outcome else 0.0
    header = HEADER.format(
        number=trial.number, out=plan.out, metric=metric, value=value, count=count
    )
    return header + yaml.safe_dump(tree, sort_keys=False)


def _tree(settings: Settings) -> Tree:
    """The settings as a preset has them."""
    chosen = [f"algo={settings.algo_name}", f"env={settings.env_name}"]
    if settings.modifiers:
        chosen.append(f"modifiers=[{','.join(settings.modifiers)}]")
    changed = _changes(_sections(plain(settings)), _sections(plain(cli.settings(chosen))))
    for key in IRRELEVANT:
        _remove(changed, key.split("."))

    # what is chosen, and what is changed
    tree: Tree = {
        "defaults": [
            {"override /algo": _reference("algo", settings.algo_name)},
            {"override /env": _reference("env", settings.env_name)},
        ]
    }
    if settings.modifiers:
        tree["modifiers"] = [_reference("modifiers", name) for name in settings.modifiers]
    return tree | changed


def _sections(tree: Tree) -> Tree:
    """Plain settings by the keys of the command line."""
    return {**tree["run"], "algo": tree["algo"], "env": tree["env"], **tree["modifiers"]}


def _reference(kind: str, name: str) -> str:
    """How a file names an entry: one that a file or a dotted path brought, by that."""
    origin = registry.entry(kind, name).origin
    if origin is None or origin.how not in (FILE, MODULE):
        return name
    return origin.file or origin.module


def _changes(now: Tree, before: Tree) -> Tree:
    """What of nested values is another one."""
    changed: Tree = {}
    for key, value in now.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            inner = _changes(value, old)
            if inner:
                changed[key] = inner
        elif value != old:
            changed[key] = value
    return changed


def _remove(tree: Tree, keys: list[str]) -> None:
    """Remove a value, and the group that is empty then."""
    first = keys[0]
    if first not in tree:
        return
    if len(keys) > 1:
        _remove(tree[first], keys[1:])
    if len(keys) == 1 or not tree[first]:
        del tree[first]


def _set(tree: Tree, keys: list[str], values: Tree) -> None:
    """Copy one of nested values."""
    first = keys[0]
    if len(keys) == 1:
        tree[first] = values[first]
    else:
        _set(tree.setdefault(first, {}), keys[1:], values[first])

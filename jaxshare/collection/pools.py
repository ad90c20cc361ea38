"""Which policies a composition draws from: pools of checkpoints by their return."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.table import Table

from jaxshare.collection.policies import Policies
from jaxshare.data import composition as composing
from jaxshare.data import paper_sets
from jaxshare.data import pools as pooling
from jaxshare.data.composition import Composition
from jaxshare.data.pools import Pools
from jaxshare.data.records import LEVELS
from jaxshare.types import EnvSpec, RefusedError

PRESETS = ("low", "medium", "extreme", "balanced_random", "balanced_medium", "balanced_expert")


def composition_of(text: str, spec: EnvSpec) -> tuple[Composition, dict[str, Any]]:
    """A composition, from its own text or the name of one of the paper's.

    With it what a card notes of it.
    """
    note: dict[str, Any] = {}
    if text in PRESETS:
        environment, _, scenario = spec.name.partition("/")
        preset = paper_sets.preset(environment, scenario, text)
        note = {
            "preset": text,
            "confidence": preset.confidence,
            "paper_average": preset.average,
            "note": preset.note,
        }
        text = preset.composition
    return composing.parse(text, spec.num_agents), note


def cut(policies: Policies, rule: str | None, environment: str) -> Pools:
    """Pools between the returns of random play and of the best policy.

    rule: of `composition.RULES`; None: the paper's for the environment.
    """
    low = float(policies.returns[-1])
    high = float(policies.returns.max())
    return pooling.thresholds(low, high, rule or pooling.rule_of(environment))


def members(composition: Composition, pools: Pools, policies: Policies) -> dict[int, np.ndarray]:
    """Policies of each level that the composition needs.

    paper: the random pool begins at the return of random play (tables 4-6), so what is worse
    belongs to none.
    Raises RefusedError if there are none of one level.
    """
    level = np.where(policies.returns < pools.low, -1, pools.level(policies.returns))
    members = {}
    for needed in sorted({i for part in composition.components for i in part.levels}):
        members[needed] = np.flatnonzero(level == needed)
        if not len(members[needed]):
            returns = ", ".join(f"{value:.2f}" for value in sorted(policies.returns))
            first, second = pools.cuts
            raise RefusedError(
                f"composition={composition} needs {LEVELS[needed]} policies, and no checkpoint is "
                f"one: the cuts are {first:.2f} and {second:.2f}, the checkpoints "
                f"return {returns}. Train with a smaller checkpoint.every and "
                "checkpoint.keep=1000, or train longer."
            )
    return members


def table(pools: Pools, policies: Policies, members: dict[int, np.ndarray]) -> Table:
    """The pools that are drawn from, for a person."""
    count = len(policies.returns) - 1
    title = f"random play returns {pools.low:.2f}, the best of {count} checkpoints {pools.high:.2f}"
    table = Table("level", "returns", "policies", "their mean", title=title)
    first, second = pools.cuts
    bounds = (f"{pools.low:.2f} to {first:.2f}", f"to {second:.2f}", f"from {second:.2f}")
    for number, index in members.items():
        mean = f"{policies.returns[index].mean():.2f}"
        table.add_row(LEVELS[number], bounds[number], str(len(index)), mean)
    return table


def card_of(pools: Pools, policies: Policies) -> dict[str, Any]:
    """What a data set's card says of the policies that it was collected with."""
    return {
        "low": pools.low,
        "high": pools.high,
        "cuts": list(pools.cuts),
        "returns": policies.returns.tolist(),
        "policies": policies.names,
    }


def verdict(name: str, pools: Pools, card: dict[str, Any]) -> list[str]:
    """How good a data set is, and whether as good as the paper's set of that name, in lines."""
    mean = float(card["returns"]["mean"])
    episodes = card["episodes"]
    quality = pools.quality(mean)
    scale = "of 0 random … 1 best"
    lines = [f"{episodes:,} episodes, mean return {mean:.2f} (quality {quality:.2f} {scale})"]
    if name in pooling.WINDOWS and not pooling.within(name, quality):
        low, high = pooling.WINDOWS[name]
        lines.append(
            f"note: the paper's {name} sets have a quality of {low} to {high}; with another number "
            "of random agents this one would."
        )
    return lines

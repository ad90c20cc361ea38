"""Which agents of a jaxmarl game are of one type."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

Agent = object  # a name, or a number


class Groups(NamedTuple):
    """Types of agents."""

    groups: tuple[int, ...]  # of each agent
    names: tuple[str, ...]  # of each type


def group_agents(agents: Sequence[Agent], sizes: Sequence[tuple[int, int]]) -> Groups:
    """Those with the same name but for the number, and the same sizes, are of one type.

    sizes: numbers that an agent observes, and actions.
    """
    kinds = [(_stem(agent), *size) for agent, size in zip(agents, sizes, strict=True)]
    present = list(dict.fromkeys(kinds))
    stems = [kind[0] for kind in present]

    # types of the same name are numbered
    names = []
    for i, stem in enumerate(stems):
        names.append(stem if stems.count(stem) == 1 else f"{stem}_{i}")
    return Groups(tuple(present.index(kind) for kind in kinds), tuple(names))


def _stem(agent: Agent) -> str:
    return re.sub(r"_?\d+$", "", str(agent)) or "agent"
